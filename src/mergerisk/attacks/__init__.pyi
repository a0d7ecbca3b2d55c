from .attack import Attack as Attack
from .attack import Crafted as Crafted
from .attack import IterativeAttack as IterativeAttack
from .attack import bounds as bounds
from .catalogue import ATTACKS as ATTACKS
from .catalogue import create as create
from .gradient_sign import (
    DIFGSM as DIFGSM,
)
from .gradient_sign import (
    FGSM as FGSM,
)
from .gradient_sign import (
    IFGSM as IFGSM,
)
from .gradient_sign import (
    MIFGSM as MIFGSM,
)
from .gradient_sign import (
    NIFGSM as NIFGSM,
)
from .gradient_sign import (
    TIFGSM as TIFGSM,
)
