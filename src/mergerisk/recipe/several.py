"""Files of several merges, this package's recipes or mergekit's: each may merge what others made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, located
from mergerisk.recipe.schema import load_recipe, parse_recipe
from mergerisk.yaml_files import read_mappings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.recipe.schema import Recipe

_NAME = re.compile(r"\w[\w .@+-]*")


def load_merges(path: str | Path, out: str | Path, *, settings: Sequence[str] = ()) -> list[tuple[Recipe, Path]]:
    """What a recipe's file asks for: recipes, in the order they can be carried out in, and their folders.

    Args:
        path: a file of :func:`load_recipe`, or one with several documents, each a recipe or a configuration of
            mergekit's (multimerge) with a ``name`` but at most one, by which others may refer to what it makes: as
            an ingredient, or as their base.
        out: the folder of the only merge; of several the folder of the one without a name, or of the one that no
            other merges. The others get folders beside it, ``OUT-NAME``.
        settings: values instead of those of a file with one merge; see
            :func:`mergerisk.given_settings.with_settings`.

    Raises:
        UserError: whatever :func:`load_recipe` raises; several documents whose names are missing, not unique, or
            merge one another in a circle.
    """
    path, out = Path(path), Path(out)
    if path.is_dir() or len(documents := read_mappings(path, "a recipe")) == 1:
        return [(load_recipe(path, settings=settings), out)]
    if settings:
        raise UserError(f"{path}: holds several merges, and --set speaks of one; save the one meant by itself")
    with located(str(path)):
        merges = _named(documents)
        used = {name: _ingredients(content) & merges.keys() for name, content in merges.items()}
        order = _in_order(used)
        ends = [name for name in merges if not any(name in others for others in used.values())]
        last = "" if "" in merges else ends[0] if len(ends) == 1 else None
        if last is None:
            raise UserError("several merges that no other one uses; leave out the name of the one that is meant")
        folders = {name: out if name == last else out.with_name(f"{out.name}-{name}") for name in merges}
        from mergerisk.recipe.mergekit import translate

        found = []
        for name in order:
            with located(f"merge {name!r}" if name else "the merge without a name"):
                places = {other: str(folders[other].absolute()) for other in used[name]}
                content = merges[name]
                mergekits = "merge_method" in content
                own = translate(_placed(content, places)) if mergekits else _recipe(content, places)
                found.append((parse_recipe(own, path.parent), folders[name]))
        return found


def _named(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The merges by name; one may have none."""
    merges: dict[str, dict[str, Any]] = {}
    for position, content in enumerate(documents):
        if not content.keys() & {"method", "merge_method"}:
            raise UserError(f"document {position + 1}: no method; in a file of several each document is a merge")
        name = content.get("name", "")
        if not isinstance(name, str) or (name and not _NAME.fullmatch(name)):
            raise UserError(f"document {position + 1}: name: choose one that can be a folder's")
        if name in merges:
            what = f"a second merge called {name!r}" if name else "a second merge without a name"
            raise UserError(f"document {position + 1}: {what}; give it a name of its own")
        merges[name] = content
    return merges


def _ingredients(content: Mapping[str, Any]) -> set[str]:
    """What a merge is made of, and what it begins with."""
    if "merge_method" in content:
        return _referred(content)
    experts = content.get("experts")
    listed = [*experts.values()] if isinstance(experts, dict) else experts if isinstance(experts, list) else []
    listed = [content.get("base"), *listed]
    return {one for one in listed if isinstance(one, str)}


def _recipe(content: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """A recipe without its name, with folders where it names other merges."""
    experts = content.get("experts")
    if isinstance(experts, list) and all(isinstance(spec, str) for spec in experts):
        experts = [places.get(spec, spec) for spec in experts]
    elif isinstance(experts, dict):
        experts = {
            name: places.get(spec, spec) if isinstance(spec, str) else spec for name, spec in experts.items()
        }
    base = content.get("base")
    placed = {"base": places.get(base, base) if isinstance(base, str) else base, "experts": experts}
    kept = {key: value for key, value in content.items() if key != "name"}
    return kept | {key: value for key, value in placed.items() if key in content}


def _referred(value: object) -> set[str]:
    """What stands where a configuration names models."""
    match value:
        case dict():
            own = {value[key] for key in ("model", "base_model") if isinstance(value.get(key), str)}
            return own.union(*(_referred(inside) for inside in value.values()))
        case list():
            return set().union(*map(_referred, value))
        case _:
            return set()


def _placed(value: Any, folders: Mapping[str, str]) -> Any:
    """The same configuration with folders for the names of merges."""
    match value:
        case dict():
            return {
                key: folders.get(inside, inside)
                if key in {"model", "base_model"} and isinstance(inside, str)
                else _placed(inside, folders)
                for key, inside in value.items()
            }
        case list():
            return [_placed(inside, folders) for inside in value]
        case _:
            return value


def _in_order(used: Mapping[str, set[str]]) -> list[str]:
    """Every merge after those that it uses."""
    done: list[str] = []
    while left := [name for name in used if name not in done]:
        ready = [name for name in left if used[name] <= set(done)]
        if not ready:
            while waiting := [name for name in left if not any(name in used[other] for other in left)]:
                left = [name for name in left if name not in waiting]  # in no circle, but after one
            raise UserError(f"merges use one another in a circle: {', '.join(map(repr, left))}")
        done += ready
    return done
