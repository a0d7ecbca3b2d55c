from .result import Check as Check
from .result import Compared as Compared
from .running import check as check
from .studies import StudyCheck as StudyCheck
from .studies import check_study as check_study
