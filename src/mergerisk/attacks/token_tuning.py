"""Adaptive token tuning: gradients inside vision transformers, tamed by how they vary from block to block."""

from __future__ import annotations

import math
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt

from mergerisk.attacks.ensemble import members_of
from mergerisk.attacks.vision_transformers import (
    TGR,
    Tokens,
    asked_within,
    count_maps,
    own_patches,
    patch_numbers,
    token_places,
)
from mergerisk.errors import UserError
from mergerisk.models.inside.attention import AttentionMaps
from mergerisk.models.inside.blocks import block_norms
from mergerisk.models.inside.hooks import changed_gradient, copied_output, hooked
from mergerisk.validation import Share, hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from mergerisk.attacks.attack import Problem
    from mergerisk.attacks.gradient_attack import Oracle, Run
    from mergerisk.models.inside.hooks import Hook

_FIRST = 0.99
"""The chance of every patch to be kept before the first step, as in the authors' code."""


class _Chain:
    """One kind of gradient, of one forward pass after another, in the blocks of one transformer.

    On the way back through the blocks, a gradient is shrunk, and its extremes are multiplied by a factor
    γ + λ (1 − √(v / v′)), kept in [0, 1]: v is its variance, v′ that of the block before on this way, once it was
    tamed. In the deepest block, and where v′ is 0, the factor is γ. Variances are an image's own.
    """

    def __init__(self, blocks: int, taming: float, adaptation: float) -> None:
        self.taming, self.adaptation = taming, adaptation
        self._variances: list[torch.Tensor | None] = [None] * (blocks + 1)

    def tamed(self, block: int, scaled: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The gradient at a block (N × …), entries multiplied by the factor as often as ``times`` says."""
        deeper = self._variances[block + 1]
        factor = scaled.new_full((len(scaled),), self.taming)
        if deeper is not None:
            ratio = _variance(scaled) / deeper.where(deeper > 0, 1.0)
            adapted = (self.taming + self.adaptation * (1 - ratio.sqrt())).clamp(0.0, 1.0)
            factor = torch.where(deeper > 0, adapted, factor)
        made = scaled * factor.view(-1, *[1] * (scaled.ndim - 1)) ** times
        self._variances[block] = _variance(made)
        return made


def _variance(gradient: torch.Tensor) -> torch.Tensor:
    """N: over all of an image's entries."""
    return gradient.flatten(1).var(dim=1)


def _tamed_tokens(chain: _Chain, block: int, share: float, gradient: torch.Tensor) -> torch.Tensor:
    """Tokens' gradient (N × tokens × width); the extremes are each channel's largest and smallest."""
    scaled = share * gradient
    times = torch.zeros_like(scaled)
    for extreme in (scaled.argmax(1, keepdim=True), scaled.argmin(1, keepdim=True)):
        times.scatter_add_(1, extreme, torch.ones_like(scaled[:, :1]))
    return chain.tamed(block, scaled, times)


def _tamed_map(chain: _Chain, block: int, share: float, images: int, gradient: torch.Tensor) -> torch.Tensor:
    """An attention map's gradient (… × queries × keys); the extremes are the rows and columns of each head's
    largest and smallest entry."""
    scaled = share * gradient.reshape(images, -1, *gradient.shape[-2:])
    flat = scaled.flatten(-2)
    queries, keys = (torch.arange(count, device=flat.device) for count in scaled.shape[-2:])
    times = torch.zeros_like(scaled)
    for extreme in (flat.argmax(-1), flat.argmin(-1)):
        times += (extreme // len(keys))[..., None, None] == queries[:, None]
        times += (extreme % len(keys))[..., None, None] == keys
    return chain.tamed(block, scaled, times).view_as(gradient)


@hyperparameters
class ATT(TGR):
    """Adaptive token tuning (Ming et al., NeurIPS 2024; as the authors' code computes it, for ViTs).

    Gradients inside the blocks are shrunk as in TGR, but extreme tokens are multiplied by a factor that follows
    how the variance changes from block to block (:class:`_Chain`), not removed. No gradient goes through the
    attention maps of the deepest blocks. And at step t of T a patch shows its perturbation with the chance
    0.99 − (0.99 − p)(t / T), p = least + span · importance. A patch's importance is the product of the features
    of the last block but one and the gradient of the summed logits there, summed over the width, on the clean
    image, then scaled so that the least important has 0 and the most important 1. It costs one gradient more.

    Extremes, variances, importances and draws are an image's own. The authors' code takes those of a batch's first
    image, draws by the step alone, and finds importances by changed gradients, here by plain ones. In
    TransferAttack's file the loop lies outside the class: its patches are never left out.

    Attributes:
        attention: see :class:`TGR`; as the next two, of ViT-B.
        maps: see :class:`TGR`; the authors' code changes what is before the softmax.
        tokens: see :class:`TGR`; the authors' code changes what layers put out. Where queries, keys and values are
            three layers', each has its own variances.
        taming: γ.
        adaptation: λ.
        attended: share of the blocks, from the first, through whose attention maps gradients go; ViT-B's 10 of 12.
        least: chance of the least important patch at the last step.
        span: how much higher that of the most important is.
        patch_size: side in pixels of the attacked image; None for the surrogate's own patches.
    """

    attention: Share = 0.45
    qkv: Share = 0.7
    mlp: Share = 0.65
    maps: Literal["weights", "scores"] = "scores"
    tokens: Tokens = "outputs"
    taming: Share = 0.5
    adaptation: NonNegativeFloat = 0.01
    attended: Share = 10 / 12
    least: Share = 0.4
    span: Share = 0.4
    patch_size: PositiveInt | None = None

    @property
    def gradients_per_image(self) -> int:
        return super().gradients_per_image + 1

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:
        super().check(classifier, image)
        patch_numbers(classifier, image, self.patch_size)
        for member in members_of(classifier):
            if not block_norms(member):
                raise UserError(f"{type(member).__name__}, of the ensemble, has no transformer blocks")

    def prepare(self, problem: Problem) -> dict[str, torch.Tensor]:
        patches = patch_numbers(problem.classifier, problem.images, self.patch_size)
        members = members_of(problem.classifier)
        found = [self._importance(member, problem.images, patches) for member in members]
        importance = torch.stack(found).mean(dim=0)
        return {"patches": patches, "kept at last": self.least + self.span * importance, "step": torch.tensor(0)}

    def _importance(self, member: nn.Module, images: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """N × patches, from 0 to 1."""
        blocks = list(block_norms(member))
        layer = blocks[max(0, len(blocks) - 2)]
        features: list[torch.Tensor] = []
        with hooked([(layer, copied_output(features))]):
            slopes = self.gradient_of(lambda seen: self.logits(member, seen).sum(), layer)(images)
        worth = (features[0] * slopes).sum(dim=-1).to(images)
        rows, columns = _grid(member, worth.shape[1])
        # Tokens that stand for no patch come first.
        grid = worth[:, worth.shape[1] - rows * columns :].unflatten(1, (1, rows, columns))
        spread = F.interpolate(grid, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        sums = worth.new_zeros(len(worth), int(patches.max()) + 1)
        sums.index_add_(1, patches.flatten(), spread.flatten(1))
        means = sums / patches.flatten().bincount()
        low, high = means.amin(dim=1, keepdim=True), means.amax(dim=1, keepdim=True)
        return (means - low) / (high - low).where(high > low, 1.0)

    def estimate(self, run: Run, point: torch.Tensor) -> torch.Tensor:
        images, memory = run.problem.images, run.memory
        memory["step"] += 1
        chances = _FIRST - (_FIRST - memory["kept at last"]) * (memory["step"] / self.steps)
        draws = run.problem.random.uniform(chances.shape[1], like=images.double())
        kept = (draws <= chances)[:, memory["patches"]].to(images)[:, None]
        return run.gradient(images + (point - images) * kept) * kept

    @contextmanager
    def surrogate(self, problem: Problem) -> Iterator[Oracle]:
        count, image = len(problem.images), problem.images[:1]
        hooks: list[tuple[nn.Module, Hook]] = []
        of_maps: list[partial[torch.Tensor]] = []
        for member in members_of(problem.classifier):
            for kind, modules in token_places(member, image, self.tokens).items():
                chain = _Chain(len(modules), self.taming, self.adaptation)
                share = self.share(kind)
                hooks += [
                    (module, changed_gradient(partial(_tamed_tokens, chain, block, share)))
                    for block, module in enumerate(modules)
                ]
            blocks = count_maps(member, image)
            chain, attended = _Chain(blocks, self.taming, self.adaptation), round(self.attended * blocks)
            of_maps += [
                partial(_tamed_map, chain, block, self.attention if block < attended else 0.0, count)
                for block in range(blocks)
            ]

        def maps_watched() -> AttentionMaps:
            changes = iter(of_maps)

            def watch(maps: torch.Tensor) -> torch.Tensor:
                change = next(changes)
                if maps.requires_grad:
                    maps.register_hook(change)
                return maps

            return AttentionMaps(watch, scores=self.maps == "scores")

        with hooked(hooks):
            yield asked_within(maps_watched, self.loss_gradient(problem, problem.classifier))


def _grid(member: nn.Module, tokens: int) -> tuple[int, int]:
    """Rows and columns of a transformer's patches; a square's, if it does not say."""
    try:
        patch, (height, width) = own_patches(member)
    except UserError:
        return math.isqrt(tokens), math.isqrt(tokens)
    return height // patch, width // patch
