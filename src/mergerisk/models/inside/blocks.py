"""The residual blocks of a model, and how to reach what they put out."""

from __future__ import annotations

import re
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from mergerisk.errors import UserError, did_you_mean
from mergerisk.models.inside.hooks import first_tensor, hooked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mergerisk.models.inside.hooks import Hook

    Norms = tuple[nn.Module, nn.Module]
    """What a pre-norm block's attention reads, and what its MLP reads."""
    Outputs = tuple[list[nn.Module], nn.Module]
    """The projections to queries, keys and values of a pre-norm block (or one to all three), and its MLP."""


def transformer_blocks(backbone: nn.Module) -> dict[str, nn.Module]:
    """The blocks by name, in the order they run in: the longest list of modules of one class.

    Raises:
        UserError: there is none.
    """
    lists = _lists(backbone)
    if not lists:
        raise UserError(f"{type(backbone).__name__} has no list of blocks; the method is for transformers")
    name = max(lists, key=lambda name: len(lists[name]))
    return {f"{name}.{position}": block for position, block in enumerate(lists[name])}


def _lists(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The lists of modules of one class, by name."""
    # Classes are told by their names: the last block may be of a subclass of its own, called alike.
    return {
        name: list(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and len({type(block).__name__ for block in module}) == 1
    }


def blocks_in(names: Iterable[str]) -> tuple[str, ...]:
    """What the names of each block's tensors begin with, in the order they run in, told by the names alone.

    ``encoder.layer.0`` to ``encoder.layer.11``; or ``stages.0.layers.0`` to ``stages.3.layers.2``: where the
    longest list is one of several alike, all of them are meant. Empty where nothing is numbered.
    """
    lists: dict[str, dict[str, set[int]]] = {}
    for name in dict.fromkeys(names):
        parts = name.split(".")
        for end in range(1, len(parts)):
            numbered = re.fullmatch(r"(.*?)(\d+)", parts[end - 1])
            if numbered:
                within = ".".join([*parts[: end - 1], numbered[1]])
                lists.setdefault(re.sub(r"\d+", "#", within), {}).setdefault(within, set()).add(int(numbered[2]))
    # Layers may be counted from 1, and a list has no gaps: otherwise the numbers mean something else.
    whole = {
        kind: alike
        for kind, alike in lists.items()
        if all(min(found) <= 1 and all(b - a == 1 for a, b in pairwise(sorted(found))) for found in alike.values())
    }
    if not whole:
        return ()
    kind = max(whole, key=lambda kind: (max(map(len, whole[kind].values())), -kind.count(".")))
    blocks = [f"{within}{number}" for within, found in whole[kind].items() for number in found]
    return tuple(sorted(blocks, key=lambda block: [int(number) for number in re.findall(r"\d+", block)]))


def block_norms(model: nn.Module) -> dict[nn.Module, Norms]:
    """Every transformer block in the model, and its two norms.

    A block is told by its two layer norms, direct children, before attention and before the MLP; a model that
    holds such blocks may itself have two.
    """
    found = {module: norms for module in model.modules() if (norms := _norms(module)) is not None}
    return {
        block: norms
        for block, norms in found.items()
        if not any(inner in found for inner in block.modules() if inner is not block)
    }


def _norms(block: nn.Module) -> Norms | None:
    norms = [
        child
        for child in block.children()
        if isinstance(child, nn.LayerNorm | nn.RMSNorm) or "RMSNorm" in type(child).__name__
    ]
    return (norms[0], norms[1]) if len(norms) == 2 else None


def check_pre_norm(model: nn.Module, image: torch.Tensor) -> None:
    """See, on one image (1 × C × H × W), that the blocks normalise what they are given before anything else.

    Raises:
        UserError: a block does not, or its tokens are not N × tokens × width.
    """
    read: dict[nn.Module, object] = {}

    def remember(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:  # noqa: ARG001
        read[module] = arguments[0] if arguments else None

    blocks = block_norms(model)
    watched = [module for block, norms in blocks.items() for module in (block, *norms)]
    # With gradients, as in the attack: without, PyTorch may fuse a whole block.
    with hooked((module, remember) for module in watched), torch.enable_grad():
        model(image.detach().requires_grad_())
    for block, norms in blocks.items():
        tokens = [read.get(norm) for norm in norms]
        if tokens[0] is not read.get(block) or not all(
            isinstance(part, torch.Tensor) and part.ndim == 3 and len(part) == len(image) for part in tokens
        ):
            raise UserError(
                f"{type(block).__name__} is no pre-norm transformer block of images × tokens × width: its first "
                "norm must read what the block is given"
            )


def residual_branches(model: nn.Module) -> list[nn.Module]:
    """For every residual branch f of z + f(z), the module whose output carries all of the branch's gradient: of
    ResNets' blocks, see :func:`convolutional_branches`; of pre-norm transformer blocks, the norms, which attention
    and MLP read.
    """
    convolutional = list(convolutional_branches(model).values())
    return convolutional + [norm for norms in block_norms(model).values() for norm in norms]


def convolutional_branches(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """Every residual block of a ResNet, and the module of its branch whose output carries all of its gradient:
    ``layer``, beside ``shortcut``, in transformers; the last normalisation where layers are called ``conv1``,
    ``bn1``, ``conv2`` …, as in torchvision, timm and most code of one file."""
    found = {module: _branch(module) for module in model.modules()}
    return {block: branch for block, branch in found.items() if branch is not None}


def _branch(block: nn.Module) -> nn.Module | None:
    parts = dict(block.named_children())
    if {"layer", "shortcut"} <= parts.keys():
        return parts["layer"]
    # torchvision's blocks have a `downsample` of None where the shortcut is the identity.
    shortcut = any(hasattr(block, name) for name in ("downsample", "shortcut"))
    return (
        parts.get("bn3", parts["bn2"]) if shortcut and {"conv1", "bn1", "conv2", "bn2"} <= parts.keys() else None
    )


def stage_positions(model: nn.Module) -> dict[nn.Module, int]:
    """Every residual block of a ResNet that is in a list of its like, and its place in it, from 0."""
    blocks = convolutional_branches(model)
    lists = (stage for stage in _lists(model).values() if all(block in blocks for block in stage))
    return {block: position for stage in lists for position, block in enumerate(stage)}


def branch_outputs(model: nn.Module, image: torch.Tensor) -> dict[nn.Module, Outputs]:
    """Every pre-norm transformer block in the model, and what its queries, keys and values are put out by (the
    linear layers that read the norm before attention), and its MLP (the part of the block that reads the other).

    Told by one image (1 × C × H × W), by which module is given what.

    Raises:
        UserError: a block has no such modules.
    """
    found = {}
    for block, (before, after) in _readers(model, image).items():
        projections: list[nn.Module] = [part for part in before if isinstance(part, nn.Linear)]
        mlp = _whole_branch(block, after)
        if not projections or mlp is None:
            raise UserError(
                f"{type(block).__name__}: its queries, keys and values are not put out by linear layers, or its "
                "MLP is no module of its own, so that their outputs cannot be reached"
            )
        found[block] = (projections, mlp)
    return found


def branch_modules(model: nn.Module, image: torch.Tensor) -> dict[nn.Module, tuple[nn.Module, nn.Module]]:
    """Every pre-norm transformer block in the model, and the modules that its attention and its MLP are.

    Told as in :func:`branch_outputs`.

    Raises:
        UserError: one of them is no module of its own.
    """
    found = {}
    for block, readers in _readers(model, image).items():
        attention, mlp = (_whole_branch(block, of_norm) for of_norm in readers)
        if attention is None or mlp is None:
            raise UserError(
                f"{type(block).__name__}: its attention or its MLP is no module of its own, so that what it puts "
                "out cannot be reached"
            )
        found[block] = (attention, mlp)
    return found


def _whole_branch(block: nn.Module, readers: list[nn.Module]) -> nn.Module | None:
    """The one part of the block that reads the norm; a linear layer is a part of a branch, not the whole."""
    parts = [module for module in block.children() if module in readers]
    return parts[0] if len(parts) == 1 and not isinstance(parts[0], nn.Linear) else None


def _readers(model: nn.Module, image: torch.Tensor) -> dict[nn.Module, tuple[list[nn.Module], list[nn.Module]]]:
    """For every pre-norm transformer block, the modules that are given what its norms put out."""
    blocks = block_norms(model)
    norms = {norm: None for pair in blocks.values() for norm in pair}
    readers: dict[nn.Module, list[nn.Module]] = {norm: [] for norm in norms}
    put_out: list[tuple[torch.Tensor, nn.Module]] = []

    def remember(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:  # noqa: ARG001
        tensor = first_tensor(output)
        if tensor is not None:
            put_out.append((tensor, module))

    def read(module: nn.Module, arguments: tuple[object, ...], named: dict[str, object]) -> None:
        given = [*arguments, *named.values()]
        for tensor, norm in put_out:
            if any(argument is tensor for argument in given):
                readers[norm].append(module)

    with hooked((norm, remember) for norm in norms), ExitStack() as stack, torch.enable_grad():
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(read, with_kwargs=True).remove)
        model(image.detach().requires_grad_())
    return {block: (readers[before], readers[after]) for block, (before, after) in blocks.items()}


def find_layer(model: nn.Module, name: str | None) -> nn.Module:
    """The module with this dotted name; by default the middle one of the model's stages or transformer blocks.

    The middle of n is the n // 2-th, counted from one: the second of four stages, the sixth of twelve blocks.

    Raises:
        UserError: no such module, or no clear middle.
    """
    if name is not None:
        modules: dict[str, nn.Module] = {path: module for path, module in model.named_modules() if path}
        if name not in modules:
            raise UserError(f"{type(model).__name__} has no layer {name!r}{did_you_mean(name, modules)}")
        return modules[name]
    blocks = block_norms(model)
    lists = _lists(model).values()
    stages = [parts for parts in lists if type(parts[0]).__name__.endswith("Stage")]
    candidates: list[list[nn.Module]] = stages or [
        parts for parts in lists if all(part in blocks for part in parts)
    ]
    if len(candidates) != 1:
        raise UserError(
            f"{type(model).__name__} has {len(candidates)} lists of stages or of transformer blocks to take the "
            "middle of, not one; name a layer, as model.named_modules() does"
        )
    return candidates[0][max(0, len(candidates[0]) // 2 - 1)]


def change_blocks(
    features: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    backbone: nn.Module,
    pixels: torch.Tensor,
    change: Callable[[int, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """``features(backbone, pixels)``, with what every block puts out replaced on the way.

    Args:
        features: see :class:`mergerisk.models.Encoder`.
        backbone: a transformer.
        pixels: normalised.
        change: position of the block, its tokens (N × tokens × width) → tokens of the same shape.

    Raises:
        UserError: a block puts out something else than tokens.
    """

    def hook(position: int) -> Hook:
        def replace(block: nn.Module, arguments: tuple[object, ...], output: object) -> object:  # noqa: ARG001
            first = first_tensor(output)
            if first is None or first.ndim != 3:
                raise UserError(f"{type(block).__name__} puts out no tokens; the method is for transformers")
            changed = change(position, first)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return replace

    blocks = transformer_blocks(backbone).values()
    with hooked((block, hook(position)) for position, block in enumerate(blocks)):
        return features(backbone, pixels)
