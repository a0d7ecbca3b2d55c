"""Which image is which, for defenses that draw at random: a service is shown pixels and no index."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mergerisk.defenses.inputs import as_bytes
from mergerisk.randomness import ImageRandom

if TYPE_CHECKING:
    import torch


def content_random(seed: int, stream: str, images: torch.Tensor) -> ImageRandom:
    """Random numbers that belong to (seed, stream, what the image shows, in bytes).

    The same picture draws the same at every call and in any batch; one that differs in a byte draws anew. So an
    answer repeats, and yet whoever does not know the seed cannot tell what will be drawn for a picture.

    Args:
        seed: the defender's secret.
        stream: what the numbers are for.
        images: N × C × H × W in [0, 1].
    """
    rows = as_bytes(images).flatten(1).cpu().numpy()
    digests = [hashlib.blake2b(row, digest_size=8).digest() for row in rows]
    return ImageRandom(seed, stream, [int.from_bytes(digest) for digest in digests])
