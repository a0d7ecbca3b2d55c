from .bit_depth import BitDepth as BitDepth
from .catalogue import DEFENSES as DEFENSES
from .catalogue import create as create
from .defense import Defense as Defense
