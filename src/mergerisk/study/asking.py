"""What models are asked about: which images of a task, within which budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from mergerisk.study.keyed import Keyed

if TYPE_CHECKING:
    from mergerisk.causes.given import Given
    from mergerisk.study.keyed import Input
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Asking(Keyed):
    """Attacked images and a budget; what an answer does not depend on is None, so that it is kept once.

    Attributes:
        images: how many are attacked, if the test split has as many.
        epsilon: the budget, of pixels in [0, 1].
        norm: of the budget.
        seed: of what is drawn.
    """

    kind: ClassVar[str] = "asking"

    images: int
    epsilon: float | None = None
    norm: Literal["linf", "l2"] | None = None
    seed: int | None = None

    def given(self, bench: Workbench, made: Input[Task]) -> Given:
        """The images, their labels and their places in the test split, as diagnostics take them."""
        import torch

        from mergerisk.causes.given import Given
        from mergerisk.study.attacked import attacked

        task, device = bench.task(made), bench.compute.device
        indices = attacked(task, self.images)
        return Given(
            target=torch.nn.Identity(),
            images=task.test.images[indices].to(device),
            labels=task.test.labels[indices].to(device),
            identities=tuple(indices.tolist()),
            epsilon=4 / 255 if self.epsilon is None else self.epsilon,
            norm=self.norm or "linf",
            seed=self.seed or 0,
            batch_size=bench.compute.batch_size,
        )
