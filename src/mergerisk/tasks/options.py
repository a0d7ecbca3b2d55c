"""What may be said of a task besides where it is."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from mergerisk.validation import ImageSize, hyperparameters


@hyperparameters
class Limits:
    """At most so many images of each split; None for all."""

    train: NonNegativeInt | None = None
    test: PositiveInt | None = None
    calibration: NonNegativeInt | None = None


@hyperparameters
class NamedOptions:
    """Options of every task.

    Attributes:
        name: what results call it.
    """

    name: Annotated[str, Field(min_length=1)] | None = None

    def said(self) -> dict[str, Any]:
        """What differs from the defaults, as plain data."""
        default = type(self)()
        return {
            field.name: _plain(getattr(self, field.name))
            for field in fields(self)
            if getattr(self, field.name) != getattr(default, field.name)
        }

    def content(self) -> dict[str, Any]:
        """What differs from the defaults and decides the task's content."""
        return {name: value for name, value in self.said().items() if name not in {"name", "offline"}}


@hyperparameters
class FileOptions(NamedOptions):
    """Options of every task made of files.

    Attributes:
        classes: the classes to keep, by name; their order is that of the labels 0, 1, …
        limit: images of each split, at most; chosen class-balanced before any is decoded.
        size: side of the square that images are brought to, in pixels; by default their own size if all have one,
            else 224.
        seed: of what is chosen at random: the limit, the held-out calibration images, the share of test images.
    """

    classes: tuple[str, ...] | None = None
    limit: Limits = Limits()
    size: ImageSize | None = None
    seed: NonNegativeInt = 0

    @field_validator("classes")
    @classmethod
    def _several(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len(set(classes)) < max(2, len(classes)):
            raise ValueError("name at least two classes, each once")
        return classes


@hyperparameters
class FolderOptions(FileOptions):
    """Options of a folder of images.

    Attributes:
        test_share: of each class's images, where the folder does not tell test from training images; 1 for all.
        train_split: by default the one that is called so; see :mod:`mergerisk.tasks.splits`.
        test_split: by default the one that is called so, else the validation split.
        calibration_split: by default a folder's validation split beside its test split; else none: calibration
            images are held out of the training split.
    """

    test_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    train_split: str | None = None
    test_split: str | None = None
    calibration_split: str | None = None


@hyperparameters
class ParquetOptions(FolderOptions):
    """Options of Parquet files in the layout of Hugging Face's datasets.

    Attributes:
        image_column: by default the one column that holds images.
        label_column: by default the one column of class labels, or that called ``label``.
        config: which of the data set's configurations, where there are several.
    """

    image_column: str | None = None
    label_column: str | None = None
    config: str | None = None


@hyperparameters
class HubOptions(ParquetOptions):
    """Options of a dataset of the hub.

    Attributes:
        offline: use what is downloaded only.
    """

    offline: bool = False


def _plain(value: Any) -> Any:
    if isinstance(value, Limits):
        return {name: count for name, count in asdict(value).items() if count is not None}
    return list(value) if isinstance(value, tuple) else value
