"""Which modules of a base no expert has, as the text tower of a CLIP whose vision tower was fine-tuned."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from mergerisk.models.sources.lora import LoraCheckpoint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mergerisk.recipe.ingredients import Ingredient


def top_module(name: str) -> str:
    """The outermost module that a tensor belongs to; a parameter of the model itself counts as one."""
    return name.partition(".")[0]


def unknown_modules(names: Collection[str], experts: Collection[Ingredient]) -> tuple[str, ...]:
    """The outermost modules of a base of which no expert has anything, in the base's order.

    They are none of the experts' business only if those hold whole models within the base, such as CLIP's
    ``vision_model``. Where the base itself lies within an expert, or its outermost modules are the parts of one
    encoder, what is missing is a part of the expert: a file that was cut short, say.

    Args:
        names: the base's names of what is to be merged.
        experts: all of them.
    """
    if any(expert.alignment.theirs for expert in experts):
        return ()
    known = {name for expert in experts for name in _own(expert)}
    if not _hold_models(known.intersection(names)):
        return ()
    modules = {top_module(name) for name in known}
    return tuple(dict.fromkeys(top for name in names if (top := top_module(name)) not in modules))


def _own(expert: Ingredient) -> Iterable[str]:
    """The base's names of what an expert brings itself: an adapter nothing that it does not change."""
    if isinstance(expert.tensors, LoraCheckpoint):
        return expert.tensors.changed
    return filter(None, map(expert.alignment.back, expert.tensors))


def _hold_models(names: Iterable[str]) -> bool:
    """Whether some outermost module is a model of its own: it has several modules, one of them with layers by
    number (``vision_model.encoder.layers.0``, ``resnet.encoder.stages.0``)."""
    children: defaultdict[str, set[str]] = defaultdict(set)
    layered: set[str] = set()
    for name in names:
        top, *inside = name.split(".")
        children[top].update(inside[:-1][:1])
        if any(part.isdecimal() for part in inside[1:]):
            layered.add(top)
    return any(len(children[top]) > 1 for top in layered)
