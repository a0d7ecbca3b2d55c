"""Example strips: pictures as PNG data addresses, with the perturbation made visible."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mergerisk.report.formatting import budget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from mergerisk.report.summary import Example

MAX_BYTES = 2_500_000
"""Room for pictures in one report, in characters of base64."""


@dataclass(frozen=True)
class Strip:
    """One example, ready for the page. The three pictures are ``data:image/png`` addresses."""

    task: str
    attack: str
    surrogate: str
    target: str
    budget: str
    image: int
    clean: str
    perturbation: str
    adversarial: str
    factor: int
    label: str
    surrogate_says: str
    target_says: str
    surrogate_fooled: bool
    target_fooled: bool


def amplification(epsilon: float) -> int:
    """How much to amplify a perturbation so that ±ε spans the range from black to white around mid grey."""
    return max(1, math.floor(0.5 / epsilon)) if epsilon > 0 and math.isfinite(epsilon) else 1


def amplified(perturbation: NDArray[np.float32], factor: int) -> NDArray[np.uint8]:
    """H×W×3 uint8: mid grey where nothing changed, clipped where the amplified change exceeds the range."""
    picture = 0.5 + factor * np.nan_to_num(perturbation.astype(np.float64))
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def png_address(picture: NDArray[np.uint8]) -> str:
    """H×W×3 uint8, or ×4 with an opacity, as a ``data:image/png;base64,…`` address, lossless."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def strips(examples: Iterable[Example], room: int = MAX_BYTES) -> tuple[tuple[Strip, ...], int]:
    """The strips that fit into ``room`` characters, in order, and how many did not fit."""
    kept: list[Strip] = []
    left_out = 0
    for example in examples:
        factor = amplification(example.epsilon)
        addresses = [
            png_address(picture)
            for picture in (example.clean, amplified(example.perturbation, factor), example.adversarial)
        ]
        size = sum(len(address) for address in addresses)
        if size > room:
            left_out += 1
            continue
        room -= size
        kept.append(
            Strip(
                task=example.task,
                attack=example.attack,
                surrogate=example.surrogate,
                target=example.target,
                budget=budget(example.epsilon),
                image=example.image,
                clean=addresses[0],
                perturbation=addresses[1],
                adversarial=addresses[2],
                factor=factor,
                label=example.label,
                surrogate_says=example.surrogate_says,
                target_says=example.target_says,
                surrogate_fooled=example.surrogate_says != example.label,
                target_fooled=example.target_says != example.label,
            )
        )
    return tuple(kept), left_out
