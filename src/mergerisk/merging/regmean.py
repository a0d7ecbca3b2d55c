"""RegMean: linear layers that reproduce the experts' outputs best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt

from mergerisk.merging.learned import LearnedMerging
from mergerisk.merging.linear_inputs import input_moments
from mergerisk.merging.method import evaluated
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.merging.learned import Lesson
    from mergerisk.merging.material import Merged
    from mergerisk.models.core.encoder import State

_RIDGE = 1e-10
"""Relative to a diagonal of ones: far above what rounding can take from an eigenvalue, far below what matters."""


@hyperparameters
class RegMean(LearnedMerging):
    """For each linear layer, the weight that comes nearest, in least squares, to the experts' outputs on their
    own inputs: Wᵀ = (Σ Gt)⁻¹ Σ Gt Wtᵀ, with Gt = XᵀX / N over all N tokens that reach the layer of expert t on
    unlabelled images of its task (Jin et al. 2023, arXiv 2212.09849, equation 2; section 3.3 for
    ``non_diagonal``). All other tensors, biases too, are averaged.

    The equation is solved, not inverted, for the distance of W to the average of the Wt, with a ridge of 1e-10 of
    each input's mean square. Where Σ Gt is singular, W is thus the solution nearest to the average (weights
    measured by their input's root mean square); weights of inputs that no image activates are the average. All of
    this in double precision: Gt's condition number is X's squared, more than single precision has digits for.

    Linear layers are those of :func:`~mergerisk.merging.linear_inputs.input_moments`. A layer that some expert
    never calls is averaged.

    Experts are in memory one at a time; what the equation needs of all of them is Gt, in × in, and Gt Wtᵀ of every
    layer, in double precision, once summed and once of the expert at hand.

    Attributes:
        examples: images read per task, chosen at random; all of them if there are fewer. FusionBench's value.
        non_diagonal: α, what the entries of Gt off its diagonal are multiplied by. 1 is plain least squares; 0
            averages each input's weights by its mean square. FusionBench takes 0.95 for CLIP.
    """

    stream: ClassVar[str] = "regmean"

    examples: PositiveInt = 256
    non_diagonal: Annotated[float, Field(ge=0, le=1)] = 0.95

    def held(self, count: int) -> float:
        """Gram matrices of all layers, in double precision, of one expert and summed."""
        del count
        return 14.0

    def cost(self, pools: Sequence[int]) -> Mapping[str, int]:
        return {"forward": sum(min(pool, self.examples) for pool in pools)}

    def learn(self, lesson: Lesson) -> Merged:
        averages = lesson.averages(lesson.pretrained)
        regression = Regression(averages, self.non_diagonal)
        for task, tuned in lesson.states.items():
            images = lesson.chosen_images(task, self.examples)
            own = input_moments(evaluated(lesson.experts[task]), images, lesson.tied)
            for name in list(own):
                regression.add(name, own.pop(name), tuned[name])
        return lesson.merged(averages | regression.solved(len(lesson.experts)))


class Regression:
    """The normal equations of linear layers: Σ Gt and Σ Gt (Wt − W̄)ᵀ, summed expert by expert.

    Args:
        averages: W̄ by name, among others.
        non_diagonal: what the entries of Gt off its diagonal are multiplied by.
    """

    def __init__(self, averages: Mapping[str, torch.Tensor], non_diagonal: float) -> None:
        self._averages = averages
        self._non_diagonal = non_diagonal
        self._grams: State = {}
        self._targets: State = {}
        self._seen: dict[str, int] = {}

    def add(self, name: str, gram: torch.Tensor, tuned: torch.Tensor) -> None:
        """Add one expert.

        Args:
            name: of the layer's weight.
            gram: its Gt, in × in, in double precision; it is written to.
            tuned: its Wt, out × in.
        """
        diagonal = gram.diagonal().clone()
        gram.mul_(self._non_diagonal).diagonal().copy_(diagonal)
        target = gram @ (tuned.double() - self._averages[name].double()).T
        self._grams[name] = self._grams[name].add_(gram) if name in self._grams else gram
        self._targets[name] = self._targets[name].add_(target) if name in self._targets else target
        self._seen[name] = self._seen.get(name, 0) + 1

    def solved(self, count: int) -> State:
        """W by name, of the layers that so many experts were added for. Their sums are gone afterwards."""
        merged = {}
        for name in [name for name, seen in self._seen.items() if seen == count]:
            correction = _solve(self._grams.pop(name), self._targets.pop(name)).T
            average = self._averages[name]
            merged[name] = (average.double() + correction).to(average.dtype)
        return merged


def _solve(gram: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """X (in × out) with ``gram`` X = ``target``; 0 for inputs and directions of which ``gram`` knows nothing."""
    # Scaled to a diagonal of ones, so that the ridge is as small for large inputs as for small ones.
    diagonal = gram.diagonal()
    scale = torch.where(diagonal > 0, diagonal.rsqrt(), 0.0)[:, None]
    scaled = scale * gram * scale.T
    scaled.diagonal().add_(_RIDGE)
    return scale * torch.cholesky_solve(scale * target, torch.linalg.cholesky(scaled))
