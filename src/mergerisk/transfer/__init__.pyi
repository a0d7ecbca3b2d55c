from .evaluate import predict as predict
from .evaluate import predict_variants as predict_variants
from .rates import CURVE as CURVE
from .rates import SETTING as SETTING
from .rates import accuracies as accuracies
from .rates import rates as rates
