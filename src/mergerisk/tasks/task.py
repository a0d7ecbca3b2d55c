"""What a task is: labelled images in [0, 1], in three splits that share no image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError
from mergerisk.tasks.images import LazyImages, check_pixels
from mergerisk.tasks.outline import MORE_TRAINING

if TYPE_CHECKING:
    from mergerisk.tasks.arrays import Skipped
    from mergerisk.tasks.images import Images


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Attributes:
        images: float32, N × 3 × H × W, values in [0, 1]: a tensor, or, where there are many, images that are
            read when they are asked for.
        labels: int64, N, values in [0, number of classes).
    """

    images: Images
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images, {' × '.join(map(str, self.images.shape[1:]))})"

    def __getitem__(self, index: torch.Tensor | slice) -> Split:
        """Some of the images, as a tensor, and their labels."""
        return Split(self.images[index], self.labels[index])

    def subset(self, index: torch.Tensor | slice) -> Split:
        """Some of the images, unread if these are, and their labels."""
        images = self.images
        return Split(images.subset(index), self.labels[index]) if isinstance(images, LazyImages) else self[index]


@dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        name: how studies and results call it.
        class_names: one name per label.
        train: what heads and experts are trained on; may be empty.
        test: what clean accuracy is measured on and what is attacked.
        calibration: what data-driven merging methods read, without its labels. By default it shares no image
            with ``test``, so that a merge never sees what is attacked. May be empty.
        skipped: files that could not be read as images, and why.
        remarks: what its user must know of classes and splits, in sentences.

    Raises:
        UserError: fewer than two classes, no test images, a label or a pixel out of range.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    calibration: Split
    skipped: tuple[Skipped, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise UserError(
                f"task {self.name!r} has {len(self.class_names)} class; classification needs at least two"
            )
        for name in ("train", "test", "calibration"):
            _check_split(getattr(self, name), f"task {self.name!r}, {name} split", len(self.class_names))

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(getattr(self, name))} {name}" for name in ("train", "calibration", "test"))
        sides = " × ".join(map(str, self.test.images.shape[1:]))
        return f"Task({self.name!r}: {len(self.class_names)} classes; images: {counts}; {sides})"

    def training_split(self, what: str) -> Split:
        """``train``, for ``what``, which needs images to learn from.

        Raises:
            UserError: there are none.
        """
        if not len(self.train):
            raise UserError(f"task {self.name!r} has no training images, and {what} needs some; {MORE_TRAINING}")
        return self.train


def _check_split(split: Split, where: str, classes: int) -> None:
    images, labels = split.images, split.labels
    # Lazy images are float32 by construction.
    dtype = images.dtype if isinstance(images, torch.Tensor) else torch.float32
    if len(images.shape) != 4 or images.shape[1] != 3 or dtype != torch.float32:
        raise UserError(f"{where}: images must be float32, N × 3 × H × W, got {dtype}, {tuple(images.shape)}")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise UserError(f"{where}: labels must be int64, one per image, got {labels.dtype}, {tuple(labels.shape)}")
    if len(labels) == 0:
        if where.endswith("test split"):
            raise UserError(f"{where}: has no images")
        return
    check_pixels(images, where)
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UserError(
            f"{where}: labels must lie in 0 to {classes - 1}, found {int(labels.min())} to {int(labels.max())}"
        )


def select_balanced(labels: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Positions of ``count`` images, as evenly over the classes as they allow; sorted; all if fewer exist.

    A smaller count selects a subset of what a larger one selects with the same seed.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    rank_in_class = torch.empty_like(labels)
    for label in labels.unique():
        members = shuffled[labels[shuffled] == label]
        rank_in_class[members] = torch.arange(len(members))
    # Stable, so that within a rank the shuffle decides which classes come first.
    order = shuffled[torch.sort(rank_in_class[shuffled], stable=True).indices]
    return order[:count].sort().values


def select_unbalanced(
    labels: torch.Tensor, classes: int, minority: float, generator: torch.Generator
) -> torch.Tensor:
    """Positions of images of which one half of the classes, drawn, makes up a share; sorted. It is thinned, or,
    where it has less than that from the start, the other half is; within a half every class keeps the same share
    of its images, rounded down, and one at least.

    That is DUMB's axis of balance (Alecci et al. 2023, 10.1145/3607199.3607227: 50/50 to 20/80), which has two
    classes, for any number of them.

    Args:
        labels: int64, N.
        classes: how many there are; of an odd number the smaller half is the drawn one.
        minority: the share, above 0 and below 1.
        generator: of which classes, and of which of their images.
    """
    drawn = torch.randperm(classes, generator=generator)[: classes // 2]
    small = torch.isin(labels, drawn)
    few, many = int(small.sum()), int((~small).sum())
    ratio = minority / (1 - minority) * many / few if few and many else 1.0
    shuffled, left = torch.randperm(len(labels), generator=generator), []
    for label in range(classes):
        own = shuffled[labels[shuffled] == label]
        kept = ratio if label in drawn.tolist() else 1 / ratio
        count = int(len(own) * min(1.0, kept) + 1e-9)  # a share of whole images is not short of one by rounding
        left.append(own[: max(1, count)])
    return torch.cat(left).sort().values
