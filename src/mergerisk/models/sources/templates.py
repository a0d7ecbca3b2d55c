"""Prompts for zero-shot heads: templates, and class names where a data set's own are of no use in a sentence.

Both are those of the CLIP paper's repository (github.com/openai/CLIP, data/prompts.md); SVHN, which is not in it,
is prompted like MNIST, as in github.com/mlfoundations/task_vectors. They are what the published zero-shot and
merging results of the eight tasks were made with, down to their spelling; FusionBench
(github.com/tanganke/fusion_bench) lists the same, in the order of the labels of its copies of the data sets on the
hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

GENERIC = ("a photo of a {}.",)
"""For a task that has no templates of its own."""

_NUMBER = ('a photo of the number: "{}".',)
_DIGITS = tuple("0123456789")

_FROM_ABOVE = tuple(
    f"{view} of {article}{{}}."
    for article in ("", "a ", "the ")
    for view in (
        "satellite imagery",
        "aerial imagery",
        "satellite photo",
        "aerial photo",
        "satellite view",
        "aerial view",
    )
)

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "sun397": ("a photo of a {}.", "a photo of the {}."),
    "cars": (
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of my {}.",
        "i love my {}!",
        "a photo of my dirty {}.",
        "a photo of my clean {}.",
        "a photo of my new {}.",
        "a photo of my old {}.",
    ),
    "resisc45": _FROM_ABOVE,
    "eurosat": tuple(f"a centered satellite photo of {article}{{}}." for article in ("", "a ", "the ")),
    "svhn": _NUMBER,
    "gtsrb": tuple(f'a {kind} photo of a "{{}}" traffic sign.' for kind in ("zoomed in", "centered", "close up")),
    "mnist": _NUMBER,
    "dtd": tuple(
        f"a photo of {article} {{}} {thing}."
        for article in ("a", "the")
        for thing in ("texture", "pattern", "thing", "object")
    ),
}
"""By task."""

_WARNING = "red and white triangle"
_LIMIT = "red and white circle {} kph speed limit"
_MANDATORY = "blue circle with white {} arrow mandatory"

CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
    "eurosat": (
        "annual crop land",
        "forest",
        "brushland or shrubland",
        "highway or road",
        "industrial buildings or commercial buildings",
        "pasture land",
        "permanent crop land",
        "residential buildings or homes or apartments",
        "river",
        "lake or sea",
    ),
    "svhn": _DIGITS,
    "gtsrb": (
        *(_LIMIT.format(speed) for speed in (20, 30, 50, 60, 70, 80)),
        "end / de-restriction of 80 kph speed limit",
        *(_LIMIT.format(speed) for speed in (100, 120)),
        "red and white circle red car and black car no passing",
        "red and white circle red truck and black car no passing",
        f"{_WARNING} road intersection warning",
        "white and yellow diamond priority road",
        "red and white upside down triangle yield right-of-way",
        "stop",
        "empty red and white circle",
        "red and white circle no truck entry",
        "red circle with white horizonal stripe no entry",
        f"{_WARNING} with exclamation mark warning",
        *(f"{_WARNING} with black {curve} curve approaching warning" for curve in ("left", "right", "double")),
        f"{_WARNING} rough / bumpy road warning",
        f"{_WARNING} car skidding / slipping warning",
        f"{_WARNING} with merging / narrow lanes warning",
        f"{_WARNING} with person digging / construction / road work warning",
        f"{_WARNING} with traffic light approaching warning",
        f"{_WARNING} with person walking warning",
        f"{_WARNING} with child and person walking warning",
        f"{_WARNING} with bicyle warning",
        f"{_WARNING} with snowflake / ice warning",
        f"{_WARNING} with deer warning",
        "white circle with gray strike bar no speed limit",
        *(
            _MANDATORY.format(way)
            for way in (
                "right turn",
                "left turn",
                "forward",
                "forward or right turn",
                "forward or left turn",
                "keep right",
                "keep left",
            )
        ),
        "blue circle with white arrows indicating a traffic circle",
        "white circle with gray strike bar indicating no passing for cars has ended",
        "white circle with gray strike bar indicating no passing for trucks has ended",
    ),
    "mnist": _DIGITS,
}
"""By task, in the order of its labels: EuroSAT's folders in alphabetical order, GTSRB's class numbers, digits."""

_ALIASES = {"stanford_cars": "cars"}


def templates_for(task: str) -> tuple[str, ...]:
    """The templates of a task by its name, also as the hub's repositories write it; else the generic one."""
    return TEMPLATES.get(_plain(task), GENERIC)


def class_names_for(task: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    """A task's class names as prompts need them: ``usual``, unless there are better ones for as many classes."""
    found = CLASS_NAMES.get(_plain(task), usual)
    return found if len(found) == len(usual) else usual


def _plain(task: str) -> str:
    name = task.rpartition("/")[2].lower().replace("-", "_")
    return _ALIASES.get(name, name)
