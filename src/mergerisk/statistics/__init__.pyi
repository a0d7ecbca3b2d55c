from . import explaining as explaining
from .claim_sources import read_tables as read_tables
from .claim_tables import Saturation as Saturation
from .claim_tables import Tables as Tables
from .claim_tables import saturation as saturation
from .claim_tables import tables_from_outcomes as tables_from_outcomes
from .claim_tables import tables_from_rates as tables_from_rates
from .claims import BUILT_IN as BUILT_IN
from .claims import ON_CAUSES as ON_CAUSES
from .claims import Claim as Claim
from .claims import ExplainsClaim as ExplainsClaim
from .claims import ExtremeClaim as ExtremeClaim
from .claims import PairedClaim as PairedClaim
from .claims import RateClaim as RateClaim
from .claims import TrendClaim as TrendClaim
from .claims import built_in as built_in
from .claims import check_claims as check_claims
from .claims import load_claims as load_claims
from .claims import parse_claims as parse_claims
from .clusters import ClusterMean as ClusterMean
from .clusters import Interval as Interval
from .clusters import cluster_mean as cluster_mean
from .columns import recognise as recognise
from .correction import benjamini_hochberg as benjamini_hochberg
from .correction import correct as correct
from .correction import holm as holm
from .curves import Epsilon50 as Epsilon50
from .curves import Fall as Fall
from .curves import epsilon50 as epsilon50
from .curves import falls as falls
from .diagnostics import Diagnostics as Diagnostics
from .differences import paired_difference as paired_difference
from .differences import unpaired_difference as unpaired_difference
from .doubts import doubts as doubts
from .facts import Fact as Fact
from .intervals import mean_interval as mean_interval
from .intervals import mean_ratio_interval as mean_ratio_interval
from .intervals import paired_ratio_interval as paired_ratio_interval
from .intervals import wilson_interval as wilson_interval
from .judging import judge_claims as judge_claims
from .measured import Rate as Rate
from .measured import Transfer as Transfer
from .measuring import measure_transfer as measure_transfer
from .measuring import measure_transfers as measure_transfers
from .pairs import ImagePairs as ImagePairs
from .pairs import mcnemar as mcnemar
from .poster import CITATION as CITATION
from .poster import poster_tables as poster_tables
from .power import detectable_lead as detectable_lead
from .power import detectable_mean as detectable_mean
from .power import detectable_rho as detectable_rho
from .power import detectable_share as detectable_share
from .power import detectable_shift as detectable_shift
from .rank_tests import Friedman as Friedman
from .rank_tests import Page as Page
from .rank_tests import RankPicture as RankPicture
from .rank_tests import SignedRank as SignedRank
from .rank_tests import Signs as Signs
from .rank_tests import complete_blocks as complete_blocks
from .rank_tests import conover as conover
from .rank_tests import critical_difference as critical_difference
from .rank_tests import friedman as friedman
from .rank_tests import nemenyi as nemenyi
from .rank_tests import page as page
from .rank_tests import rank_picture as rank_picture
from .rank_tests import sign_test as sign_test
from .rank_tests import signed_rank as signed_rank
from .rate_tables import (
    accuracy_table as accuracy_table,
)
from .rate_tables import (
    curve_tables as curve_tables,
)
from .rate_tables import (
    epsilon50_table as epsilon50_table,
)
from .rate_tables import (
    fall_table as fall_table,
)
from .rate_tables import (
    rate_table as rate_table,
)
from .rate_tables import (
    with_intervals as with_intervals,
)
from .safest import PairOf as PairOf
from .safest import Standing as Standing
from .safest import Standings as Standings
from .safest import standings as standings
from .two_targets import TargetPair as TargetPair
from .two_targets import compare_targets as compare_targets
from .verdicts import AttackerAnswer as AttackerAnswer
from .verdicts import ClaimVerdict as ClaimVerdict
from .verdicts import Effect as Effect
from .verdicts import Retest as Retest
