"""What explains who is fooled: diagnostics per image and target, held against outcomes.

Every function takes one table: a row per attacked image and target that counts, with ``task, attack, epsilon,
target, image``, an outcome and a column per diagnostic, NaN where a value is missing. None of them tells a cause
from a companion: that takes interventions.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
