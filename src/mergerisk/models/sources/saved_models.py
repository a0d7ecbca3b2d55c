"""Models as transformers saved them in a folder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from mergerisk.errors import UserError, described
from mergerisk.memory import check_room, free_bytes
from mergerisk.models.core.checks import check_finite, freeze
from mergerisk.models.core.encoder import Encoder
from mergerisk.models.inside.blocks import transformer_blocks
from mergerisk.models.inside.class_token import may_be_alone
from mergerisk.models.inside.patches import project_patches
from mergerisk.models.on_disk.checkpoints import Checkpoint, loading_bytes
from mergerisk.models.on_disk.configs import check_config
from mergerisk.models.on_disk.filenames import CONFIG, read_json, without_adapter
from mergerisk.models.quiet import quiet_transformers
from mergerisk.models.sources.families import family_of
from mergerisk.models.sources.family_images import check_size, fitted, native_side, read_preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mergerisk.models.core.stated import StatedPreprocessing


def load(
    who: str,
    folder: Path,
    *,
    image_size: int | None = None,
    preprocessing: StatedPreprocessing | None = None,
) -> Encoder:
    """The encoder in a folder that transformers saved.

    Args:
        who: how messages begin.
        folder: with ``config.json`` and weights.
        image_size: see :func:`mergerisk.load_encoder`.
        preprocessing: likewise.

    Raises:
        UserError: see :func:`mergerisk.load_encoder`.
    """
    family = family_of(who, read_json(folder / CONFIG))
    try:
        checkpoint = Checkpoint(folder)  # refuses pickles, and files that are cut short
    except UserError as error:
        raise UserError(f"{who}: cannot be loaded: {error}") from error
    model = from_folder(who, folder, family.model, **family.options)
    kind, native = model.config.model_type, native_side(who, model.config)
    own, _ = read_preprocessing(folder, kind, native)
    prepared, size = fitted(who, own.stated(preprocessing), kind, native, image_size)
    check_size(who, size, family, model.config)
    features, width = family.features(model.config, checkpoint, size != native)
    encoder = Encoder(
        model,
        width=width,
        image_size=size,
        mean=prepared.normalization.mean,
        std=prepared.normalization.std,
        features=features,
        resizing=prepared.resizing,
    )
    check_finite(encoder.state(), who)
    freeze(encoder)
    project_patches(model)
    if family.class_token:
        may_be_alone(list(transformer_blocks(model).values())[-1])
    if image_size is not None and size != native:
        _try(who, encoder)
    return encoder


def _try(who: str, encoder: Encoder) -> None:
    """See that a backbone takes images of another size than it was pretrained on: Swin's windows must fit.

    Raises:
        UserError: it does not.
    """
    size = encoder.image_size
    try:
        with torch.no_grad():
            encoder(torch.full((1, 3, size, size), 0.5))
    except Exception as error:  # the library's own code
        raise UserError(f"{who}: image_size {size}: fails on such an image: {described(error)}") from error


def from_folder(who: str, folder: Path, architecture: str, **options: Any) -> Any:
    """A model of one of transformers' classes, float32, with all of its tensors from the folder's checkpoint.

    Raises:
        UserError: it cannot be loaded, or tensors are missing or have other shapes; ``who`` begins the message.
    """
    import transformers

    kind: Any = getattr(transformers, architecture)
    check_config(folder / CONFIG)
    check_loading(who, folder, kind, **options)
    try:
        with quiet_transformers(), without_adapter(folder) as place:
            loaded: Any = kind.from_pretrained(
                place,
                config=kind.config_class.from_pretrained(place, local_files_only=True),
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # said below in one line
                **options,
            )
    except Exception as error:  # whatever a configuration makes its model's code do
        raise UserError(f"{who}: cannot be loaded: {described(error)}") from error
    model, findings = loaded
    model.config._name_or_path = str(folder)  # whatever it was read from
    if findings["mismatched_keys"]:
        name, found, wanted = min(findings["mismatched_keys"])
        raise UserError(
            f"{who}: cannot be loaded: tensor {name!r} has shape {tuple(found)}, but {CONFIG} makes it "
            f"{tuple(wanted)}; the two belong to different models"
        )
    if findings["missing_keys"]:
        raise UserError(f"{who}: the checkpoint lacks tensor {min(findings['missing_keys'])!r}")
    return model


def check_loading(who: str, folder: Path, kind: Any = None, **options: Any) -> None:
    """See that there is memory for a model in a folder, before it is loaded.

    Args:
        who: how the message begins.
        folder: with its configuration, which is sound, and its checkpoint.
        kind: its class, where the checkpoint may hold more than is loaded, such as a text tower.
        **options: of the class.

    Raises:
        UserError: there is not.
    """
    checkpoint, cpu = Checkpoint(folder), torch.device("cpu")
    needed = loading_bytes(checkpoint)
    if kind is not None and needed > free_bytes(cpu):
        with torch.device("meta"), quiet_transformers():
            model = kind(kind.config_class.from_pretrained(folder, local_files_only=True), **options)
        there = sum(math.prod(spec.shape) for spec in checkpoint.specs.values())
        needed = needed * sum(tensor.numel() for tensor in model.state_dict().values()) // max(there, 1)
    check_room(needed, cpu, who)


def named_classes(names: Mapping[Any, Any] | None, count: int) -> tuple[str, ...] | None:
    """The names of ``count`` classes, by number or by number as a text; None where they were never given any."""
    by_number = {int(number): str(name) for number, name in (names or {}).items()}
    labels = [by_number.get(number, f"LABEL_{number}") for number in range(count)]
    return None if labels == [f"LABEL_{number}" for number in range(count)] else tuple(labels)
