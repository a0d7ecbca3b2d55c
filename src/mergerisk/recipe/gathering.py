"""What a recipe names, opened and held against each other before anything is merged: headers only."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError, located
from mergerisk.models.core.checks import dtype_name
from mergerisk.models.on_disk.checkpoints import (
    Alignment,
    Checkpoint,
    StoredTensors,
    align,
    check_merged,
    is_adapter,
)
from mergerisk.models.on_disk.copies import split_copy
from mergerisk.models.on_disk.quantised import NO_INTEGERS
from mergerisk.models.sources.hub import fetch
from mergerisk.models.sources.lora import LoraCheckpoint
from mergerisk.models.sources.reading import called_alike
from mergerisk.recipe._modules import top_module, unknown_modules
from mergerisk.recipe.forms import form_of
from mergerisk.recipe.ingredients import Ingredient, Ingredients, Part

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from mergerisk.recipe.schema import Recipe


def gather(recipe: Recipe, *, offline: bool = False) -> Ingredients:
    """Fetch and open a recipe's checkpoints, and see that they fit.

    Raises:
        UserError: a checkpoint cannot be had, or does not fit the base; the message says what to do.
    """
    with located("base"):
        source, prefix = split_copy(recipe.base)
        path = fetch(source, offline=offline)
        opened = Checkpoint(path, prefix)
    base = Ingredient(recipe.base, path, opened, opened.files, prefix=prefix)
    _check_patterns("include", recipe.include, opened)
    merged = tuple(
        name
        for name, spec in opened.specs.items()
        if spec.dtype.is_floating_point and _chosen(name, recipe) and name not in opened.aliases
    )
    experts = {}
    for name, spec in recipe.experts.items():
        with located(f"expert {name!r}"):
            experts[name] = _open_expert(spec, base, merged, recipe, offline=offline)
    kept = () if recipe.include != ("*",) else unknown_modules(merged, experts.values())
    merged = tuple(name for name in merged if top_module(name) not in kept)
    for name, expert in experts.items():
        with located(f"expert {name!r}"):
            experts[name] = _checked(merged, base, expert, recipe)
    # What only experts have can be excluded too.
    names = set(opened)
    for expert in experts.values():
        names.update(expert.left_out, filter(None, map(expert.alignment.back, expert.tensors)))
    _check_patterns("exclude", recipe.exclude, names)
    if not merged:
        raise UserError("include, exclude: they leave no tensor of the base to merge")
    return Ingredients(base, experts, merged, kept)


def _open_expert(
    spec: str, base: Ingredient, merged: tuple[str, ...], recipe: Recipe, *, offline: bool
) -> Ingredient:
    source, prefix = split_copy(spec)
    path = fetch(source, offline=offline)
    if is_adapter(path):
        if prefix:
            raise UserError(f"{path}: an adapter, of which there are no copies to choose from; remove #{prefix}")
        whole = Part(base.tensors, {name: name for name in base.tensors})
        unknown: list[str] = []

        def ignored(name: str) -> bool:
            if _chosen(name, recipe):
                unknown.append(name)
            return True

        adapted = LoraCheckpoint(whole, path, config=base.path if base.path.is_dir() else None, ignored=ignored)
        if unknown:
            without = _exclude(unknown, base.tensors, recipe)
            raise UserError(
                f"{adapted.files[0]}: {unknown[0]!r} matches no tensor of the base; is it the adapter's "
                f"own? To leave it out: {without}"
            )
        expert = Ingredient(spec, path, adapted, adapted.files, left_out=adapted.left_out)
    else:
        opened = Checkpoint(path, prefix)
        tensors = called_alike(merged, opened, (base.path, path))
        alignment = align(merged, tensors.specs.keys())
        _check_names(merged, base, tensors, alignment, path)
        left_out = _extra(base, tensors, alignment, recipe)
        expert = Ingredient(spec, path, tensors, opened.files, alignment, left_out, prefix=prefix)
    if merged and not any(expert.alignment(name) in expert.tensors for name in merged):
        raise UserError(f"{path}: has none of the tensors to merge; is it a model of the base's architecture?")
    return expert


def _checked(merged: Collection[str], base: Ingredient, expert: Ingredient, recipe: Recipe) -> Ingredient:
    """The same expert, with what a reader has to know of it.

    Raises:
        UserError: its tensors, configuration or preprocessing are not of the base's form.
    """
    _check_tensors(merged, base, expert, recipe)
    _check_ties(base, expert, merged)
    if not isinstance(expert.tensors, LoraCheckpoint):
        pairs = ((base.tensors[name], expert.tensors[expert.alignment(name)]) for name in merged)
        check_merged(expert.path, pairs)
    return replace(expert, remarks=form_of(base.path, expert.path, recipe.preprocessing))


def _check_ties(base: Ingredient, expert: Ingredient, merged: Collection[str]) -> None:
    """Raises:
    UserError: two tensors of the expert differ that are one in the base.
    """
    for name, first in base.tensors.aliases.items():
        own, twin = expert.alignment(name), expert.alignment(first)
        if first not in merged or own not in expert.tensors:
            continue
        one = expert.tensors.aliases.get(own, own) == expert.tensors.aliases.get(twin, twin)
        if not one and not torch.equal(expert.tensors[own], expert.tensors[twin]):
            raise UserError(
                f"{expert.path}: {own!r} is not {twin!r}, though they are one tensor in the base; untie them in "
                "the base, or tie them in the expert"
            )


def _chosen(name: str, recipe: Recipe) -> bool:
    """Whether the recipe's patterns ask for a tensor."""
    return any(fnmatchcase(name, pattern) for pattern in recipe.include) and not any(
        fnmatchcase(name, pattern) for pattern in recipe.exclude
    )


def _check_names(
    merged: Collection[str], base: Ingredient, expert: StoredTensors, alignment: Alignment, path: Path
) -> None:
    """Raises:
    UserError: most of the expert's tensors have other names, though they are as large as the base's.
    """
    missing = [name for name in merged if alignment(name) not in expert]
    ours = Counter(base.tensors.specs[name] for name in missing)
    known = {alignment(name) for name in base.tensors}
    others = {own: spec for own, spec in expert.specs.items() if own not in known}
    if len(missing) > len(merged) / 2 and not ours - Counter(others.values()):
        example = next(own for own, spec in others.items() if spec == base.tensors.specs[missing[0]])
        raise UserError(
            f"{path}: has the base's tensors under other names, such as {example!r}, where the base has "
            f"{missing[0]!r}; transformers calls many tensors otherwise in memory than on disk: give the base as "
            "the folder with its config.json, or save the expert with save_pretrained"
        )


def _extra(base: Ingredient, expert: StoredTensors, alignment: Alignment, recipe: Recipe) -> tuple[str, ...]:
    """An expert's floating tensors that the base does not have.

    Those outside a common prefix are no part of the base's model. Others are a mistake, unless they are excluded.
    """
    found, wrong = [], {}
    for own, spec in expert.specs.items():
        name = alignment.back(own)
        if name in base.tensors or not spec.dtype.is_floating_point:
            continue
        if name is not None and _chosen(name, recipe):
            wrong[name] = own
        found.append(own)
    if wrong:
        own = next(iter(wrong.values()))
        without = _exclude(wrong, base.tensors, recipe)
        raise UserError(f"{expert.file(own)}: tensor {own!r} is not in the base; to leave it out: {without}")
    return tuple(found)


def _check_tensors(names: Iterable[str], base: Ingredient, expert: Ingredient, recipe: Recipe) -> None:
    """Whether an expert has the tensors to merge, as the base has them.

    Raises:
        UserError: it does not; the message says of all that are missing, or have another shape, how to keep the
            base's.
    """
    lacking, reshaped = [], []
    for name in names:
        own = expert.alignment(name)
        wanted, found = base.tensors.specs[name], expert.tensors.specs.get(own)
        if found is None:
            lacking.append(name)
        elif found.shape != wanted.shape:
            reshaped.append(name)
        else:
            _check_dtype(expert, own, wanted.dtype, recipe)
    if lacking:
        has = [back for own in expert.tensors if (back := expert.alignment.back(own)) is not None]
        own = expert.alignment(lacking[0])
        raise UserError(
            f"{expert.path}: lacks tensor {own!r}; to keep the base's: {_exclude(lacking, has, recipe)}"
        )
    if reshaped:
        own = expert.alignment(reshaped[0])
        without = _exclude(reshaped, base.tensors.specs.keys() - set(reshaped), recipe)
        raise UserError(
            f"{expert.tensors.file(own)}: tensor {own!r} has shape {expert.tensors.specs[own].shape}, the base's "
            f"has {base.tensors.specs[reshaped[0]].shape}; to keep the base's: {without}"
        )


def _check_dtype(expert: Ingredient, own: str, wanted: torch.dtype, recipe: Recipe) -> None:
    found = expert.tensors.specs[own].dtype
    where = (
        f"{expert.tensors.file(own)}: tensor {own!r} is {dtype_name(found)}, the base's is {dtype_name(wanted)}"
    )
    if not found.is_floating_point:
        raise UserError(f"{where}; {NO_INTEGERS}")
    # An adapter adds to the base, whatever its own precision.
    if found != wanted and recipe.dtype is None and not isinstance(expert.tensors, LoraCheckpoint):
        raise UserError(f"{where}; set dtype in the recipe, as in dtype: float32, to merge them in float32")


def _check_patterns(where: str, patterns: Iterable[str], names: Collection[str]) -> None:
    """Raises:
    UserError: a pattern matches no tensor, so it is probably misspelt.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"{where}: pattern {pattern!r} matches no tensor")


def _exclude(names: Iterable[str], others: Iterable[str], recipe: Recipe) -> str:
    """What to write in the recipe to leave out tensors: whole modules, as large as hold none of the ``others``."""
    modules = {name[:dot] for name in others for dot, letter in enumerate(name) if letter == "."}
    patterns = dict.fromkeys(recipe.exclude)
    for name in names:
        dots = [dot for dot, letter in enumerate(name) if letter == "."]
        own = next((f"{name[:dot]}.*" for dot in dots if name[:dot] not in modules), name)
        patterns[own] = None
    return f"exclude: {json.dumps(list(patterns), ensure_ascii=False)}"
