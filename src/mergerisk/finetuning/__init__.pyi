from .averaged import Collecting as Collecting
from .averaged import average_checkpoints as average_checkpoints
from .descent import FineTuning as FineTuning
from .descent import descend as descend
from .fine_tune import fine_tune as fine_tune
from .linear_probe import linear_probe as linear_probe
