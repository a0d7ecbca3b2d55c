"""A model in its own library's way: what its authors' few lines of code would do with a picture.

Nothing here goes through mergerisk's own loading, resizing or normalising, which is what is checked. Only pickled
weights are refused first, and pictures of too many pixels.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from mergerisk.errors import UserError, described
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.on_disk.filenames import CONFIG, PREPROCESSOR, read_json
from mergerisk.models.quiet import quiet_transformers
from mergerisk.models.sources.factories import build
from mergerisk.models.sources.saved_models import named_classes
from mergerisk.tasks.class_names import in_words
from mergerisk.tasks.decoding import FORMATS, open_upright

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

PROCESSORS = (PREPROCESSOR, "processor_config.json")
"""Files that say how a folder's model is given images."""

PROMPT = "a photo of a {}."
"""What a class is called for a whole CLIP, on both sides."""

UNSTATED = "not stated"


@dataclass(frozen=True)
class OwnWay:
    """A model as its own library reads it.

    Attributes:
        library: in words.
        logits: whether ``answer`` gives logits; features otherwise.
        prepare: picture in RGB → what ``answer`` takes, 1 × 3 × H × W, float32.
        answer: prepared pixels, N × 3 × H × W → logits or features, N × K, float32.
        module: what ``answer`` calls.
        class_names: one per logit; None if it names none.
        resampling: how ``prepare`` resizes, in a word.
        side: of the images that the model was made for, in pixels; None if it does not say.
        remark: what had to be assumed; empty if nothing had.
    """

    library: str
    logits: bool
    prepare: Callable[[Image.Image], torch.Tensor]
    answer: Callable[[torch.Tensor], torch.Tensor]
    module: nn.Module
    class_names: tuple[str, ...] | None = None
    resampling: str = UNSTATED
    side: int | None = None
    remark: str = ""


def open_picture(path: Path) -> Image.Image:
    """A picture as scripts open it: turned upright and converted to RGB, whatever that makes of transparency.

    Raises:
        UserError: it has too many pixels.
        UnreadableError: it cannot be read.
    """
    return open_upright(path, str(path), FORMATS).convert("RGB")


def as_pixels(picture: Image.Image) -> torch.Tensor:
    """A picture in RGB as pixels in [0, 1], 1 × 3 × H × W."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def transformers_way(name: str, folder: Path, class_names: Sequence[str] | None) -> OwnWay:
    """A folder that transformers saved: a classifier; a whole CLIP, zero-shot; else a model's features.

    Args:
        name: what messages call it.
        folder: the folder.
        class_names: for a whole CLIP; its features are taken without.

    Raises:
        UserError: it cannot be loaded; its weights are pickled.
    """
    Checkpoint(folder)  # refuses pickles, and files that are cut short
    config = read_json(folder / CONFIG)
    prepare, processor, remark = _processor(name, folder)
    shared: dict[str, Any] = {"resampling": _resampling(processor), "side": _side(config), "remark": remark}
    by = f"and {type(processor).__name__}"
    if any("ForImageClassification" in kind for kind in config.get("architectures") or ()):
        model = _load(name, folder, "AutoModelForImageClassification")

        def classify(pixels: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = model(pixel_values=pixels.to(model.dtype)).logits
            return logits.float()

        names = named_classes(model.config.id2label, model.config.num_labels)
        library = f"transformers' AutoModelForImageClassification {by}"
        return OwnWay(library, True, prepare, classify, model, names, **shared)
    model = _load(name, folder, "AutoModel")
    if config.get("model_type") == "clip" and class_names is not None:
        tokens = _tokens(name, folder, [PROMPT.replace("{}", in_words(text)) for text in class_names])

        def compare(pixels: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = model(pixel_values=pixels.to(model.dtype), **tokens).logits_per_image
            return logits.float()

        return OwnWay(f"transformers' CLIPModel {by}", True, prepare, compare, model, tuple(class_names), **shared)
    tower: Any = getattr(model, "vision_model", model)
    if hasattr(tower.config, "mask_ratio"):
        tower.config.mask_ratio = 0.0  # what a masked autoencoder hides is drawn at random

    def describe(pixels: torch.Tensor) -> torch.Tensor:
        return pooled(tower(pixel_values=pixels.to(model.dtype)).last_hidden_state)

    return OwnWay(f"transformers' {type(tower).__name__} {by}", False, prepare, describe, tower, **shared)


def pooled(hidden: torch.Tensor) -> torch.Tensor:
    """A last hidden state as features, N × K, float32: the first token beside the mean of all, N × T × D; or the
    mean over positions, N × C × H × W."""
    hidden = hidden.float()
    if hidden.ndim == 4:
        return hidden.mean(dim=(2, 3))
    return torch.cat([hidden[:, 0], hidden.mean(dim=1)], dim=1)


def factory_way(name: str, image_size: int | None) -> OwnWay:
    """A module of the user's own, called on pixels in [0, 1] and nothing else.

    Args:
        name: ``package.module:factory[@weights.safetensors]``.
        image_size: side of the images it gets, in pixels; by default what its attribute ``image_size`` says, and
            the images' own size if it has none.

    Raises:
        UserError: it cannot be made, or its weights not be read.
    """
    callable_name, _, weights = name.partition("@")
    module, factory = build(callable_name)
    module = module.float().requires_grad_(False).eval()
    if weights:
        file = Path(weights).expanduser()
        Checkpoint(file)
        try:
            module.load_state_dict(load_file(file))
        except RuntimeError as error:
            raise UserError(f"{name}: the weights do not fit: {described(error)}") from error
    side = image_size or getattr(module, "image_size", None)
    names = getattr(module, "class_names", getattr(factory, "class_names", None))

    def prepare(picture: Image.Image) -> torch.Tensor:
        if side is not None and picture.size != (side, side):
            picture = picture.resize((side, side), Image.Resampling.BILINEAR)
        return as_pixels(picture)

    def answer(pixels: torch.Tensor) -> torch.Tensor:
        found = module(pixels)
        if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != len(pixels):
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise UserError(f"{name}: must return images × numbers, got {shape} for {len(pixels)}")
        return found.float()

    class_names = None if names is None else tuple(str(text) for text in names)
    library = "the module itself, called on pixels in [0, 1]"
    return OwnWay(library, True, prepare, answer, module, class_names, "bilinear" if side else "none", side)


def _load(name: str, folder: Path, kind: str) -> Any:
    import transformers

    try:
        with quiet_transformers():
            model: Any = getattr(transformers, kind).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
    except Exception as error:  # whatever a configuration makes its model's code do
        raise UserError(f"{name}: transformers itself cannot load it: {described(error)}") from error
    return model.requires_grad_(False).eval()


def _processor(name: str, folder: Path) -> tuple[Callable[[Image.Image], torch.Tensor], Any, str]:
    """How the library prepares a picture, the library's object that does, and what had to be assumed."""
    remark = ""
    try:
        with quiet_transformers():
            if any((folder / file).is_file() for file in PROCESSORS):
                processor = _read_processor(folder)
            else:
                processor = _usual_processor(folder)
                remark = (
                    f"{name}: the folder says nothing of its images (no {PREPROCESSOR}); its own way is taken to "
                    f"be {type(processor).__name__} as it is by default"
                )
    except Exception as error:  # whatever a configuration makes its processor's code do
        raise UserError(
            f"{name}: transformers itself cannot load its image processor: {described(error)}"
        ) from error

    def prepare(picture: Image.Image) -> torch.Tensor:
        pixels: torch.Tensor = processor(picture, return_tensors="pt")["pixel_values"]
        return pixels.float()

    return prepare, processor, remark


def _read_processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    # Pillow's resizing, wherever torchvision may be installed: the same figures on every machine.
    return AutoImageProcessor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, backend="pil"
    )


def _usual_processor(folder: Path) -> Any:
    """What the library makes of an empty ``preprocessor_config.json``, at the size that ``config.json`` says."""
    content = read_json(folder / CONFIG)
    with tempfile.TemporaryDirectory() as place:
        Path(place, CONFIG).write_text(json.dumps(content))
        Path(place, PREPROCESSOR).write_text("{}")
        processor = _read_processor(Path(place))
    side = _side(content)
    if side is not None:
        square = {"height": side, "width": side}
        shorter = "shortest_edge" in processor.size
        processor.size = {"shortest_edge": side} if shorter else square
        if getattr(processor, "do_center_crop", False):
            processor.crop_size = square
    return processor


def _side(config: dict[str, Any]) -> int | None:
    side = config.get("image_size", config.get("vision_config", {}).get("image_size"))
    return side if isinstance(side, int) else None


def _resampling(processor: Any) -> str:
    value = getattr(processor, "resample", None)
    if not getattr(processor, "do_resize", True):
        return "none"
    return UNSTATED if value is None else Image.Resampling(int(value)).name.lower()


def _tokens(name: str, folder: Path, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        found = tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
    except Exception as error:  # whatever its files make the tokenizer's code do
        raise UserError(f"{name}: transformers itself cannot load its tokenizer: {described(error)}") from error
    return {key: found[key] for key in ("input_ids", "attention_mask")}
