"""What attacks and whoever else differentiates a classifier are given: checked before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError
from mergerisk.memory import fitting, graph_bytes
from mergerisk.models.core.checks import count_classes
from mergerisk.tasks.images import check_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    Labels = torch.Tensor | Sequence[int]
    """Whole numbers, one per image: a tensor or array of any integer type, or a list."""


def check_images(images: torch.Tensor) -> torch.Tensor:
    """The images, without the graph they may come from."""
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or not images.is_floating_point():
        found = (
            f"{images.dtype}, {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
        )
        raise UserError(f"images must be a floating tensor, N × C × H × W, got {found}")
    check_pixels(images)
    return usable(images.detach())


def check_indices(indices: Sequence[int] | torch.Tensor | None, count: int) -> list[int]:
    """The images' identities."""
    identities = list(range(count)) if indices is None else [int(index) for index in indices]
    if len(identities) != count:
        raise UserError(f"indices must name each of the {count} images, got {len(identities)}")
    return identities


def check_labels(name: str, labels: Labels, images: torch.Tensor) -> torch.Tensor:
    """The labels as int64, where the images are."""
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name} must be integers, one per image, got {type(labels).__name__}") from error
    whole = not found.is_floating_point() and not found.is_complex()
    if found.shape != (len(images),) or not (whole or found.numel() == 0):
        raise UserError(
            f"{name} must be integers, one per image, got {found.dtype}, {tuple(found.shape)} "
            f"for {len(images)} images"
        )
    return usable(found.to(images.device, torch.int64))


def usable(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor; or, of one made inside ``torch.inference_mode()``, which autograd refuses, a copy."""
    return tensor.clone() if tensor.is_inference() else tensor


def first_look(
    classifier: nn.Module, image: torch.Tensor, labels: torch.Tensor, who: str = "the classifier"
) -> tuple[int, int]:
    """What one image tells before any of the work is done: the number of classes, and how many images at a time
    fit into memory.

    Raises:
        UserError: what ``who`` says is no logits, or not of all the labels.
    """
    seen: list[object] = []
    leaf = image.detach().requires_grad_()
    bytes_per_image = graph_bytes(lambda: seen.append(classifier(leaf)))
    classes = count_classes(seen[0], who)
    if bool((labels < 0).any()) or bool((labels >= classes).any()):
        raise UserError(
            f"labels must lie in 0 … {classes - 1}, as {who} has {classes} classes; "
            f"found {int(labels.min())} to {int(labels.max())}"
        )
    return classes, fitting(bytes_per_image, image.device)
