"""Splits by their names: which images are for training, testing and calibration, in every source of tasks.

Names are read by their words, so that ``my-photos-train``, ``Training`` and ``train_v2`` are all a training split,
and ``valid``, ``dev`` and ``val2017`` validation splits. The words are those of Hugging Face's ``datasets``
(https://huggingface.co/docs/datasets/repository_structure) and a few more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.errors import UserError, did_you_mean
from mergerisk.tasks.arrays import CALIBRATION, TEST, TRAIN
from mergerisk.tasks.class_names import one_form

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mergerisk.tasks.options import FolderOptions

UNSPLIT = -1
"""Split code of images of which nobody said what they are for."""

_WORDS = {
    "train": ("train", "training", "trn", "trainval"),
    "test": ("test", "testing", "tst"),
    "evaluation": ("eval", "evaluation"),
    "validation": ("val", "valid", "validation", "dev", "devel", "development"),
    "calibration": ("calib", "calibration"),
}
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words}
"""Word → the kind of split whose name has it."""

_TESTED = ("test", "evaluation", "validation")
"""Kinds that are tested on, the first that there is."""

_SPARE = ("evaluation", "validation", "calibration")
"""Kinds that calibration images are taken from where another is tested on."""

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LETTERS = re.compile(r"[^\W\d_]+")
_THINGS = re.compile(r"(?<=.)(set|data|images|imgs)$")
"""What else the word of a split may end with, as in ``testset``."""


def _words(name: str) -> list[str]:
    found = [word.casefold() for word in _LETTERS.findall(_HUMP.sub(" ", one_form(name)))]
    return [word if word in _KINDS else _THINGS.sub("", word) for word in found]


def _kind(words: Iterable[str]) -> str:
    found = list(dict.fromkeys(_KINDS[word] for word in words if word in _KINDS))
    if found == ["train", "validation"]:  # PASCAL VOC's train_val
        return "train"
    return found[0] if len(found) == 1 else ""


def kinds_of(names: Iterable[str]) -> dict[str, str]:
    """The kind of every split, by its name; empty where nothing tells, or several words do.

    Of ``train-tracks-test`` and ``train-tracks-train`` the words that all have in common say nothing.
    """
    words = {name: _words(name) for name in names}
    common = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    return {name: _kind(own) or _kind(word for word in own if word not in common) for name, own in words.items()}


def is_plain(name: str) -> bool:
    """Whether a name is a split's usual word and nothing else."""
    return one_form(name).casefold() in _KINDS


@dataclass(frozen=True)
class Division:
    """What the splits of a task are used for.

    Attributes:
        codes: split → its code; other splits are left out.
        trained_on: the split that others train on and test images are drawn from all the same; empty for none.
        remarks: what must be said of it, in sentences.
    """

    codes: Mapping[str, int]
    trained_on: str = ""
    remarks: tuple[str, ...] = ()


def undivided(called: str) -> Division:
    """Of images in no split; their file or folder is called so."""
    kind = kinds_of([called])[called]
    return _division({"": UNSPLIT}, called, kind, said=kind != "train")


def divide(
    names: Iterable[str], options: FolderOptions, where: str, *, called: str = "", spare: bool = False
) -> Division:
    """Which of the splits that there are a task uses, and what for.

    Args:
        names: of the splits that there are.
        options: which are asked for.
        where: what messages begin with.
        called: the name of the file or folder that holds them all, which may be a split's itself.
        spare: whether validation images beside test images are for calibration.

    Raises:
        UserError: one that is asked for is missing, or it cannot be told which is which.
    """
    there = sorted(set(names))
    kinds = kinds_of(there)
    found = _asked(there, options, where)
    asked = frozenset(found)

    def take(option: str, code: int, wanted: Sequence[str]) -> None:
        if code not in found.values():
            able = [name for name in there if name not in found and kinds[name] in wanted]
            found.update(dict.fromkeys(_one(able, option, where), code))

    take("train_split", TRAIN, ("train",))
    for kind in _TESTED:
        take("test_split", TEST, (kind,))
    if TEST in found.values():
        if spare:
            take("calibration_split", CALIBRATION, _SPARE)
        tested = next(name for name, code in found.items() if code == TEST)
        return _division(found, tested, kinds[tested], said=tested in asked)
    trains = [name for name, code in found.items() if code == TRAIN]
    if there != trains and options.train_split is None and (found or len(there) > 1):
        raise UserError(f"{where}: no split 'test' among {', '.join(there)}; say test_split")
    (divided,) = trains or there
    # What holds a single split may be called like one, as photos/train is.
    tells = divided if kinds[divided] or divided in asked else called
    return _division(found | {divided: UNSPLIT}, tells, kinds_of([tells])[tells])


def _asked(there: Sequence[str], options: FolderOptions, where: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for option, code in (("train_split", TRAIN), ("test_split", TEST), ("calibration_split", CALIBRATION)):
        name = getattr(options, option)
        if name is None:
            continue
        if name not in there:
            raise UserError(f"{where}: {option}: no split {name!r}{did_you_mean(name, there)}")
        if name in found:
            raise UserError(f"{where}: {option}: split {name!r} is used twice")
        found[name] = code
    return found


def _one(able: Sequence[str], option: str, where: str) -> Sequence[str]:
    """The only one, or the only one whose name is the usual word and nothing else; none if there is none."""
    plain = [name for name in able if is_plain(name)]
    if len(able) > 1 and len(plain) != 1:
        raise UserError(f"{where}: several splits could be meant: {', '.join(able)}; say {option}")
    return able if len(able) < 2 else plain


def _division(codes: Mapping[str, int], tested: str, kind: str, *, said: bool = False) -> Division:
    """With what must be said of the split that is tested on, unless its user said it."""
    remarks: tuple[str, ...] = ()
    if kind == "train" and not said:
        remarks = (f"there is no test split: test images are drawn from {tested!r}",)
    elif kind in {"evaluation", "validation"} and not said:
        remarks = (f"there is no split called test: {tested!r} is tested on",)
    return Division(codes, tested if kind == "train" else "", remarks)
