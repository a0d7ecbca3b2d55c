from .fine_tune import FineTuning as FineTuning
from .fine_tune import fine_tune as fine_tune
from .linear_probe import linear_probe as linear_probe
