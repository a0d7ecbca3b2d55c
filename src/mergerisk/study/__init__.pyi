from .finished import (
    FinishedRun as FinishedRun,
)
from .finished import (
    load_run as load_run,
)
from .planning import Plan as Plan
from .planning import make_plan as make_plan
from .reading import load_study as load_study
from .reading import parse_study as parse_study
from .running import (
    Options as Options,
)
from .running import (
    run_study as run_study,
)
from .schema import Study as Study
from .stage import Stage as Stage
