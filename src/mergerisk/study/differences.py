"""Adversarial images as what was changed of the images that they were crafted from, exactly, in few bits.

Attacks that step by the sign of a gradient reach few different changes: each a multiple of the step, or what is
left of it in ball and box. So an adversarial pixel is kept as the number of its change in a list. Sums of floats
depend on their order, so the list also says by how many float32 numbers, counted in the order of their bits, the
pixel is off the clean one plus the change. Clean pixels are the task's. Where changes are many, as in L2 balls,
there is no list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

CHANGE = "change"
"""The array of numbers, which is kept compressed."""
_STEPS, _DIGITS = "change_steps", "change_digits"

_GRID = 2.0**17
"""Changes that are this near to each other, in parts of the range of a pixel, are one, up to the order of sums."""
_ZERO = 2.0**-18
"""A pixel below this is zero: the box left it there."""
_PORTION = 2**22
"""Pixels at a time."""
_BITS = 34
"""Below a change's number there is room for so many of what it is off by."""


def encoded(adversarial: NDArray[np.float32], images: NDArray[np.float32]) -> dict[str, NDArray[Any]] | None:
    """Adversarial images as changes of ``images``; None where they have too many different ones.

    Args:
        adversarial: iterates × N × …, in [0, 1].
        images: N × …, in [0, 1].

    Returns:
        ``change``, unsigned numbers in the shape of ``adversarial``; and by number, ``change_steps``, added in
        float64, and ``change_digits``, by how many float32 numbers the rounded sum is off.
    """
    import pandas as pd

    found = _steps(adversarial, images)
    if found is None:
        return None
    lowest, step_at, steps = found
    numbers: dict[int, int] = {}
    change = np.empty(adversarial.size, dtype=np.uint16)
    done = 0
    for pixels, clean in _portions(adversarial, images):
        step = step_at[_places(pixels.astype(np.float64) - clean) - lowest]
        off = pixels.view(np.int32).astype(np.int64) - _summed(clean, steps[step]).view(np.int32)
        # Both in one integer: a difference of two int32 takes 33 bits.
        where, pairs = pd.factorize(step * 2**_BITS + off + 2 ** (_BITS - 1))
        own = np.array([numbers.setdefault(int(pair), len(numbers)) for pair in pairs])
        if len(numbers) > np.iinfo(change.dtype).max:
            return None
        change[done : done + len(pixels)] = own[where]
        done += len(pixels)
    step, off = np.divmod(np.array(list(numbers), dtype=np.int64), 2**_BITS)
    kind = np.uint8 if len(numbers) <= 256 else np.uint16
    return {
        CHANGE: change.astype(kind).reshape(adversarial.shape),
        _STEPS: steps[step],
        _DIGITS: off - 2 ** (_BITS - 1),
    }


def decoded(
    arrays: Mapping[str, NDArray[Any]], images: NDArray[np.float32], only: slice = slice(None)
) -> NDArray[np.float32]:
    """The inverse of :func:`encoded`, to the bit.

    Args:
        arrays: what it gave; or ``adversarial``, where that was kept as it is.
        images: N × …, of those images that are wanted.
        only: which these are.

    Returns:
        Iterates × N × …
    """
    if CHANGE not in arrays:
        found: NDArray[np.float32] = arrays["adversarial"][:, only]
        return found
    change, steps, digits = arrays[CHANGE][:, only], arrays[_STEPS], arrays[_DIGITS]
    found = np.empty(change.shape, dtype=np.float32)
    for iterate, numbers in zip(found, change, strict=True):
        summed = _summed(images, steps[numbers])
        iterate[...] = (summed.view(np.int32) + digits[numbers]).astype(np.int32).view(np.float32)
    return found


def crafted_shape(manifest: Mapping[str, Any]) -> list[int]:
    """Iterates × images × …, of a crafted set in a store, from its manifest."""
    shapes = manifest["shapes"]
    found: list[int] = shapes[CHANGE] if CHANGE in shapes else shapes["adversarial"]
    return found


def _steps(
    adversarial: NDArray[np.float32], images: NDArray[np.float32]
) -> tuple[int, NDArray[np.int64], NDArray[np.float64]] | None:
    """The lowest place on the grid; from it on, the number of the change at every place; and the changes, each the
    mean of what is near it. None where they run into each other, or there are no pixels."""
    if not adversarial.size:
        return None
    reach = round(_GRID) + 1
    counts, totals = np.zeros(2 * reach + 1, dtype=np.int64), np.zeros(2 * reach + 1)
    for pixels, clean in _portions(adversarial, images):
        differences = pixels.astype(np.float64) - clean
        places = _places(differences) + reach
        counts += np.bincount(places, minlength=len(counts))
        totals += np.bincount(places, differences, minlength=len(counts))
    met = np.flatnonzero(counts)
    starts = np.flatnonzero(np.diff(met, prepend=met[0] - 2) > 1)
    ends = np.append(starts[1:], len(met)) - 1
    if (met[ends] - met[starts]).max() > 1:  # one change may lie on the edge of two places, and no more
        return None
    step_at = np.zeros(met[-1] - met[0] + 1, dtype=np.int64)
    step_at[met - met[0]] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(met))))
    steps = np.add.reduceat(totals[met], starts) / np.add.reduceat(counts[met], starts)
    return int(met[0]) - reach, step_at, steps


def _places(differences: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(differences * _GRID).astype(np.int64)


def _summed(clean: NDArray[np.float32], steps: NDArray[np.float64]) -> NDArray[np.float32]:
    """Clean pixels and their changes, rounded once, in the box."""
    total = clean + steps
    total[total < _ZERO] = 0.0
    return np.minimum(total, 1.0).astype(np.float32)


def _portions(
    adversarial: NDArray[np.float32], images: NDArray[np.float32]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Pixels, flat, and the clean ones at their places."""
    clean = np.ascontiguousarray(images).reshape(-1)
    for iterate in adversarial:
        flat = np.ascontiguousarray(iterate).reshape(-1)
        for start in range(0, len(flat), _PORTION):
            yield flat[start : start + _PORTION], clean[start : start + _PORTION]
