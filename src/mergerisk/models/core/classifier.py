"""Heads, adapters and the classifier they make together with an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from mergerisk.errors import UserError
from mergerisk.tasks.class_names import Classes
from mergerisk.tasks.images import check_pixels
from mergerisk.tasks.matching import matching_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.models.core.encoder import Encoder
    from mergerisk.tasks.task import Task


_ANOTHER = "make one with mergerisk.linear_probe(base, task)"
"""What to do without a head that has other classes."""

_NO_NOISE = 8.0
"""A pixel beyond this is of no picture in [0, 1], whatever was added to it."""

_SHORTEST = 1e-12
"""Features shorter than this are divided by it instead of by their length."""


class Head(nn.Module):
    """A frozen linear layer from features to logits; every encoder of the same width can carry it.

    Args:
        weight: classes × width.
        bias: classes.
        normalize: whether features are first divided by their Euclidean length, as CLIP's are. Features of length
            zero stay zero, and their gradient is finite.
        class_names: one per class, in order; None where nobody said.

    Raises:
        UserError: there are not as many names as classes.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        *,
        normalize: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if class_names is not None and len(class_names) != len(weight):
            raise UserError(f"a head with {len(weight)} classes: {len(class_names)} class names are given")
        self.normalize = normalize
        self.class_names = None if class_names is None else tuple(class_names)
        with torch.inference_mode(False):  # what carries the head may be attacked later
            self.register_buffer("weight", weight.detach().clone())
            self.register_buffer("bias", bias.detach().clone())

    def extra_repr(self) -> str:
        classes, width = self.weight.shape
        return f"{classes} classes, {width} features{', normalized' if self.normalize else ''}"

    def for_classes(self, class_names: Sequence[str]) -> Head:
        """The same head with its classes in this order, matched by name.

        What is one name says :class:`mergerisk.tasks.class_names.Classes`. A head that names no classes must have
        as many, and is taken to have them in this order.

        Raises:
            UserError: the classes are not the same, or it cannot be told which is which.
        """
        classes = Classes(self.class_names, len(self.weight), "the head")
        rows = matching_rows(classes, class_names, "head", "the task", _ANOTHER)
        return Head(self.weight[rows], self.bias[rows], normalize=self.normalize, class_names=class_names)

    def named(self, class_names: Sequence[str]) -> Head:
        """The same head with these names for its classes, as they stand.

        Raises:
            UserError: there are not as many names as classes.
        """
        return Head(self.weight, self.bias, normalize=self.normalize, class_names=class_names)

    def check_task(self, task: Task) -> None:
        """See that the head's classes are the task's, label by label.

        Raises:
            UserError: they are not.
        """
        classes = Classes(self.class_names, len(self.weight), "the head")
        remedy = f"{_ANOTHER}; if they are the same classes under other names, head.named(task.class_names)"
        rows = matching_rows(classes, task.class_names, "head", f"task {task.name!r}", remedy)
        if rows != list(range(len(rows))):
            raise UserError(
                f"head: its classes are those of task {task.name!r} in another order; put them into the task's "
                "with head.for_classes(task.class_names)"
            )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features, N × width → logits, N × classes."""
        if self.normalize:
            # The usual 1e-12 is zero in half precision.
            features = F.normalize(features, dim=-1, eps=max(_SHORTEST, torch.finfo(features.dtype).tiny))
        # `to` costs nothing where they agree, and lets one head serve encoders on any device.
        return F.linear(features, self.weight.to(features), self.bias.to(features))


class Classifier(nn.Module):
    """Pixels in [0, 1] → logits: encoder, then an adapter if the merge has one, then the task's head.

    Attributes:
        class_names: the head's.

    Raises:
        UserError: the head is for encoders of another width.
    """

    def __init__(self, encoder: Encoder, head: Head, adapter: nn.Module | None = None) -> None:
        super().__init__()
        if head.weight.shape[1] != encoder.width:
            raise UserError(
                f"the head takes {head.weight.shape[1]} features, the encoder gives {encoder.width}; a head "
                "belongs to encoders of one base"
            )
        self.class_names = head.class_names
        self.encoder = encoder
        self.adapter = adapter
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N × 3 × H × W in [0, 1] → logits, N × classes.

        Raises:
            UserError: the images are 8-bit ones. A little out of range they may be: attacks look ahead, and
                defences add noise.
        """
        if not images.requires_grad and images.numel() and float(images.max()) > _NO_NOISE:
            check_pixels(images)
        features = self.encoder(images)
        if self.adapter is not None:
            features = self.adapter(features)
        logits: torch.Tensor = self.head(features)
        return logits
