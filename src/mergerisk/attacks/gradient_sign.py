"""FGSM and its iterated descendants: each class adds one idea to the shared loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat

from mergerisk.attacks.filters import TranslationInvariance
from mergerisk.attacks.gradient_attack import GradientAttack, IterativeAttack
from mergerisk.attacks.inputs import Admix, BlockShuffle, DiverseInputs, ScaledInputs, SpectrumInputs
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    import torch

    from mergerisk.attacks.attack import Problem
    from mergerisk.attacks.gradient_attack import Run


@hyperparameters
class FGSM(GradientAttack):
    """One step of size ε (Goodfellow et al. 2015, arXiv 1412.6572).

    The authors' later code attacks the predicted label; this attacks the true one.
    """

    def schedule(self, epsilon: float) -> tuple[int, float]:
        return 1, epsilon


@hyperparameters
class IFGSM(IterativeAttack):
    """Iterated FGSM, also called BIM (Kurakin et al. 2017, arXiv 1607.02533). Returns the last iterate."""


@hyperparameters
class PGD(IterativeAttack):
    """I-FGSM from a random start, uniform in the ball (Madry et al. 2018, arXiv 1706.06083). Returns the last
    iterate of one run; restarts would pick by the loss on the surrogate, which says little about transfer."""

    def start(self, problem: Problem) -> torch.Tensor:
        return problem.ball.start(problem.random)


@hyperparameters
class MIFGSM(IterativeAttack):
    """Momentum (Dong et al. 2018, arXiv 1710.06081, algorithm 1)."""

    decay: NonNegativeFloat = 1.0


@hyperparameters
class NIFGSM(MIFGSM):
    """Nesterov look-ahead: the gradient is taken at x + α μ m, which is not clipped
    (Lin et al. 2020, arXiv 1908.06281, equation 6)."""

    def look_ahead(self, run: Run) -> torch.Tensor:
        return run.adversarial + run.problem.ball.per_pixel(run.step_size) * self.decay * run.momentum


@hyperparameters
class DIFGSM(DiverseInputs, MIFGSM):
    """Diverse inputs with momentum, the paper's M-DI²-FGSM (Xie et al. 2019, arXiv 1803.06978); ``decay=0`` gives
    it without."""


@hyperparameters
class TIFGSM(TranslationInvariance, MIFGSM):
    """Translation invariance with momentum, as in TransferAttack (Dong et al. 2019, arXiv 1904.02884);
    ``decay=0`` gives it without. torchattacks' TIFGSM also applies DI: add ``inputs: [di]``."""


@hyperparameters
class SIFGSM(ScaledInputs, MIFGSM):
    """Scale invariance with momentum, TransferAttack's SIM (Lin et al. 2020, arXiv 1908.06281)."""


@hyperparameters
class SINIFGSM(ScaledInputs, NIFGSM):
    """Scale invariance with Nesterov look-ahead (Lin et al. 2020, arXiv 1908.06281, algorithm 1)."""


@hyperparameters
class AdmixFGSM(Admix, MIFGSM):
    """Admix with momentum (Wang et al. 2021, arXiv 2102.00436)."""


@hyperparameters
class SSA(SpectrumInputs, MIFGSM):
    """Spectrum simulation with momentum (Long et al. 2022, arXiv 2207.05382); the paper's S²I-MI-FGSM."""


@hyperparameters
class BSR(BlockShuffle, MIFGSM):
    """Block shuffle and rotation with momentum (Wang et al. 2024, arXiv 2308.10299)."""
