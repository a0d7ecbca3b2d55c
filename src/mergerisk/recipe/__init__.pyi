from .converting import convert as convert
from .mergekit import translate as translate
from .running import merge_checkpoints as merge_checkpoints
from .schema import Recipe as Recipe
from .schema import load_recipe as load_recipe
from .schema import parse_recipe as parse_recipe
from .several import load_merges as load_merges
