"""How far clean images are from a model's decision boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from mergerisk.attacks.budget import ball
from mergerisk.attacks.losses import Loss
from mergerisk.causes.gradients import Gradient
from mergerisk.causes.probe import Probe, Reads, predictions
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from torch import nn

    from mergerisk.causes.probe import Batch, Parts


@hyperparameters
class Boundary(Probe):
    """``distance``, float64, N: min over wrong classes i of (z_y − z_i) / ‖∇(z_y − z_i)‖, in the norm dual to the
    budget's (1 for L∞, 2 for L2), infinite where no class can be reached at first order; and ``right``, whether
    the model names the label.

    Attributes:
        classes: how many wrong classes are tried, those with the largest logits first.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"labels", "logits", "gradients"})
    depends: ClassVar[frozenset[Literal["epsilon", "norm", "seed"]]] = frozenset({"norm"})

    classes: PositiveInt = 9

    @property
    def gradients_per_image(self) -> int:
        return self.classes

    def measure(self, model: nn.Module, batch: Batch) -> Parts:
        dual = 1 if batch.norm == "linf" else 2
        with torch.enable_grad():
            leaf = batch.images.detach().requires_grad_()
            logits = model(leaf)
            own = logits.gather(1, batch.labels[:, None])[:, 0]
            wrong = logits.detach().scatter(1, batch.labels[:, None], -torch.inf)
            order = wrong.argsort(dim=1, descending=True, stable=True)[:, : min(self.classes, logits.shape[1] - 1)]
            nearest = torch.full_like(own, torch.inf, dtype=torch.float64)
            for rival in order.unbind(dim=1):
                gap = own - logits.gather(1, rival[:, None])[:, 0]
                (slope,) = torch.autograd.grad(gap.sum(), leaf, retain_graph=True)
                steepness = slope.double().flatten(1).norm(p=dual, dim=1)
                reached = gap.detach().double() / steepness
                nearest = torch.minimum(nearest, torch.where(steepness > 0, reached, torch.inf))
        return {"distance": nearest, "right": logits.detach().argmax(dim=1) == batch.labels}


@hyperparameters
class Line(Probe):
    """``direction``, N × C × H × W: the unit step of the budget's norm that gains most on the model's own loss,
    zero where its gradient is; ``crossing``, float64, N: how far along it the model first errs, see
    :func:`_crossings`.

    Attributes:
        loss: see :class:`~mergerisk.causes.gradients.Gradient`.
        reach: how far is looked, in pixel units.
        points: looked at on the way, at equal distances.
        halvings: of the stretch in which the model first errs.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"labels", "logits", "gradients"})
    depends: ClassVar[frozenset[Literal["epsilon", "norm", "seed"]]] = frozenset({"norm"})

    loss: Loss = "cross_entropy"
    reach: PositiveFloat = 64 / 255
    points: PositiveInt = 16
    halvings: NonNegativeInt = 6

    @property
    def pictures_per_image(self) -> int:
        return 1

    @property
    def gradients_per_image(self) -> int:
        return 1

    def measure(self, model: nn.Module, batch: Batch) -> Parts:
        gradient = Gradient(loss=self.loss).at(model, batch.images, batch.labels)
        direction = ball(batch.norm, batch.images, 0.0).unit(gradient)
        return {"direction": direction, "crossing": self.along(model, batch, direction)}

    def along(self, model: nn.Module, batch: Batch, direction: torch.Tensor) -> torch.Tensor:
        """How far along a direction, N × C × H × W, a model first errs."""
        return _crossings(
            model, batch.images, batch.labels, direction.to(batch.images), self.reach, self.points, self.halvings
        )


def _crossings(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    direction: torch.Tensor,
    reach: float,
    points: int,
    halvings: int,
) -> torch.Tensor:
    """float64, N: the least t found at which the model no longer names the label of x + t · direction.

    The line is a line: it is not bent where it leaves the pixels' box. The first of ``points`` equally spaced
    places at which the model errs, and the last before it, are moved together by halving. 0 where the model errs
    at x already; infinite where it names the label at all places.
    """
    count = len(images)
    low = torch.zeros(count, dtype=torch.float64, device=images.device)
    high = torch.full_like(low, torch.inf)

    def errs(rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        moved = images[rows] + at.to(images)[:, None, None, None] * direction[rows]
        return predictions(model, moved) != labels[rows]

    every = torch.arange(count, device=images.device)
    if count == 0:
        return low
    high[errs(every, low)] = 0.0
    for point in range(1, points + 1):
        rows = every[torch.isinf(high)]
        if not len(rows):
            break
        at = torch.full_like(low[rows], reach * point / points)
        wrong = errs(rows, at)
        high[rows[wrong]] = at[wrong]
        low[rows[~wrong]] = at[~wrong]
    for _ in range(halvings):
        rows = every[torch.isfinite(high) & (high > 0)]
        if not len(rows):
            break
        middle = (low[rows] + high[rows]) / 2
        wrong = errs(rows, middle)
        high[rows[wrong]] = middle[wrong]
        low[rows[~wrong]] = middle[~wrong]
    return high
