"""Weights that are somewhere else for a moment."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def moved(weights: Sequence[torch.nn.Parameter], shifts: Sequence[torch.Tensor | None]) -> Iterator[None]:
    """Within it, each weight is its shift away; then it is what it was, to the bit. None moves nothing."""
    before = [
        None if shift is None else weight.detach().clone() for weight, shift in zip(weights, shifts, strict=True)
    ]
    with torch.no_grad():
        for weight, shift in zip(weights, shifts, strict=True):
            if shift is not None:
                weight.add_(shift)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, kept in zip(weights, before, strict=True):
                if kept is not None:
                    weight.copy_(kept)
