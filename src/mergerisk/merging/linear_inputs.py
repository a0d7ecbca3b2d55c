"""The second moments of what linear layers read: all that RegMean, RegMean++ and ESM need of images."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mergerisk.models.inside.hooks import run_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mergerisk.models.core.encoder import Encoder, State

BATCH = 32
"""Images per forward pass."""


def input_moments(
    encoder: Encoder,
    images: torch.Tensor,
    origin: Mapping[str, str],
    *,
    within: Iterable[nn.Module] | None = None,
    until: nn.Module | None = None,
) -> State:
    """By name of a linear layer's weight, XᵀX / N over all N tokens that reach it, in × in, in double precision.

    Linear layers are ``nn.Linear``, packed queries, keys and values included, and both projections of
    ``nn.MultiheadAttention``, in self-attention. That module never calls its output projection as a layer, so a
    copy without one tells what its inputs are.

    Args:
        encoder: in evaluation mode; no hook is left on it.
        images: N × 3 × H × W.
        origin: other names of tied weights → the one that the inputs of all their layers are counted under.
        within: modules of the backbone whose own layers are looked at, themselves included; all by default.
        until: the module behind which nothing is run.
    """
    known = encoder.state()
    sums: State = {}
    counts: dict[str, int] = {}

    def add(weight: str, inputs: torch.Tensor) -> None:
        if weight in known and inputs.numel():
            weight = origin.get(weight, weight)
            tokens = inputs.reshape(-1, inputs.shape[-1]).double()
            gram = tokens.T @ tokens
            sums[weight] = sums[weight].add_(gram) if weight in sums else gram
            counts[weight] = counts.get(weight, 0) + len(tokens)

    def linear(prefix: str, module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:  # noqa: ARG001
        add(f"{prefix}weight", args[0])

    def attention(
        prefix: str,
        bare: nn.Module,
        module: nn.Module,  # noqa: ARG001  # a hook's signature
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        if named["query"] is named["key"] is named["value"]:
            add(f"{prefix}in_proj_weight", named["query"])
            add(f"{prefix}out_proj.weight", bare(*args, **kwargs)[0])

    seen = None if within is None else {part for module in within for part in module.modules()}
    removals: list[Callable[[], None]] = []
    try:
        for name, module in encoder.backbone.named_modules():
            prefix = f"{name}." if name else ""
            if seen is not None and module not in seen:
                continue
            if isinstance(module, nn.MultiheadAttention):
                hook = partial(attention, prefix, _without_projection(module))
                removals.append(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            elif isinstance(module, nn.Linear):
                removals.append(module.register_forward_pre_hook(partial(linear, prefix)).remove)
        with torch.no_grad():
            for batch in images.split(BATCH):
                run_until(encoder, until, batch.to(encoder.mean.device))
    finally:
        for remove in removals:
            remove()
    return {name: total.div_(counts[name]) for name, total in sums.items()}


def _without_projection(attention: nn.MultiheadAttention) -> nn.Module:
    """A copy that puts out what its output projection would be given."""
    bare = copy.deepcopy(attention)
    nn.init.eye_(bare.out_proj.weight)
    if bare.out_proj.bias is not None:
        nn.init.zeros_(bare.out_proj.bias)
    return bare
