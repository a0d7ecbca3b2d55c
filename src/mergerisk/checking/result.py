"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.1
"""The difference from which on two outputs are not the same.

Resizing in bytes, as libraries do, and in floats, as here, differ by rounding alone: on a ViT-Ti/16 at 224 px, by
at most 6 % of its logits for images of 32 px, 3 to 5 % for 64 px; another filter (bilinear for bicubic) makes 6 to
17 % in the median.
"""


@dataclass(frozen=True)
class Compared:
    """One of mergerisk's ways to a model beside its library's.

    Attributes:
        name: ``attack`` or ``study``.
        images: how many were compared.
        agreeing: of these, with the same prediction; of features, with a difference within the tolerance.
        agreement: their share, with the ends of Wilson's 95 % interval.
        differing: how many differ by more than the tolerance.
        accuracy: share of correct predictions; None without labels.
        largest: the largest difference of a single logit, or feature.
        steps: mean difference that arises at each step, of the images that differ most; empty where none differs.
    """

    name: str
    images: int
    agreeing: int
    agreement: tuple[float, float, float]
    differing: int
    accuracy: float | None
    largest: float
    steps: dict[str, float]


@dataclass(frozen=True)
class Check:
    """What a model says in its own library's way, and what mergerisk has it say.

    Attributes:
        model: its name.
        library: its own way, in words.
        logits: whether predictions were compared; features otherwise.
        tolerance: the difference that counts.
        accuracy: of the library's way; None without labels.
        readings: mergerisk's ways.
        images: one row per image: ``file``, ``label``, ``own`` and ``own_probability``; and of each reading its
            prediction under its name, ``…_probability``, ``…_difference`` and ``…_differs``. Classes are names
            where there are any. Of features there are no predictions.
        settings: one row per setting; a column for the library and one per reading.
        reasons: why they differ, or why both are wrong, the likeliest first.
        remarks: what was assumed, left out, or could not be compared.
    """

    model: str
    library: str
    logits: bool
    tolerance: float
    accuracy: float | None
    readings: tuple[Compared, ...]
    images: pd.DataFrame
    settings: pd.DataFrame
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether no image differs by more than the tolerance, however mergerisk loads the model."""
        return not any(reading.differing for reading in self.readings)

    def to_dict(self) -> dict[str, Any]:
        """The same in types that JSON has."""
        plain = self.images.astype(object).where(self.images.notna(), None)
        return {
            "schema_version": 1,
            "model": self.model,
            "library": self.library,
            "compared": "predictions" if self.logits else "features",
            "agrees": self.agrees,
            "tolerance": self.tolerance,
            "own_accuracy": self.accuracy,
            "readings": [
                {
                    "name": item.name,
                    "images": item.images,
                    "agreeing": item.agreeing,
                    "agreement": dict(zip(("share", "low", "high"), item.agreement, strict=True)),
                    "differing": item.differing,
                    "accuracy": item.accuracy,
                    "largest_difference": item.largest,
                    "steps": {step: None if np.isnan(size) else size for step, size in item.steps.items()},
                }
                for item in self.readings
            ],
            "settings": self.settings.to_dict("records"),
            "reasons": list(self.reasons),
            "remarks": list(self.remarks),
            "images": plain.to_dict("records"),
        }
