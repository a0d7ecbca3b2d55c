"""What alignment is, drawn: an image, the attacker's gradient on it, the merge's, and where the two agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.report.formatting import budget
from mergerisk.report.naming import holder
from mergerisk.report.pictures import png_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mergerisk.report.summary import GradientExample

_LARGEST = 64
"""Pixels at a side that gradients are drawn with: of more, single ones could not be told apart."""

_SATURATED = 0.98
"""The share of pixels that are drawn paler than full colour."""

_RISES, _FALLS, _AGREE, _OPPOSE = (214, 93, 40), (48, 124, 196), (16, 146, 104), (192, 76, 152)
"""Brighter raises the loss, darker does; both want the same, the opposite."""


@dataclass(frozen=True)
class Drawing:
    """One image, ready for the page; pictures are ``data:image/png`` addresses.

    Attributes:
        title: what it is an example of.
        panels: address, caption and what it shows, for who does not see it.
        caption: whose image it is, and what became of it.
    """

    title: str
    panels: tuple[tuple[str, str, str], ...]
    caption: str


def drawings(examples: Sequence[GradientExample]) -> tuple[Drawing, ...]:
    """Of every image four panels, the most aligned one first."""
    titles = ("most aligned", "least aligned")
    return tuple(
        _drawing(example, f"The {title} image: cosine {example.alignment:+.2f}".replace("-", "−"))
        for example, title in zip(examples, titles, strict=False)
    )


def _drawing(example: GradientExample, title: str) -> Drawing:
    one, other = (pooled(part) for part in (example.surrogate_gradient, example.target_gradient))
    whose = holder(example.surrogate)
    rises = "orange where brighter pixels raise the loss, blue where darker ones do"
    panels = (
        (png_address(example.clean), "image", f"The image, {example.label}"),
        (tinted(one, _RISES, _FALLS), "attacker’s gradient", f"Gradient of {whose}: {rises}"),
        (tinted(other, _RISES, _FALLS), "merge’s gradient", f"Gradient of {example.target}: {rises}"),
        (
            tinted(one * other, _AGREE, _OPPOSE),
            "where they agree",
            "Green where both want the same change, purple where they want opposite ones",
        ),
    )
    fooled = (
        "no attack at any budget fools the merge with it"
        if example.fooled_at is None
        else f"an attack fools the merge with it from {budget(example.fooled_at)} on"
    )
    return Drawing(
        title,
        panels,
        f"{example.label}, image {example.image} of {example.task}; attacks made on {whose}, on {example.target}: "
        f"{fooled}.",
    )


def pooled(gradient: NDArray[np.float32]) -> NDArray[np.float64]:
    """H × W × 3 → its sum over colours, averaged over squares until no side has more than 64 of them."""
    flat = gradient.astype(np.float64).sum(axis=2)
    step = -(-max(flat.shape) // _LARGEST)
    high, wide = (-(-side // step) for side in flat.shape)
    padded = np.full((high * step, wide * step), np.nan)
    padded[: flat.shape[0], : flat.shape[1]] = flat
    return np.asarray(np.nanmean(padded.reshape(high, step, wide, step), axis=(1, 3)))


def tinted(values: NDArray[np.float64], above: tuple[int, int, int], below: tuple[int, int, int]) -> str:
    """A PNG's address: one colour above 0, another below, the more opaque the larger: it lies on any ground."""
    most = float(np.quantile(np.abs(values), _SATURATED)) or float(np.abs(values).max()) or 1.0
    picture = np.empty((*values.shape, 4), dtype=np.uint8)
    picture[..., :3] = np.where((values > 0)[..., None], above, below)
    picture[..., 3] = np.rint(255 * np.clip(np.abs(values) / most, 0, 1))
    return png_address(picture)
