from .correlation import rank_correlations as rank_correlations
from .generalising import Generalisation as Generalisation
from .generalising import leave_one_target_out as leave_one_target_out
from .matched import MatchedModel as MatchedModel
from .matched import matched_logit as matched_logit
from .mediation import mediated_share as mediated_share
