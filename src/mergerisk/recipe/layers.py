"""Hyper-parameters that differ between the layers of a model."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mergerisk.errors import UserError, located
from mergerisk.merging.checks import check_range
from mergerisk.merging.dare import Dare
from mergerisk.merging.doge_ta import DogeTa
from mergerisk.merging.emr import Emr
from mergerisk.merging.knots import KnotsTies
from mergerisk.merging.opcm import Opcm
from mergerisk.merging.pcb import Pcb
from mergerisk.merging.states import StateMerging
from mergerisk.merging.ties import Ties
from mergerisk.merging.wrapped import Wrapper

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mergerisk.merging import MergingMethod
    from mergerisk.models.on_disk.checkpoints import TensorSpec
    from mergerisk.recipe.schema import Recipe

_LAYER = re.compile(r"\.(\d+)\.")


def count_layers(names: Iterable[str]) -> dict[str, int]:
    """What the names of layers begin with → how many there are: ``{"vision_model.encoder.layers": 12}``.

    A tensor belongs to the layer that the first number in its name counts (mergekit's rule, for models whose
    architecture it has no description of).
    """
    counts: dict[str, int] = {}
    for name in names:
        if found := _LAYER.search(name):
            stack = name[: found.start()]
            counts[stack] = max(counts.get(stack, 0), int(found[1]) + 1)
    return counts


def with_layers(recipe: Recipe, names: Iterable[str]) -> Recipe:
    """The recipe with what a mergekit configuration says of every layer, now that their number is known.

    Raises:
        UserError: the configuration does not fit a model with these tensors.
    """
    if recipe.mergekit is None:
        return recipe
    from mergerisk.recipe.mergekit import check_slices, settings

    counts = count_layers(names)
    check_slices(recipe.mergekit, counts)
    layers = {
        f"{stack}.{layer}.*": settings(recipe.mergekit, layer, count)
        for stack, count in counts.items()
        for layer in range(count)
    }
    changed = {pattern: own for pattern, own in layers.items() if own != recipe.parameters}
    return recipe.model_copy(update={"layers": changed, "mergekit": None})


def methods_by_layer(
    recipe: Recipe, names: Sequence[str], specs: Mapping[str, TensorSpec]
) -> list[tuple[MergingMethod, list[str]]]:
    """The methods that a recipe takes, each with the tensors that it merges.

    Args:
        recipe: with what it says of layers.
        names: of the tensors to merge.
        specs: of the result.

    Raises:
        UserError: hyper-parameters do not suit the experts; the method ranks the entries of all layers together;
            or a pattern matches no tensor.
    """
    methods = {"": recipe.create_method()}
    check_range(methods[""], specs)
    _check_names(methods[""], names)
    for pattern, changes in recipe.layers.items():
        with located(f"layers: {pattern}"):
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UserError("the pattern matches no tensor that is merged")
            method = methods[pattern] = recipe.create_method(changes)
            _check_local(method)
            method.check_count(len(recipe.experts))
            check_range(method, specs)
            _check_names(method, names)
    found: dict[str, tuple[MergingMethod, list[str]]] = {}
    for name in names:
        pattern = next((pattern for pattern in recipe.layers if fnmatchcase(name, pattern)), "")
        method = methods[pattern]
        found.setdefault(repr(method), (method, []))[1].append(name)
    return list(found.values())


def _check_names(method: MergingMethod, names: Sequence[str]) -> None:
    """Raises:
    UserError: see :meth:`mergerisk.merging.StateMerging.check_names`.
    """
    if isinstance(method, StateMerging):
        method.check_names(names)


def _check_local(method: MergingMethod) -> None:
    """Raises:
    UserError: a method looks at all tensors at once, so that layers cannot differ.
    """
    match method:
        case Ties(trim="global") | Dare(then="ties", trim="global"):
            raise UserError("the method ranks the entries of all layers together; set trim: per_tensor")
        case Pcb() | Emr() | DogeTa() | KnotsTies() | Opcm() | Wrapper():
            raise UserError("the method looks at all layers together; remove layers")
