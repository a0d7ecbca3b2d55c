"""Models and images in a folder, by their names and headers: no tensor and no picture is read."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.models.on_disk.filenames import ADAPTER_CONFIG, CONFIG, PICKLES, read_json
from mergerisk.study.finished import STUDY
from mergerisk.tasks.folders import list_folder
from mergerisk.tasks.options import FolderOptions
from mergerisk.tasks.splits import is_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 4
"""Folders below the one that is looked into."""

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class FoundModel:
    """A checkpoint.

    Attributes:
        path: its folder, or the safetensors file.
        kind: ``model_type`` of its configuration; empty where it has none.
        classes: of a classifier, in the order of its labels.
        made_from: what its configuration says that it was made from; empty for nothing.
    """

    path: Path
    kind: str = ""
    classes: tuple[str, ...] = ()
    made_from: str = ""


@dataclass(frozen=True)
class FoundImages:
    """Labelled images.

    Attributes:
        path: a folder of class folders, or an ``.npz`` file.
        classes: by name; empty where the file alone knows.
    """

    path: Path
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Attributes:
        models: checkpoints that can be read.
        images: labelled.
        pickles: files that have to be converted first.
    """

    models: tuple[FoundModel, ...]
    images: tuple[FoundImages, ...]
    pickles: tuple[Path, ...]


def find(folder: Path) -> Found:
    """What lies in a folder, four deep; of folders within one that was understood nothing more is asked.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    parts = [*_walk(folder, _DEEPEST)]
    return Found(
        tuple(part for part in parts if isinstance(part, FoundModel)),
        tuple(part for part in parts if isinstance(part, FoundImages)),
        tuple(part for part in parts if isinstance(part, Path)),
    )


def _walk(folder: Path, deep: int, *, within: bool = False) -> Iterator[FoundModel | FoundImages | Path]:
    """Parts of a folder; ``within``: it may itself be one of them."""
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return
    names = {path.name for path in inside}
    if STUDY in names and within:
        return  # a run, or an audit, which mergerisk made
    if {CONFIG, ADAPTER_CONFIG} & names and within:
        weights = [path for path in inside if path.suffix == ".safetensors"]
        pickles = [path for path in inside if path.suffix in PICKLES]
        if weights:
            yield _model(folder)
        elif pickles:
            yield folder
        return
    if within and (images := _images(folder)) is not None:
        yield images
        return
    for path in inside:
        if path.is_dir():
            if deep and not path.is_symlink():
                yield from _walk(path, deep - 1, within=True)
        elif path.suffix == ".safetensors":
            yield FoundModel(path)
        elif path.suffix in PICKLES:
            yield path
        elif path.suffix == ".npz" and _has_images(path):
            yield FoundImages(path)


def _model(folder: Path) -> FoundModel:
    try:
        config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else read_json(folder / ADAPTER_CONFIG)
    except UserError:
        return FoundModel(folder)
    architectures = config.get("architectures") or []
    labels = config.get("id2label")
    classifies = any("Classification" in str(name) for name in architectures) and isinstance(labels, dict)
    made_from = config.get("base_model_name_or_path") or config.get("_name_or_path") or ""
    return FoundModel(
        folder,
        str(config.get("model_type", "")),
        tuple(map(str, labels.values())) if classifies and isinstance(labels, dict) else (),
        str(made_from),
    )


def _images(folder: Path) -> FoundImages | None:
    """The images in a folder, if it has class folders, or folders of splits with such: two classes at least."""
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    deeper = [path for one in inner if is_plain(one.name) for path in one.iterdir() if path.is_dir()]
    if sum(map(_has_pictures, inner)) < 2 and sum(map(_has_pictures, deeper)) < 2:
        return None
    try:
        return FoundImages(folder, tuple(list_folder(folder, FolderOptions()).class_names))
    except UserError:
        return None


def _has_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in _PICTURES for path in folder.iterdir())


def _has_images(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as members:
            return {"images.npy", "labels.npy"} <= {*members.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
