from .adamerging import AdaMerging as AdaMerging
from .averaging import TaskArithmetic as TaskArithmetic
from .averaging import WeightAveraging as WeightAveraging
from .catalogue import (
    CORRECTIONS as CORRECTIONS,
)
from .catalogue import (
    METHODS as METHODS,
)
from .catalogue import (
    create as create,
)
from .catalogue import (
    merge_state_dicts as merge_state_dicts,
)
from .catalogue import (
    split_name as split_name,
)
from .experts import LazyExperts as LazyExperts
from .interventions import (
    Placebo as Placebo,
)
from .interventions import (
    ShuffledBlock as ShuffledBlock,
)
from .interventions import (
    VectorChange as VectorChange,
)
from .interventions import (
    changed_experts as changed_experts,
)
from .interventions import (
    on_path as on_path,
)
from .learned import LearnedMerging as LearnedMerging
from .material import (
    Calibration as Calibration,
)
from .material import (
    Merged as Merged,
)
from .method import (
    Correction as Correction,
)
from .method import (
    EncoderMerging as EncoderMerging,
)
from .method import (
    MergingMethod as MergingMethod,
)
from .stacked import Stacked as Stacked
from .states import (
    StateMerging as StateMerging,
)
from .states import (
    TensorMerging as TensorMerging,
)
from .surgery import Surgery as Surgery
from .surgery import SurgeryAdapter as SurgeryAdapter
from .ties import Ties as Ties
