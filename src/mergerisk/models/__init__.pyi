from .core.checks import check_finite as check_finite
from .core.checks import check_same_architecture as check_same_architecture
from .core.classifier import Classifier as Classifier
from .core.classifier import Head as Head
from .core.encoder import Encoder as Encoder
from .core.encoder import State as State
from .inside.features import extract_features as extract_features
from .on_disk.checkpoints import Checkpoint as Checkpoint
from .on_disk.checkpoints import StoredTensors as StoredTensors
from .on_disk.checkpoints import TensorSpec as TensorSpec
from .sources.classifiers import LoadedClassifier as LoadedClassifier
from .sources.classifiers import load_classifier as load_classifier
from .sources.experts import expert_identity as expert_identity
from .sources.heads import checkpoint_head as checkpoint_head
from .sources.heads import head_from_file as head_from_file
from .sources.heads import head_identity as head_identity
from .sources.heads import zero_shot as zero_shot
from .sources.hub import fetch as fetch
from .sources.loading import (
    BACKBONES as BACKBONES,
)
from .sources.loading import (
    backbone_folder as backbone_folder,
)
from .sources.loading import (
    backbone_identity as backbone_identity,
)
from .sources.loading import (
    load_encoder as load_encoder,
)
from .sources.loading import (
    text_identity as text_identity,
)
from .sources.lora import LoraCheckpoint as LoraCheckpoint
from .sources.siblings import load_expert as load_expert
from .sources.siblings import load_sibling as load_sibling
from .sources.templates import (
    class_names_for as class_names_for,
)
from .sources.templates import (
    templates_for as templates_for,
)
