"""Seeds for single uses of a seed, and NumPy's numbers from them; PyTorch's are in :mod:`mergerisk.randomness`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one use of ``seed``; different names give unrelated seeds."""
    return _bits(seed, *names) >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """NumPy's generator for one use of ``seed``; different names give unrelated numbers."""
    import numpy as np

    return np.random.default_rng(_bits(seed, *names))


def _bits(seed: int, *names: str | int) -> int:
    """64 bits."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
