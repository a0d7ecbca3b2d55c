from .recipe import Part as Part
from .recipe import Recipe as Recipe
from .result import Beside as Beside
from .result import Measured as Measured
from .result import Recommendation as Recommendation
from .running import recommend as recommend
