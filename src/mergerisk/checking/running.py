"""From a model and a folder of images to a table of what it says, in its own library's way and here."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mergerisk.checking.as_loaded import WORDS, of_library, open_readings
from mergerisk.checking.compared_settings import NAMES, our_settings, own_settings
from mergerisk.checking.comparing import difference, our_outputs, own_outputs, take_steps
from mergerisk.checking.own import factory_way, transformers_way
from mergerisk.checking.reasons import order_of_classes, reasons_of
from mergerisk.checking.result import TOLERANCE, Check, Compared
from mergerisk.crafting.images import balanced, examples, image_names, probe_images
from mergerisk.crafting.labels import has_class_folders, read_labels
from mergerisk.errors import UserError
from mergerisk.models.on_disk.filenames import CONFIG
from mergerisk.models.sources.hub import fetch, remark
from mergerisk.models.sources.loading import BACKBONES, is_factory
from mergerisk.statistics import wilson_interval
from mergerisk.tasks.class_names import Classes, is_number, ordered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from mergerisk.checking.as_loaded import Reading
    from mergerisk.checking.own import OwnWay
    from mergerisk.checking.probing import Preparation
    from mergerisk.crafting.images import ImageFile
    from mergerisk.tasks.arrays import Skipped

IMAGES = 50
"""That are checked, if there are more."""

_LOOKED_INTO = 8
"""Images on which the steps are swapped, those that differ most."""


def check(
    model: str | Path,
    images: str | Path,
    *,
    labels: str | Path | None = None,
    image_size: int | None = None,
    size: int | None = None,
    limit: int = IMAGES,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    offline: bool = False,
) -> Check:
    """Compare what a model says of images in its own library's way with what it says as mergerisk loads it.

    Args:
        model: a folder that transformers saved, ``org/name`` on the hub, ``timm:NAME``,
            ``open_clip:NAME/WEIGHTS``, or ``package.module:factory``. A CLIP is asked zero-shot for the names of
            the class folders; of a model without a head, features are compared.
        images: a folder of class folders, or of images.
        labels: a CSV table ``file,label`` instead of class folders.
        image_size: side of the images that a study's backbone sees; its own by default.
        size: side of the squares that a study's task brings images to; by default as a task does.
        limit: images that are looked at, evenly over the classes.
        tolerance: share of the length of an image's logits from which on a difference counts.
        seed: of which images are looked at.
        offline: take what comes from a hub from its cache only.

    Raises:
        UserError: an option, the model, an image or a label is wrong.
    """
    model, images, table = str(model), Path(images), None if labels is None else Path(labels)
    for name, value, least in (
        ("limit", limit, 1),
        ("size", size, 1),
        ("image-size", image_size, 1),
        ("seed", seed, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"--{name} must be {least} or more, got {value}")
    if not tolerance > 0:
        raise UserError(f"--tolerance must be above 0, got {tolerance}")
    names = image_names(images, table)
    folders = _class_folders(names) if table is None and has_class_folders(images) else []
    own, folder = _own_way(model, folders, image_size, offline)
    first, skipped = probe_images(images, names, limit=1)
    if not first:
        raise UserError(f"{images}: no image can be read{examples(skipped)}")
    count = own_outputs(model, own, [first[0].path]).shape[1]
    own, known, skipped, remarks = _labels(model, own, images, names, table, folders, count)
    if known is not None:
        names = list(known)
    files, unreadable = probe_images(images, balanced(names, known or {}, seed), limit)
    remarks += _left_out([*skipped, *unreadable], len(files), len(names))
    if not files:
        raise UserError(f"{images}: no image to check{examples([*skipped, *unreadable])}")
    said = "" if folder is None else remark(model, folder)
    remarks += [said] if said else []
    with warnings.catch_warnings():
        if said:
            warnings.filterwarnings("ignore", re.escape(said))  # among the remarks, once
        readings, refused = open_readings(
            model, own, files, folder=folder, image_size=image_size, size=size, offline=offline
        )
    return _compare(model, own, readings, files, known, tolerance, count, [*remarks, *refused])


def _compare(
    model: str,
    own: OwnWay,
    readings: Sequence[Reading],
    files: Sequence[ImageFile],
    known: Mapping[str, int] | None,
    tolerance: float,
    count: int,
    remarks: list[str],
) -> Check:
    files = sorted(files)
    paths = [file.path for file in files]
    expected = own_outputs(model, own, paths)
    labels = None if known is None else np.array([known[file.name] for file in files], np.int64)
    names = own.class_names or tuple(map(str, range(count)))
    settings, preparation = own_settings(own, files[0].size, count)
    sides = {"own": settings}
    rows: dict[str, Any] = {
        "file": [file.name for file in files],
        "label": [None] * len(files) if labels is None else [names[label] for label in labels],
        **_said("own", expected, names, own.logits),
    }
    found: dict[str, list[str]] = {}
    compared: list[Compared] = []
    for reading in readings:
        try:
            outputs = our_outputs(model, reading, paths)
        except UserError as error:
            if reading is readings[-1] and not compared:
                raise
            remarks.append(f"{WORDS[reading.name]} it fails: {error}")
            continue
        if outputs.shape != expected.shape:
            raise UserError(
                f"{model}: {WORDS[reading.name]} it says {outputs.shape[1]} numbers of an image, in its own "
                f"library's way {expected.shape[1]}; the two cannot be compared"
            )
        apart = difference(expected, outputs, logits=own.logits).numpy()
        rows |= _said(reading.name, outputs, reading.class_names or names, own.logits)
        rows |= {f"{reading.name}_difference": apart, f"{reading.name}_differs": apart > tolerance}
        here, prepared = our_settings(reading, files[0].size, count, logits=own.logits)
        sides[reading.name] = here
        steps: dict[str, float] = {}
        if (apart > tolerance).any():
            worst = [paths[index] for index in np.argsort(-apart)[:_LOOKED_INTO]]
            taken = take_steps(own, reading, worst, _scale(preparation), _scale(prepared))
            steps = taken.sizes
            both = {name: (settings[name], here[name]) for name in NAMES}
            for reason in reasons_of(taken, both, preparation, prepared, tolerance):
                found.setdefault(reason, []).append(WORDS[reading.name])
        if own.class_names and reading.class_names and own.class_names != reading.class_names:
            reason = "the classes have other names, or another order"
            found.setdefault(reason, []).append(WORDS[reading.name])
        counted = _counted(reading.name, expected, outputs, apart, labels, tolerance, own.logits)
        compared.append(replace(counted, steps=steps))
    reasons = [f"{' and '.join(where)}: {reason}" for reason, where in found.items()]
    accuracy = None
    if labels is not None and own.logits:
        predictions = expected.argmax(dim=1).numpy()
        accuracy = float((predictions == labels).mean())
        reasons += order_of_classes("in its own library too", names, labels, predictions)
    return Check(
        model=model,
        library=own.library,
        logits=own.logits,
        tolerance=tolerance,
        accuracy=accuracy,
        readings=tuple(compared),
        images=pd.DataFrame(rows),
        settings=pd.DataFrame(
            [{"setting": name} | {side: about[name] for side, about in sides.items()} for name in NAMES]
        ),
        reasons=tuple(reasons),
        remarks=tuple(remarks),
    )


def _counted(
    name: str,
    expected: torch.Tensor,
    outputs: torch.Tensor,
    apart: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any] | None,
    tolerance: float,
    logits: bool,
) -> Compared:
    predictions = outputs.argmax(dim=1)
    same = (expected.argmax(dim=1) == predictions).numpy() if logits else apart <= tolerance
    low, high = wilson_interval(int(same.sum()), len(same))
    return Compared(
        name,
        len(same),
        int(same.sum()),
        (float(same.mean()), float(low), float(high)),
        int((apart > tolerance).sum()),
        float((predictions.numpy() == labels).mean()) if logits and labels is not None else None,
        float((expected - outputs).abs().max()),
        {},
    )


def _said(column: str, outputs: torch.Tensor, names: Sequence[str], logits: bool) -> dict[str, Any]:
    if not logits:
        return {}
    top = outputs.double().softmax(dim=1).max(dim=1)
    return {column: [names[label] for label in top.indices.tolist()], f"{column}_probability": top.values.numpy()}


def _scale(prepared: Preparation | None) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    return None if prepared is None else (prepared.mean, prepared.std)


def _own_way(
    model: str, folders: Sequence[str], image_size: int | None, offline: bool
) -> tuple[OwnWay, Path | None]:
    """The library's way, and the folder of a model of transformers."""
    library, _, rest = model.partition(":")
    called = [name.replace("_", " ") for name in folders] or None
    if of_library(model):
        from mergerisk.checking import own_libraries

        return own_libraries.timm_way(rest) if library == "timm" else own_libraries.open_clip_way(
            rest, called
        ), None
    if model in BACKBONES:
        raise UserError(f"{model}: ships with mergerisk, and no other library reads it; check a model of your own")
    if is_factory(model):
        return factory_way(model, image_size), None
    folder = fetch(model, offline=offline)
    if not folder.is_dir() or not (folder / CONFIG).is_file():
        what = f"the folder has no {CONFIG}" if folder.is_dir() else "a file"
        raise UserError(f"{model}: {what}; give the folder that save_pretrained made")
    return transformers_way(model, folder, called), folder


def _class_folders(names: Sequence[str]) -> list[str]:
    return [*ordered(name.partition("/")[0] for name in names if "/" in name)]


def _labels(
    model: str,
    own: OwnWay,
    images: Path,
    names: Sequence[str],
    table: Path | None,
    folders: Sequence[str],
    count: int,
) -> tuple[OwnWay, dict[str, int] | None, list[Skipped], list[str]]:
    """What images show, and what follows from it for the model: whether it classifies at all."""
    remarks = [own.remark] if own.remark else []
    if not own.logits:
        remarks.append("the model classifies nothing (it has no head): its features are compared")
        return own, None, [], remarks
    if own.class_names is None and folders and not all(map(is_number, folders)):
        if len(folders) != count and (of_library(model) or not is_factory(model)):
            remarks.append(
                "the model names no classes, so the class folders say nothing; call them by the numbers of its "
                "classes to see what is right"
            )
            return own, None, [], remarks
        if len(folders) != count:
            remarks.append(
                f"the model names no classes, and says {count} numbers where there are {len(folders)} class "
                "folders: these are taken for features"
            )
            return replace(own, logits=False), None, [], remarks
        remarks.append("the model names no classes: they are taken to be the folders, in alphabetical order")
        own = replace(own, class_names=tuple(folders))
    known, skipped = read_labels(images, names, table, Classes(own.class_names, count))
    return own, known, skipped, remarks


def _left_out(skipped: Sequence[Skipped], looked_at: int, there: int) -> list[str]:
    said = [f"{len(skipped)} files left out{examples(skipped)}"] if skipped else []
    if looked_at + len(skipped) < there:
        said.append(f"looked at {looked_at} of {there} images; --limit says how many")
    return said
