"""Whole classifiers from a folder, the hub, or a factory: pixels in [0, 1] → logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mergerisk.errors import UserError, described
from mergerisk.models.core.checks import check_finite, freeze
from mergerisk.models.core.preprocessing import Preprocessing, Resizing
from mergerisk.models.core.stated import stated_preprocessing
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.on_disk.configs import check_config
from mergerisk.models.on_disk.filenames import CONFIG, without_adapter
from mergerisk.models.quiet import quiet_transformers
from mergerisk.models.sources.factories import UNTOUCHED, build
from mergerisk.models.sources.family_images import native_side, read_preprocessing
from mergerisk.models.sources.hub import commit_of, fetch
from mergerisk.models.sources.hub import remark as hub_remark
from mergerisk.models.sources.loading import is_factory
from mergerisk.models.sources.saved_models import check_loading, named_classes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mergerisk.models.core.stated import StatedPreprocessing


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier and what is known of it.

    Attributes:
        module: pixels in [0, 1], N × 3 × H × W → logits, float32, frozen, in evaluation mode.
        class_names: one per logit; None if it names none.
        commit: on the hub; None for what came from elsewhere.
        remark: what had to be assumed; empty if nothing had.
    """

    module: nn.Module
    class_names: tuple[str, ...] | None
    commit: str | None = None
    remark: str = ""


class PreparedClassifier(nn.Module):
    """A classifier behind the pixels it expects.

    Resizing and normalising live in here, so that a budget of 8/255 means 8/255 of the image that is attacked.

    Args:
        model: from its own pixels to logits.
        preprocessing: how its pixels are made.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.resizing = preprocessing.resizing
        normalization = preprocessing.normalization
        self.register_buffer("mean", torch.tensor(normalization.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalization.std).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1], N × 3 × H × W → logits, N × classes."""
        pixels = (self.resizing(images) - self.mean) / self.std
        return self.logits(pixels)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the model says of its own pixels."""
        found: torch.Tensor = self.model(pixels)
        return found


class TransformersClassifier(PreparedClassifier):
    """A transformers image classifier behind the pixels it expects."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(pixel_values=pixels).logits
        return found


def load_classifier(
    name: str,
    *,
    preprocessing: StatedPreprocessing | Mapping[str, Any] | None = None,
    offline: bool = False,
) -> LoadedClassifier:
    """The classifier called ``name``.

    Args:
        name: a folder in the layout that transformers saves, ``org/name[@revision]`` on the hub, or
            ``package.module:factory``, a callable without arguments that returns a module from pixels in [0, 1] to
            logits. Class names are the module's or the factory's ``class_names``, if it has any. Weights in half
            precision are widened to float32.
        preprocessing: ``{"mean": …, "std": …, "resample": …}`` instead of what comes with the model; a factory's
            module comes with nothing.
        offline: take models of the hub from the cache only.

    Raises:
        UserError: no such model; pickled weights, which are not read; a folder that holds no image classifier, or
            one whose images are prepared in a way that is not supported here; weights with NaN; a factory that
            fails.
    """
    stated = stated_preprocessing(preprocessing)
    if is_factory(name):
        loaded = _from_factory(name, stated)
    else:
        loaded = _from_folder(name, fetch(name, offline=offline), stated)
    check_finite(loaded.module.state_dict(), name)
    freeze(loaded.module)
    return loaded


def _from_folder(name: str, folder: Path, stated: StatedPreprocessing | None) -> LoadedClassifier:
    from transformers import AutoModelForImageClassification

    if not folder.is_dir():
        raise UserError(f"{name}: a file; give the folder that save_pretrained made")
    Checkpoint(folder)  # refuses pickles, and files that are cut short
    check_config(folder / CONFIG)  # says what is wrong with it, if it is that
    check_loading(name, folder)
    try:
        with quiet_transformers(), without_adapter(folder) as place:
            loaded: Any = AutoModelForImageClassification.from_pretrained(
                place,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # whatever a configuration makes its model's code do
        raise UserError(f"{name}: cannot be loaded as an image classifier: {described(error)}") from error
    model, findings = loaded
    if findings["missing_keys"]:
        raise UserError(
            f"{name}: the weights lack {min(findings['missing_keys'])!r}; give a classifier with its head"
        )
    if getattr(model.config, "num_channels", 3) != 3:
        raise UserError(f"{name}: expects {model.config.num_channels} channels; images have three here")
    own, assumed = read_preprocessing(folder, model.config.model_type, native_side(name, model.config))
    return LoadedClassifier(
        TransformersClassifier(model, own.stated(stated)),
        named_classes(model.config.id2label, model.config.num_labels),
        commit_of(folder),
        "; ".join(
            filter(None, (hub_remark(name, folder), f"{name}: {assumed}" if assumed and stated is None else ""))
        ),
    )


def _from_factory(name: str, stated: StatedPreprocessing | None) -> LoadedClassifier:
    made, factory = build(name)
    names = next(
        (found for it in (made, factory) if (found := getattr(it, "class_names", None)) is not None), None
    )
    if any(tensor.dtype in _HALF for tensor in made.state_dict().values()):
        made = made.float()
    if stated is not None or isinstance(made, torch.jit.ScriptModule):  # which takes no hooks itself
        made = PreparedClassifier(made, Preprocessing(Resizing(None), UNTOUCHED).stated(stated))
    return LoadedClassifier(made, None if names is None else tuple(str(text) for text in names))


_HALF = frozenset({torch.float16, torch.bfloat16})
