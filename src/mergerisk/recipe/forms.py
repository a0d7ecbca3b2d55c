"""Whether ingredients compute in one way: their configurations and preprocessing, side by side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from mergerisk.errors import UserError
from mergerisk.models.core.stated import BASE, StatedPreprocessing
from mergerisk.models.on_disk.filenames import CONFIG, PREPROCESSOR, PROCESSOR, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mergerisk.models.on_disk.configs import Difference

_LABELS = frozenset(
    {
        "architectures",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "id2label",
        "label2id",
        "num_labels",
        "problem_type",
        "finetuning_task",
        "_name_or_path",
    }
)
"""Fields of a ``config.json`` that any model has, and that decide nothing."""


def form_of(
    base: Path, expert: Path, preprocessing: StatedPreprocessing | Literal["base"] | None
) -> tuple[str, ...]:
    """See that an expert's folder says nothing else of its forward pass than the base's.

    Args:
        base: the base's file or folder.
        expert: the expert's.
        preprocessing: what the recipe says instead of theirs.

    Returns:
        What a reader of the model card has to know of it.

    Raises:
        UserError: a field differs; the message names it, both values and both files.
    """
    if not base.is_dir() or not expert.is_dir():
        return ("Configuration and preprocessing taken to be the base's: a file of tensors has none",)
    remarks = []
    found = _config_differences(base, expert)
    if found:
        raise UserError(
            f"{_listed(found)}; weights that are merged must compute in one way: correct the file that is wrong"
        )
    if found is None:
        remarks.append("Configuration not compared with the base's")
    if not any((expert / file).is_file() for file in (PREPROCESSOR, PROCESSOR)):
        return (*remarks, "Preprocessing taken to be the base's: it came without any")
    different = _pixel_differences(base, expert, preprocessing)
    if different and preprocessing != BASE:
        raise UserError(
            f"{_listed(different)}; to give the result the base's all the same, say preprocessing: base, or state "
            "mean, std and resample there"
        )
    if different:
        remarks.append(f"Preprocessing was another, and the result has the base's: {_listed(different)}")
    return tuple(remarks)


def _listed(found: list[Difference]) -> str:
    first, *others = found
    return f"{first}{'; ' if others else ''}{', '.join(other.field for other in others)}" + (
        " differ too" if len(others) > 1 else " differs too" if others else ""
    )


def _config_differences(base: Path, expert: Path) -> list[Difference] | None:
    """Of the two configurations; None where there are none to compare."""
    if not (base / CONFIG).is_file() or not (expert / CONFIG).is_file():
        return None
    ours, theirs = read_json(expert / CONFIG), read_json(base / CONFIG)
    if _bare(ours) == _bare(theirs):  # as mostly: transformers need not be loaded
        return []
    from mergerisk.models.on_disk.configs import differences, part_of, read_config

    own, usual = read_config(expert), read_config(base)
    if own is None or usual is None:
        return None
    own, usual = part_of(own, usual.model_type), part_of(usual, own.model_type)
    return differences(own, expert / CONFIG, usual, base / CONFIG)


def _bare(content: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in content.items() if name not in _LABELS}, sort_keys=True)


def _pixel_differences(
    base: Path, expert: Path, preprocessing: StatedPreprocessing | Literal["base"] | None
) -> list[Difference]:
    from mergerisk.models.core.preprocessing import read_preprocessor
    from mergerisk.models.on_disk.configs import Difference
    from mergerisk.models.sources.siblings import usual_of

    found, beside = read_preprocessor(expert), read_preprocessor(base)
    if found is None or (beside is not None and beside[1] == found[1]):
        return []
    file, base_file = found[0], usual_of(base) if beside is None else beside[0]
    ours, theirs = (_fields(folder, preprocessing) for folder in (expert, base))
    if ours.keys() != theirs.keys():  # one of them is of a kind that is not understood here
        ours, theirs = found[1], {} if beside is None else beside[1]
    return [
        Difference(name, ours.get(name), file, theirs.get(name), base_file)
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name] != theirs[name]
    ]


def _fields(folder: Path, preprocessing: StatedPreprocessing | Literal["base"] | None) -> Mapping[str, Any]:
    """What decides a pixel, with the family's usual values for what a folder does not say."""
    from mergerisk.models.sources.family_images import read_preprocessing

    stated = preprocessing if isinstance(preprocessing, StatedPreprocessing) else None
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    try:
        vision = config.get("vision_config")
        side = (vision if isinstance(vision, dict) else config).get("image_size")
        own, _ = read_preprocessing(folder, config.get("model_type"), side if isinstance(side, int) else None)
    except UserError:  # merging needs to understand no image
        return {}
    return own.stated(stated).fields()


def stated_in(content: Mapping[str, Any], stated: StatedPreprocessing) -> dict[str, Any]:
    """What an image processor's file holds, with what a recipe states instead."""
    found = dict(content)
    if stated.mean is not None:
        found |= {
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(stated.mean),
            "image_std": list(stated.std or ()),
        }
    if stated.resample is not None:
        found["resample"] = {"nearest": 0, "bilinear": 2, "bicubic": 3}[stated.resample]
    return found
