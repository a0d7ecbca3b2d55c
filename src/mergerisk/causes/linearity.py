"""Whether a merge's features are the same mix of the experts' features as its weights are of theirs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

import torch

from mergerisk.causes.cause import Cause
from mergerisk.causes.given import Need, look
from mergerisk.causes.gradients import cosines, flat
from mergerisk.causes.probe import asked, encoder_of
from mergerisk.causes.representations import FINAL, BlockFeatures, Features, check_comparable
from mergerisk.causes.result import Column, Measured, Per, joined, stated
from mergerisk.memory import in_portions
from mergerisk.models.inside.hooks import frozen
from mergerisk.randomness import drawing
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.causes.given import Given
    from mergerisk.causes.probe import Parts, Probe, Reads
    from mergerisk.causes.result import Values


@hyperparameters
class Linearity(Cause):
    """The cosine of φ_m(x) and φ_0(x) + Σ λ_t (φ_t(x) − φ_0(x)), and ‖φ_m(x)‖ over the mix's length, per block and
    at the end, for a merge θ_m = θ_0 + Σ λ_t τ_t (cross-task linearity, Zhou et al. 2024, arXiv 2402.03660).

    The cosine lies in [−1, 1], the ratio in [0, ∞); both are 1 for models that are linear in their weights. Merges
    of other kinds have no coefficients. Missing where features have length zero.

    Attributes:
        blocks: measure every block as well; False for models without a list of blocks.
    """

    name: ClassVar[str] = "linearity"
    per: ClassVar[Per] = "image"
    needs: ClassVar[frozenset[Need]] = frozenset({"images", "base", "experts", "coefficients"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column("linearity", "cosine", -1.0, 1.0, "the ingredients' features survive the merge", per_block=True),
        Column("linearity_ratio", "ratio", 0.0, None, "the merge keeps the features' size", per_block=True),
    )

    blocks: bool = True

    @property
    def features(self) -> Probe:
        """What is asked of every model."""
        return BlockFeatures() if self.blocks else Features()

    @property
    def target_reads(self) -> frozenset[Reads]:
        return self.features.reads

    def passes_per_image(self, experts: int) -> Mapping[str, int]:
        return {"forward": experts + 2}

    def answer(self, given: Given) -> Measured:
        models = {"the target": given.target, "the base": given.base}
        models |= {f"expert {name!r}": expert for name, expert in given.experts.items()}
        encoders = {
            who: model if not hasattr(model, "encoder") else encoder_of(model, who)
            for who, model in models.items()
        }
        most = min(look(model, self.features.reads, given, self.name, who)[0] for who, model in encoders.items())
        checked = {who: encoder_of(model, who) for who, model in encoders.items()}
        for encoder in checked.values():
            check_comparable(checked["the base"], encoder, self.name, blocks=self.blocks, widths=True)

        def portion(start: int, stop: int) -> Mapping[str, Values]:
            batch = given.batch(start, stop)
            with drawing(given.seed, "causes", given.identities[start], device=batch.images.device):
                said = [asked(encoder, (self.features,), batch)[self.features] for encoder in checked.values()]
            weights = [given.coefficients[name] for name in given.experts]
            return self.compare(said[0], _mixed(said[1], said[2:], weights))

        with ExitStack() as stack:
            for who, encoder in checked.items():
                stack.enter_context(frozen(encoder, who))
            batches = in_portions(portion, len(given.images), min(most, given.batch_size))
        columns = {name: joined([batch[name] for batch in batches]) for name in batches[0]}
        return Measured(self.name, "image", given.identities, columns)

    def compare(self, merge: Parts, mix: Parts) -> Mapping[str, Values]:
        """The columns, from the features of the merge and the mix of features."""
        found: dict[str, Values] = {}
        for part in (FINAL, *(name for name in merge if name != FINAL)):
            one, other = flat(merge[part]), flat(mix[part])
            sizes = one.norm(dim=1), other.norm(dim=1)
            zero = {"the mix of features has length zero": sizes[1] == 0}
            suffix = "" if part == FINAL else f"_{part}"
            found[f"linearity{suffix}"] = stated(
                cosines(one, other), zero | {"the merge's features have length zero": sizes[0] == 0}
            )
            found[f"linearity_ratio{suffix}"] = stated(sizes[0] / sizes[1], zero)
        return found


def _mixed(base: Parts, experts: list[Parts], coefficients: list[float]) -> Parts:
    """φ_0 + Σ λ_t (φ_t − φ_0) of every part, float64."""
    return {
        part: flat(rows)
        + sum(
            (
                weight * (flat(expert[part]) - flat(rows))
                for weight, expert in zip(coefficients, experts, strict=True)
            ),
            start=torch.zeros(()),
        )
        for part, rows in base.items()
    }
