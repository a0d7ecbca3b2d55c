from .events import Event as Event
from .events import Outcome as Outcome
from .events import RunFailed as RunFailed
from .events import RunFinished as RunFinished
from .events import RunStarted as RunStarted
from .events import StageEnded as StageEnded
from .events import StageStarted as StageStarted
from .events import Warned as Warned
