"""Heads of other libraries' models: timm's classifiers, OpenCLIP's text towers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from mergerisk.errors import UserError, described
from mergerisk.models.core.checks import check_finite
from mergerisk.models.core.classifier import Head
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.sources.hub import fetch
from mergerisk.models.sources.libraries import identity_of, open_clip_model, timm_model
from mergerisk.models.sources.saved_models import named_classes

if TYPE_CHECKING:
    from collections.abc import Sequence

_BATCH = 256
"""Prompts that are encoded at once."""

_CLOSE = 1e-4
"""Of two ways to compute the same logits in single precision, relative to the largest."""


def identity(library: str, name: str, *, offline: bool = False) -> dict[str, str]:
    """What decides a head: name, the library's version, and SHA-256 of all weights of the model it belongs to."""
    if library == "timm":
        model = timm_model(name, offline=offline)
    else:
        model, _ = open_clip_model(name, offline=offline)
    return identity_of(library, name, model.state_dict())


def timm_head(name: str, *, offline: bool = False) -> tuple[Head, tuple[str, ...] | None]:
    """The linear classifier of a pretrained model of timm, on the features of its encoder, and its class names.

    Raises:
        UserError: see :func:`mergerisk.models.sources.libraries.load`; the model has no single linear classifier
            of its features.
    """
    who = f"timm:{name}"
    model = timm_model(name, offline=offline)
    layer = model.get_classifier()
    if not isinstance(layer, nn.Linear):
        raise UserError(f"{who}: has no single linear classifier, but {type(layer).__name__}; {_PROBE}")
    weight = layer.weight.detach()
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    check_finite({"weight": weight, "bias": bias}, who)
    _, height, width = model.pretrained_cfg["input_size"]
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(image)
        features = timm_model(name, offline=offline, num_classes=0)(image)
        if features.shape[1:] != weight.shape[1:] or not _alike(F.linear(features, weight, bias), expected):
            raise UserError(f"{who}: its classifier reads something else than its features; {_PROBE}")
    labels = model.pretrained_cfg.get("label_names") or None
    return Head(weight, bias), named_classes(None if labels is None else dict(enumerate(labels)), len(weight))


def timm_head_in(spec: str, name: str, *, offline: bool = False) -> tuple[Head, tuple[str, ...] | None]:
    """The classifier in a checkpoint of a model of timm: a fine-tuned expert, say.

    Args:
        spec: file, folder or hub id of the checkpoint, with timm's names of tensors.
        name: timm's name of the model.
        offline: take what comes from the hub from the cache only.

    Raises:
        UserError: no such checkpoint, or none with a classifier.
    """
    layer = timm_model(name, offline=offline).pretrained_cfg.get("classifier")
    checkpoint = Checkpoint(fetch(spec, offline=offline))
    if not isinstance(layer, str) or f"{layer}.weight" not in checkpoint:
        raise UserError(f"{spec}: has no classifier of timm:{name}, no {f'{layer}.weight'!r}; {_PROBE}")
    weight = checkpoint[f"{layer}.weight"].float()
    stored = checkpoint[f"{layer}.bias"].float() if f"{layer}.bias" in checkpoint else torch.zeros(len(weight))
    if weight.ndim != 2 or stored.shape != weight.shape[:1]:
        raise UserError(f"{spec}: {layer!r} has shape {tuple(weight.shape)}, which is no linear layer; {_PROBE}")
    check_finite({f"{layer}.weight": weight, f"{layer}.bias": stored}, spec)
    return Head(weight, stored), None


def open_clip_head(
    name: str,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    offline: bool = False,
    device: torch.device | str = "cpu",
) -> Head:
    """OpenCLIP's zero-shot classifier; see :func:`mergerisk.models.sources.heads.zero_shot`.

    Raises:
        UserError: see :func:`mergerisk.models.sources.libraries.open_clip_model`; its tokenizer cannot be had.
    """
    who = f"open_clip:{name}"
    model, make_tokenizer = open_clip_model(name, offline=offline)
    model = model.requires_grad_(False).to(device)
    prompts = [template.replace("{}", class_name) for class_name in class_names for template in templates]
    try:
        tokenizer: Any = make_tokenizer()
        with torch.no_grad():
            parts = [
                model.encode_text(tokenizer(prompts[start : start + _BATCH]).to(device), normalize=True).cpu()
                for start in range(0, len(prompts), _BATCH)
            ]
    except Exception as error:  # the library's own code, and its downloads
        raise UserError(f"{who}: class names cannot be encoded: {described(error)}") from error
    directions = torch.cat(parts).unflatten(0, (len(class_names), len(templates))).mean(dim=1)
    weight = F.normalize(directions, dim=-1) * model.logit_scale.detach().exp().cpu()
    check_finite({"text tower": weight}, who)
    return Head(weight, torch.zeros(len(weight)), normalize=True)


_PROBE = "give its weights under heads: {from: files}, or train a linear probe"


def _alike(logits: torch.Tensor, expected: torch.Tensor) -> bool:
    largest = max(1.0, float(expected.abs().max()))
    return bool((logits - expected).abs().max() <= _CLOSE * largest)
