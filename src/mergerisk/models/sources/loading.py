"""From a name to an :class:`Encoder`, and what decides what it computes."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, did_you_mean, located
from mergerisk.models.on_disk.filenames import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    INDEX,
    PREPROCESSOR,
    PROCESSOR,
    TOKENIZER,
    WEIGHTS,
    read_json,
)
from mergerisk.models.sources.hub import fetch, remark
from mergerisk.registry import Entry
from mergerisk.tasks.digests import file_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.models.core.encoder import Encoder
    from mergerisk.models.core.stated import StatedPreprocessing

BACKBONES = {
    entry.name: entry
    for entry in (
        Entry(
            "starter-vit",
            "mergerisk.models:starter",
            "ViT, 0.6 M parameters, 32 px, pretrained on rendered images; ships with the package",
        ),
    )
}
"""Backbones known by name."""

MODEL_TYPES = (
    "beit",
    "clip",
    "clip_vision_model",
    "convnext",
    "convnextv2",
    "deit",
    "dinov2",
    "dinov2_with_registers",
    "efficientnet",
    "mobilenet_v2",
    "regnet",
    "resnet",
    "siglip",
    "siglip_vision_model",
    "swin",
    "vit",
    "vit_mae",
)
"""The ``model_type`` of transformers' models that can be backbones; see
:mod:`mergerisk.models.sources.families`."""

FORMS = {
    "FOLDER": f"as transformers saves it, with model_type {', '.join(MODEL_TYPES)}",
    "ORG/NAME[@REVISION]": "such a folder on the hub",
    "timm:NAME": "a model of timm (pip install 'mergerisk[timm]')",
    "open_clip:NAME/WEIGHTS": "an image tower of OpenCLIP (pip install 'mergerisk[open-clip]')",
    "PACKAGE.MODULE:FACTORY": "a callable of yours that returns a module from pixels to features; "
    "@FILE.safetensors behind it holds weights",
}
"""Ways to name other backbones."""

LIBRARIES = ("timm", "open_clip")
"""Other libraries whose models are written ``library:name``."""


_FACTORY = re.compile(r"[\w.]+:[\w.]+(@.+)?")


def is_factory(name: str) -> bool:
    """Whether a backbone's name is that of a factory, with or without ``@`` and a file of weights."""
    return (
        name not in BACKBONES
        and name.partition(":")[0] not in LIBRARIES
        and _FACTORY.fullmatch(name) is not None
        and not Path(name).exists()
    )


def backbone_folder(name: str, *, offline: bool = False) -> Path:
    """The folder that holds ``config.json`` and the weights of a backbone.

    Args:
        name: a known backbone, a folder in the layout that transformers saves, or ``org/name[@revision]`` on the
            hub.
        offline: take what comes from the hub from the cache only.

    Raises:
        UserError: none of these.
    """
    if name in BACKBONES:
        return Path(__file__).parents[1] / "starter"
    if not Path(name).expanduser().exists() and "/" not in name:
        raise UserError(
            f"unknown backbone {name!r}{did_you_mean(name, BACKBONES)}; or give a folder with config.json and "
            "model.safetensors, org/name on the hub, timm:NAME, open_clip:NAME/WEIGHTS, or package.module:factory"
        )
    try:
        folder = fetch(name, offline=offline)
    except UserError as error:
        owner, _, own = name.partition("/")
        hint = f"; a model of timm is written timm:{own}" if owner == "timm" else ""
        raise type(error)(f"backbone {error}{hint}") from error
    if said := remark(name, folder):
        warnings.warn(said, stacklevel=2)  # a study names folders, and says so in its notes
    if not folder.is_dir():
        raise UserError(f"backbone {name!r}: a file; give the folder that save_pretrained made")
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"backbone {name!r}: the folder has no config.json; save it with transformers' save_pretrained"
        )
    return folder


def backbone_identity(name: str, *, offline: bool = False) -> dict[str, str]:
    """What decides what a backbone computes: SHA-256 of each file, or of the weights and whatever made them.

    Args:
        name: see :func:`load_encoder`.
        offline: take what comes from the hub from the cache only.

    Raises:
        UserError: see :func:`load_encoder`.
    """
    kind, _, rest = name.partition(":")
    if kind in LIBRARIES and rest:
        from mergerisk.models.sources import libraries

        return libraries.identity(kind, rest, offline=offline)
    if is_factory(name):
        from mergerisk.models.sources import factories

        return factories.identity(name)
    return folder_identity(backbone_folder(name, offline=offline))


def folder_identity(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in the folder of a model, or of an adapter, that decides what it computes.

    Raises:
        UserError: a file cannot be read.
    """
    files = [CONFIG, PREPROCESSOR, PROCESSOR, ADAPTER_CONFIG, ADAPTER_WEIGHTS]
    if (folder / WEIGHTS).is_file():
        files.append(WEIGHTS)
    elif (folder / INDEX).is_file():
        shards = read_json(folder / INDEX).get("weight_map")
        files += [INDEX, *sorted(set(shards.values() if isinstance(shards, dict) else ()))]
    return {file: file_digest(folder / file) for file in sorted(files) if (folder / file).is_file()}


def path_identity(path: Path) -> dict[str, str]:
    """SHA-256 of a file of weights, or of each file in a folder that decides."""
    return folder_identity(path) if path.is_dir() else {WEIGHTS: file_digest(path)}


def text_identity(name: str, *, offline: bool = False) -> dict[str, str]:
    """SHA-256 of each file that decides a zero-shot head: of the whole CLIP, and of its tokenizer; of another
    library's model, its name, the library's version and SHA-256 of all weights."""
    kind, _, rest = name.partition(":")
    if kind in LIBRARIES and rest:
        from mergerisk.models.sources import library_heads

        return library_heads.identity(kind, rest, offline=offline)
    folder = backbone_folder(name, offline=offline)
    tokenizer = {file: file_digest(folder / file) for file in TOKENIZER if (folder / file).is_file()}
    return folder_identity(folder) | tokenizer


def has_batch_norm(name: str, *, image_size: int | None = None, offline: bool = False) -> bool:
    """Whether a backbone normalises with running statistics, which no merge of weights preserves.

    Of a folder the names of its tensors tell; anything else is loaded.

    Args:
        name: see :func:`load_encoder`.
        image_size: see there; a factory may have none of its own.
        offline: take what comes from the hub from the cache only.

    Raises:
        UserError: see :func:`load_encoder`.
    """
    if name not in BACKBONES and ":" in name:
        names = [*load_encoder(name, image_size=image_size, offline=offline).state()]
    else:
        from mergerisk.models.on_disk.checkpoints import Checkpoint

        folder = backbone_folder(name, offline=offline)
        with located(f"backbone {name!r}"):
            names = [*Checkpoint(folder)]
    return any(tensor.rpartition(".")[2] == "running_mean" for tensor in names)


def load_encoder(
    name: str,
    *,
    image_size: int | None = None,
    preprocessing: StatedPreprocessing | Mapping[str, Any] | None = None,
    offline: bool = False,
) -> Encoder:
    """The pretrained encoder called ``name``, float32, frozen, in evaluation mode.

    Which of transformers' models are known: :data:`mergerisk.models.sources.families.FAMILIES`. What is merged is
    the model without heads and projections. The features of a CLIP with a projection are its image embedding, not
    normalised; the projection is frozen.

    Args:
        name: ``"starter-vit"``; a folder in the layout that transformers saves; ``org/name[@revision]`` on the
            hub; ``timm:NAME``; ``open_clip:NAME[/WEIGHTS]``; or ``package.module:factory[@weights.safetensors]``:
            a callable that returns a module from pixels in [0, 1] to features, N × width
            (:func:`mergerisk.models.sources.factories.load`).
        image_size: side of the images it sees, in pixels; the pretrained size by default. A multiple of the patch,
            where there are patches: position embeddings are interpolated on the way, so that weights keep their
            pretrained shapes. At least 32 for convolutional networks.
        preprocessing: ``{"mean": …, "std": …, "resample": …}``, of pixels in [0, 1], instead of what comes with
            the model; see :class:`mergerisk.models.core.stated.StatedPreprocessing`. A factory's module comes with
            nothing: it is given pixels in [0, 1] unless it is said here.
        offline: take what comes from the hub from the cache only.

    Raises:
        UserError: unknown name, or nothing under it; another kind of model; pickled weights; a file that is cut
            short; an image size that does not fit; weights with NaN; a library that is not installed.
    """
    from mergerisk.models.core.stated import stated_preprocessing

    stated = stated_preprocessing(preprocessing)
    kind, _, rest = name.partition(":")
    if kind in LIBRARIES and rest:
        from mergerisk.models.sources import libraries

        return libraries.load(kind, rest, image_size=image_size, preprocessing=stated, offline=offline)
    from mergerisk.models.sources import factories, saved_models

    if is_factory(name):
        return factories.load(name, image_size=image_size, preprocessing=stated)
    folder = backbone_folder(name, offline=offline)
    return saved_models.load(f"backbone {name!r}", folder, image_size=image_size, preprocessing=stated)
