from .result import Check as Check
from .result import Compared as Compared
from .running import check as check
