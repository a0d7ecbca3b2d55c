"""What is known of a task before its images are decoded."""

from __future__ import annotations

from dataclasses import dataclass

MORE_TRAINING = "add a train split, raise limit.train, or lower test_share"
"""What to do about a task without training images."""


@dataclass(frozen=True)
class Remarks:
    """What must be said of a task.

    Attributes:
        sentences: on its classes and splits.
        trained_on: a split that others train on, and that test images are drawn from all the same; empty for none.
    """

    sentences: tuple[str, ...] = ()
    trained_on: str = ""


@dataclass(frozen=True)
class Outline:
    """What is known of a task before its images are decoded.

    Attributes:
        class_names: one per label.
        train: training images, if all can be read.
        calibration: calibration images.
        test: test images.
        image_bytes: of one image as float32.
        stored_bytes: of all images as they are kept.
        remarks: what must be said of the task.
    """

    class_names: tuple[str, ...]
    train: int
    calibration: int
    test: int
    image_bytes: int
    stored_bytes: int
    remarks: Remarks = Remarks()
