from .checkpoints import Checkpoint as Checkpoint
from .checkpoints import StoredTensors as StoredTensors
from .checkpoints import TensorSpec as TensorSpec
from .checks import check_finite as check_finite
from .checks import check_same_architecture as check_same_architecture
from .classifier import Classifier as Classifier
from .classifier import Head as Head
from .classifiers import LoadedClassifier as LoadedClassifier
from .classifiers import load_classifier as load_classifier
from .encoder import Encoder as Encoder
from .encoder import State as State
from .experts import expert_identity as expert_identity
from .features import extract_features as extract_features
from .heads import checkpoint_head as checkpoint_head
from .heads import head_from_file as head_from_file
from .heads import head_identity as head_identity
from .heads import zero_shot as zero_shot
from .hub import fetch as fetch
from .loading import (
    BACKBONES as BACKBONES,
)
from .loading import (
    backbone_folder as backbone_folder,
)
from .loading import (
    backbone_identity as backbone_identity,
)
from .loading import (
    load_encoder as load_encoder,
)
from .loading import (
    text_identity as text_identity,
)
from .lora import LoraCheckpoint as LoraCheckpoint
from .siblings import load_expert as load_expert
from .siblings import load_sibling as load_sibling
from .templates import (
    class_names_for as class_names_for,
)
from .templates import (
    templates_for as templates_for,
)
