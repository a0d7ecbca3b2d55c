"""Attacks that change what a vision transformer computes on the way to the loss."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat, NonNegativeInt

from mergerisk.attacks.ensemble import members_of
from mergerisk.attacks.gradient_sign import MIFGSM
from mergerisk.attacks.vision_transformers import asked_within, check_attention, count_maps
from mergerisk.errors import UserError
from mergerisk.models.inside.attention import AttentionMaps
from mergerisk.models.inside.blocks import block_norms, branch_modules, check_pre_norm
from mergerisk.models.inside.hooks import changed_output, hooked
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import nn

    from mergerisk.attacks.attack import Problem
    from mergerisk.attacks.gradient_attack import Oracle

_OF_TWELVE = (0, 1, 4, 9, 11)
"""The blocks of ViT-B whose attention maps the authors diversify."""


@hyperparameters
class FPR(MIFGSM):
    """Forward propagation refinement (Ren et al. 2025, arXiv 2503.15404; as the authors' code computes it).

    The attention map A of some blocks is replaced by softmax(A ⊙ M), with M uniform in 1 ± d, drawn for every
    image and head at every gradient; and what attention and MLP of every block put out, z_t, by
    e_t = s z_t + μ e_{t−1}, where e_{t−1}, of the gradient before, is a constant; at first e_t = s z_t.

    The authors' code draws one M for a batch; keeps e from one batch to the next, so that images are mixed into
    each other; and hooks a dropout that fused attention does not run, so that M does nothing there. Here maps are
    reached where they are computed, draws are an image's own, and e ends with its batch.

    Attributes:
        blocks: positions of those whose maps are diversified; None for 0, 1, 4, 9 and 11 of twelve, or what is
            nearest to them in a transformer of another depth.
        spread: d.
        scale: s.
        memory: μ.
    """

    blocks: tuple[NonNegativeInt, ...] | None = None
    spread: NonNegativeFloat = 25.0
    scale: NonNegativeFloat = 0.8
    memory: NonNegativeFloat = 0.3

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:
        check_attention(classifier, image)
        check_pre_norm(classifier, image)
        branch_modules(classifier, image)
        for member in members_of(classifier):
            depth = len(block_norms(member))
            if not depth:
                raise UserError(
                    f"{type(member).__name__} has no transformer blocks with a norm before each branch"
                )
            if self.blocks and max(self.blocks) >= depth:
                raise UserError(
                    f"blocks: {type(member).__name__} has blocks 0 to {depth - 1}, no {max(self.blocks)}"
                )

    @contextmanager
    def surrogate(self, problem: Problem) -> Iterator[Oracle]:
        image = problem.images[:1]
        diversified: list[bool] = []
        for member in members_of(problem.classifier):
            chosen = self._chosen(len(block_norms(member)))
            diversified += [block in chosen for block in range(count_maps(member, image))]

        def maps_diversified() -> AttentionMaps:
            turns = iter(diversified)

            def change(maps: torch.Tensor) -> torch.Tensor:
                return self._diverse(maps, problem) if next(turns, False) else maps

            return AttentionMaps(change)

        branches = [part for pair in branch_modules(problem.classifier, image).values() for part in pair]
        with hooked((part, changed_output(self._remembering())) for part in branches):
            yield asked_within(maps_diversified, self.loss_gradient(problem, problem.classifier))

    def _chosen(self, depth: int) -> set[int]:
        if self.blocks is not None:
            return set(self.blocks)
        return {round(block * (depth - 1) / 11) for block in _OF_TWELVE}

    def _diverse(self, maps: torch.Tensor, problem: Problem) -> torch.Tensor:
        by_image = maps.reshape(len(problem.images), -1, *maps.shape[-2:])
        drawn = 1 + self.spread * (2 * problem.random.noise(like=by_image) - 1)
        return (by_image * drawn).softmax(dim=-1).view_as(maps)

    def _remembering(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """What one module puts out, mixed with what it put out before."""
        before: list[torch.Tensor] = []

        def mixed(output: torch.Tensor) -> torch.Tensor:
            made = self.scale * output
            if before:
                made = made + self.memory * before.pop()
            before.append(made.detach())
            return made

        return mixed
