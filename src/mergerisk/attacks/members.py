"""An ensemble's surrogates one by one, through the loop of the attack that follows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from mergerisk.attacks.ensemble_gradients import Members
from mergerisk.attacks.losses import closeness

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mergerisk.attacks.attack import Problem
    from mergerisk.attacks.ensemble import Ensemble
    from mergerisk.attacks.losses import Loss

Oracle = Callable[[torch.Tensor], torch.Tensor]


class Following(Protocol):
    """What is needed of an attack; see :class:`mergerisk.attacks.GradientAttack`."""

    @property
    def loss(self) -> Loss: ...

    def logits(self, classifier: Oracle, images: torch.Tensor) -> torch.Tensor: ...

    def gradient_of(self, gain: Oracle) -> Oracle: ...

    def computing(self, images: torch.Tensor) -> AbstractContextManager[object]: ...


class Running(Protocol):
    """What is needed of its loop; see :class:`mergerisk.attacks.Run`."""

    problem: Problem
    step_size: float
    memory: dict[str, torch.Tensor]

    @property
    def oracle(self) -> Oracle: ...

    def through(self, points: torch.Tensor, oracle: Oracle) -> torch.Tensor: ...


@dataclass(frozen=True)
class RunMembers(Members):
    """An ensemble's members, as the attack whose loop runs follows them.

    Attributes:
        attack: whose loss and precision their gradients have.
        run: where its loop stands.
        ensemble: the surrogates.
    """

    attack: Following
    run: Running
    ensemble: Ensemble

    @property
    def problem(self) -> Problem:  # type: ignore[override]  # of the run
        return self.run.problem

    @property
    def step_size(self) -> float:  # type: ignore[override]
        return self.run.step_size

    @property
    def memory(self) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return self.run.memory

    @property
    def count(self) -> int:
        return len(self.ensemble.members)

    def together(self, points: torch.Tensor) -> torch.Tensor:
        return self.run.through(points, self.run.oracle)

    def one(self, number: int, points: torch.Tensor) -> torch.Tensor:
        return self.run.through(points, self._oracle(self._says(number)))

    def chosen(
        self, numbers: torch.Tensor, points: torch.Tensor, scale: torch.Tensor | None = None
    ) -> torch.Tensor:
        def gradient(images: torch.Tensor) -> torch.Tensor:
            found = torch.empty_like(images)
            for number in range(self.count):
                rows = (numbers == number).nonzero()[:, 0]
                if len(rows):
                    says = self._says(number, None if scale is None else scale[rows, None])
                    found[rows] = self._oracle(says, rows)(images[rows])
            return found

        return self.run.through(points, gradient)

    def weighed(self, weights: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        def says(images: torch.Tensor) -> torch.Tensor:
            logits = [self._says(number)(images) for number in range(self.count)]
            return (weights[..., None] * torch.stack(logits)).sum(dim=0)

        return self.run.through(points, self._oracle(says))

    def logits(self, number: int, points: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), self.attack.computing(points):
            return self._says(number)(points).double()

    def _says(self, number: int, scale: torch.Tensor | None = None) -> Oracle:
        """Images → one member's logits, as losses are computed of them."""
        member = self.ensemble.members[number]

        def logits(images: torch.Tensor) -> torch.Tensor:
            said = self.attack.logits(member, images)
            return said if scale is None else scale * said

        return logits

    def _oracle(self, says: Oracle, rows: torch.Tensor | None = None) -> Oracle:
        """Images → the gradient of the loss of what is said of them; those are the problem's, or its in some rows
        alone."""
        classes = self.problem.classes if rows is None else self.problem.classes[rows]
        loss, sign = self.attack.loss, self.problem.sign
        return self.attack.gradient_of(lambda images: sign * closeness(loss, says(images), classes).sum())
