from .running import CraftedFolder as CraftedFolder
from .running import craft_folder as craft_folder
from .settings import Crafting as Crafting
from .settings import parse_epsilon as parse_epsilon
from .settings import parse_preprocessing as parse_preprocessing
from .settings import parse_settings as parse_settings
