"""From a name or a folder to an :class:`Encoder`."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, did_you_mean, first_line
from mergerisk.registry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.models.encoder import Encoder, State

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


def backbone_folder(name: str) -> Path:
    """The folder that holds ``config.json`` and ``model.safetensors`` of a backbone.

    Args:
        name: a known backbone, or a folder in the layout that transformers saves.

    Raises:
        UserError: neither.
    """
    if name in BACKBONES:
        return Path(__file__).parent / "starter"
    folder = Path(name)
    if not folder.is_dir():
        raise UserError(
            f"unknown backbone {name!r}{did_you_mean(name, BACKBONES)}; or give a folder with config.json "
            "and model.safetensors"
        )
    for file in ("config.json", "model.safetensors"):
        if not (folder / file).is_file():
            raise UserError(
                f"backbone {name!r}: the folder has no {file}; save it with transformers' save_pretrained"
            )
    return folder


def backbone_identity(name: str) -> dict[str, str]:
    """SHA-256 of each file that decides what the backbone computes."""
    return folder_identity(backbone_folder(name))


def folder_identity(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a model's folder that decides what it computes."""
    files = ("config.json", "model.safetensors", "preprocessor_config.json")
    return {
        file: hashlib.sha256((folder / file).read_bytes()).hexdigest()
        for file in files
        if (folder / file).is_file()
    }


def load_encoder(name: str, *, image_size: int | None = None) -> Encoder:
    """The pretrained encoder called ``name``, float32, frozen, in evaluation mode.

    Args:
        name: ``"starter-vit"``, or a folder with a ViT in the layout that transformers saves.
        image_size: side of the images it sees, in pixels, a multiple of the patch; the pretrained size by default.
            Position embeddings are interpolated on the way, so that weights keep their pretrained shapes.

    Raises:
        UserError: unknown name, a folder that holds something else, an image size that patches do not divide, or
            weights with NaN.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import ViTConfig, ViTModel

    from mergerisk.models.checkpoints import read_json
    from mergerisk.models.checks import check_finite
    from mergerisk.models.encoder import Encoder
    from mergerisk.models.vit import class_token, class_token_resized

    folder = backbone_folder(name)
    config = read_json(folder / "config.json")
    if config.get("model_type") != "vit":
        raise UserError(f"backbone {name!r}: model_type is {config.get('model_type')!r}; supported here: 'vit'")
    try:
        with quiet_transformers():
            loaded: Any = ViTModel.from_pretrained(
                folder,
                config=ViTConfig.from_dict(config),
                add_pooling_layer=False,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"backbone {name!r}: cannot be loaded: {first_line(error)}") from error
    model, findings = loaded
    if findings["missing_keys"]:
        missing = min(findings["missing_keys"])
        raise UserError(f"backbone {name!r}: model.safetensors lacks tensor {missing!r}")
    preprocessing = folder / "preprocessor_config.json"
    pixels = read_json(preprocessing) if preprocessing.is_file() else {}
    size = image_size or int(model.config.image_size)
    patch = int(model.config.patch_size)
    if size % patch:
        raise UserError(f"backbone {name!r}: image_size {size} is no multiple of its patches' {patch} pixels")
    encoder = Encoder(
        model,
        width=int(model.config.hidden_size),
        image_size=size,
        mean=pixels.get("image_mean", [0.5] * 3),
        std=pixels.get("image_std", [0.5] * 3),
        features=class_token if size == model.config.image_size else class_token_resized,
    )
    check_finite(encoder.state(), f"backbone {name!r}")
    return encoder.requires_grad_(False).eval()


def load_expert(base: Encoder, path: Path) -> State:
    """An expert's parameters, float32, checked against the base.

    Args:
        base: the encoder it was fine-tuned from.
        path: a folder as transformers saves it, or a ``.safetensors`` file with the names of ``base.state()``.

    Raises:
        UserError: no such file, not safetensors (pickles are refused: loading one runs its code), another
            architecture, or weights with NaN.
    """
    from mergerisk.models.checkpoints import Checkpoint
    from mergerisk.models.checks import check_finite, check_same_architecture

    if path.is_dir():
        state = load_encoder(str(path)).state()
    else:
        state = {name: t.float() if t.is_floating_point() else t for name, t in Checkpoint(path).items()}
    check_same_architecture(base.state(), state, str(path))
    check_finite(state, str(path))
    return state


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' progress bars and remarks: what it finds is judged here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
