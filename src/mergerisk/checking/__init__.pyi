from .result import Check as Check
from .result import Compared as Compared
from .running import check as check
from .study_models import StudyCheck as StudyCheck
from .study_models import check_study as check_study
