"""ESM: task matrices cut to the directions in which they change what layers put out, made orthogonal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt

from mergerisk.merging.batch_norm import is_statistic
from mergerisk.merging.learned import LearnedMerging
from mergerisk.merging.linear_inputs import input_moments
from mergerisk.merging.method import evaluated
from mergerisk.merging.singular import gram, inverse_root, output_directions
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.merging.learned import Lesson
    from mergerisk.merging.material import Merged
    from mergerisk.models.core.encoder import State

    Factors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    """Of a task matrix: directions, m × k; coordinates, k × n; eigenvalues, k."""

_NUMBER = re.compile(r"\d+")


@hyperparameters
class Esm(LearnedMerging):
    """Essential subspace merging (Li et al. 2026, arXiv 2602.20208): TSV-M with the directions in which a task
    changes what a layer puts out, and with strong tasks, inputs and layers made stronger.

    For each linear layer (m × n), with τt = Wt − W0 and Gt = XᵀX / N over the N tokens that reach the layer of
    expert t on a few unlabelled images of its task:

    1. Pt holds the k = max(1, ⌊m / T⌋) largest principal directions of the change of the outputs, X τtᵀ: the
       largest eigenvectors of τt Gt τtᵀ. At = Ptᵀ τt are τt's coordinates in them.
    2. At is multiplied by (‖At‖ / mean ‖As‖)². Of A = [A1; …; AT], the column of input j is multiplied by
       (‖aj‖ / mean ‖ai‖)².
    3. P = [P1 … PT] and A are replaced by their orthogonal polar factors times their mean singular value, and
       Δ = P A.
    4. Δ is multiplied by (‖Δ‖ / mean ‖Δ'‖)², with the mean over layers of its kind, whose names differ in numbers
       alone.

    θ = θ0 + λ Δ; all other tensors take the mean of τt. Principal components are about zero, not about the mean.
    Linear layers are those of :func:`~mergerisk.merging.linear_inputs.input_moments`. Directions in which nothing
    changes (too few images, τt of a low rank) are left out.

    The authors' code (kiddo127/ESM), made for an extended version (arXiv 2606.19164), differs: eigenvalues weigh
    directions (``weighting: 0.15``), ‖At‖ is that of the whole τt, missing directions are columns of the identity,
    which are not orthogonal to the others, attention's output projection is merged as TSV-M does, Δ is doubled, λ
    is searched for on labelled images, and the unlabelled ones are of the test split.

    Experts are in memory one at a time; Pt and At are kept of all, in double precision: k (m + n) numbers a layer.

    Attributes:
        examples: images read per task, chosen at random; 32 in the authors' code.
        polarisation: the exponent 2 of steps 2 and 4; 0 leaves them out.
        weighting: w: directions i of Pt and At are multiplied by (λi / mean λ)^w, divided by the mean of that over
            i, with λi their eigenvalues.
        scaling: λ; the authors pick it on labelled images.
    """

    stream: ClassVar[str] = "esm"

    examples: PositiveInt = 32
    polarisation: NonNegativeFloat = 2.0
    weighting: NonNegativeFloat = 0.0
    scaling: float = 1.0

    def held(self, count: int) -> float:
        """Second moments of one expert's inputs, and directions and coordinates of all, in double precision."""
        del count
        return 11.0

    def cost(self, pools: Sequence[int]) -> Mapping[str, int]:
        return {"forward": sum(min(pool, self.examples) for pool in pools)}

    def learn(self, lesson: Lesson) -> Merged:
        averages = lesson.averages(lesson.pretrained)
        factors: dict[str, list[Factors]] = {}
        for task, tuned in lesson.states.items():
            images = lesson.chosen_images(task, self.examples)
            own = input_moments(evaluated(lesson.experts[task]), images, lesson.tied)
            for name in list(own):
                weight = lesson.pretrained[name]
                vector = tuned[name].double() - weight.double()
                rank = max(1, len(weight) // len(lesson.states))
                found, values = output_directions(vector, own.pop(name), rank, weight.dtype)
                factors.setdefault(name, []).append((found, found.mT @ vector, values))
        changes = {
            name: self._merged(factors[name]) for name in factors if len(factors[name]) == len(lesson.states)
        }
        for name, factor in self._by_kind(changes).items():
            changes[name].mul_(factor)
        return lesson.merged(
            {
                name: averages[name]
                if not tensor.is_floating_point() or is_statistic(name, lesson.pretrained)
                else self._moved(tensor, changes[name] if name in changes else averages[name] - tensor)
                for name, tensor in lesson.pretrained.items()
            }
        )

    def _moved(self, pretrained: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        return (pretrained.double() + self.scaling * change.double()).to(pretrained.dtype)

    def _merged(self, factors: Sequence[Factors]) -> torch.Tensor:
        """Δ of a layer, before step 4."""
        strengths = self._polarised(torch.stack([coordinates.norm() for _, coordinates, _ in factors]))
        weights = [self._weights(values) for _, _, values in factors]
        basis = torch.cat([found * own for (found, _, _), own in zip(factors, weights, strict=True)], dim=1)
        coordinates = torch.cat(
            [
                strength * own[:, None] * part
                for (_, part, _), own, strength in zip(factors, weights, strengths, strict=True)
            ]
        )
        coordinates = coordinates * self._polarised(coordinates.norm(dim=0))
        return _flattened(basis) @ _flattened(coordinates)

    def _polarised(self, norms: torch.Tensor) -> torch.Tensor:
        """(norm / mean norm)², or another power; 1 if all norms are 0."""
        mean = norms.mean()
        return (norms / mean) ** self.polarisation if mean > 0 else torch.ones_like(norms)

    def _weights(self, values: torch.Tensor) -> torch.Tensor:
        """What directions are multiplied by."""
        weights = (values / values.mean()) ** self.weighting
        return weights / weights.mean()

    def _by_kind(self, changes: State) -> dict[str, float]:
        """What Δ is multiplied by in step 4."""
        kinds: dict[str, list[str]] = {}
        for name in changes:
            kinds.setdefault(_NUMBER.sub("#", name), []).append(name)
        return {
            name: float(factor)
            for names in kinds.values()
            for name, factor in zip(
                names, self._polarised(torch.stack([changes[name].norm() for name in names])), strict=True
            )
        }


def _flattened(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix's orthogonal polar factor times its mean singular value."""
    if matrix.shape[0] < matrix.shape[1]:
        return _flattened(matrix.mT).mT
    root, values = inverse_root(gram(matrix, torch.float64), torch.float64)
    return values.mean() * (matrix @ root) if len(values) else matrix
