"""What each model and each set of images of a folder is: by what they are called, and by the classes they name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.models.sources.hub import is_hub_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.init.finding import Found, FoundImages, FoundModel

_BASES = frozenset({"base", "pretrained", "backbone"})
_MERGED = frozenset({"merged", "merge", "soup", "release", "released"})

Ask = Callable[[str, Sequence[str]], str]
"""A question and what may be answered → the answer."""


@dataclass(frozen=True)
class Roles:
    """What an audit calls what was found.

    Attributes:
        base: what all were made from: a path, or a hub id that their configurations name.
        ingredients: name → path; one with the name of images is the expert on these.
        merged: path of the model to be released; None if it is to be made yet.
        images: name → path.
        heads: where classifiers come from: ``checkpoint``, ``zero_shot`` or ``linear_probe``.
    """

    base: str
    ingredients: Mapping[str, str]
    merged: str | None
    images: Mapping[str, str]
    heads: str


def assign(
    found: Found,
    shown: Callable[[Path], str],
    *,
    base: str | None = None,
    merged: str | None = None,
    images: Sequence[str] = (),
    ask: Ask | None = None,
) -> Roles:
    """Who is what.

    Args:
        found: in the folder.
        shown: a path as the file says it.
        base: what all were made from, if it is said.
        merged: what is to be released, likewise.
        images: ``PATH`` or ``NAME=PATH`` of those that matter; by default all.
        ask: asks whoever can be asked; None where nobody can.

    Raises:
        UserError: no images, no ingredients, or it cannot be told what something is and nobody can be asked.
    """
    models = {shown(model.path): model for model in found.models}
    released = merged or _only(path for path in models if _called(path, _MERGED))
    left = {path: model for path, model in models.items() if path != released}
    pretrained = base or _base(left, ask)
    ingredients = {path: model for path, model in left.items() if path != pretrained}
    if not ingredients:
        pickled = "; pickled ones are converted first: mergerisk convert" if found.pickles else ""
        raise UserError(f"no models but the base; an audit needs what was merged, or is going to be{pickled}")
    sets = _wanted({shown(one.path): one for one in found.images}, images)
    if not sets:
        raise UserError("no labelled images; make a folder with a folder of images for each class")
    experts = {path: _expert(one, ingredients) for path, (_, one) in sets.items()}
    # An expert has the name of its images.
    tasks = {path: name or Path(experts[path] or path).stem for path, (name, _) in sets.items()}
    of_images = {expert: tasks[path] for path, expert in experts.items() if expert is not None}
    named = _distinct({path: of_images.get(path, Path(path).stem) for path in ingredients})
    return Roles(
        pretrained,
        {name: path for path, name in named.items()},
        released,
        {name: path for path, name in _distinct(tasks).items()},
        _heads([ingredients[expert].classes for expert in of_images], {model.kind for model in models.values()}),
    )


def _heads(of_experts: Sequence[tuple[str, ...]], kinds: set[str]) -> str:
    """Where classifiers come from: the experts on the images, a text tower, or training."""
    if of_experts and all(of_experts):
        return "checkpoint"
    return "zero_shot" if kinds & {"clip", "siglip"} else "linear_probe"


def _base(models: Mapping[str, FoundModel], ask: Ask | None) -> str:
    called = _only(path for path in models if _called(path, _BASES))
    if called is not None:
        return called
    made_from = {model.made_from for model in models.values()}
    if len(made_from) == 1 and is_hub_id(*made_from):
        return next(iter(made_from))
    if not models:
        raise UserError("no models; give a folder with checkpoints as transformers saves them, or --kind study")
    question = "which model were all the others made from?"
    if ask is None:
        raise UserError(f"{question} Give --base, one of {', '.join(models)}, or a name on the hub")
    return ask(question, [*models])


def _wanted(
    found: Mapping[str, FoundImages], images: Sequence[str]
) -> dict[str, tuple[str | None, FoundImages | None]]:
    """Path → the name that was said, and what was found there."""
    if not images:
        return {path: (None, one) for path, one in found.items()}
    wanted: dict[str, tuple[str | None, FoundImages | None]] = {}
    for said in images:
        name, equals, path = said.rpartition("=")
        wanted[path] = (name if equals else None, found.get(path))
    return wanted


def _expert(images: FoundImages | None, models: Mapping[str, FoundModel]) -> str | None:
    """The one model that was fine-tuned on the images: it has their name, or knows their classes."""
    if images is None:
        return None
    called = _only(path for path in models if Path(path).stem == images.path.stem)
    return called or _only(
        path for path, model in models.items() if images.classes and {*images.classes} <= {*model.classes}
    )


def _called(path: str, words: frozenset[str]) -> bool:
    return not words.isdisjoint(re.split(r"[^a-z]+", Path(path).name.lower()))


def _only(paths: Iterable[str]) -> str | None:
    several = [*paths]
    return several[0] if len(several) == 1 else None


def _distinct(names: Mapping[str, str]) -> dict[str, str]:
    """Path → its name, with the folder's before it where two would be called the same."""
    twice = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {path: f"{Path(path).parent.name}-{name}" if name in twice else name for path, name in names.items()}
