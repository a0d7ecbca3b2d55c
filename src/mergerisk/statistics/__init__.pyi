from .curves import Epsilon50 as Epsilon50
from .curves import Fall as Fall
from .curves import epsilon50 as epsilon50
from .curves import falls as falls
from .intervals import paired_ratio_interval as paired_ratio_interval
from .intervals import wilson_interval as wilson_interval
from .tables import (
    accuracy_table as accuracy_table,
)
from .tables import (
    epsilon50_table as epsilon50_table,
)
from .tables import (
    fall_table as fall_table,
)
from .tables import (
    rate_table as rate_table,
)
