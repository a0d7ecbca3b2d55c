"""Gradients that were taken before: attacks that start at the images ask for the same first ones."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import torch

from mergerisk.randomness import generator_states

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    Oracle = Callable[[torch.Tensor], torch.Tensor]

_FIRST = 2
"""How many of an attack's gradients are looked up and kept: momentum changes nothing before the second, so that
I-FGSM and MI-FGSM share it too; later on all go ways of their own."""


@dataclass(frozen=True)
class _Taken:
    """A gradient, and all that it depends on besides the classifier."""

    what: Hashable
    points: torch.Tensor
    classes: torch.Tensor
    gradient: torch.Tensor

    @property
    def nbytes(self) -> int:
        return self.points.nbytes + self.gradient.nbytes

    def answers(self, what: Hashable, points: torch.Tensor, classes: torch.Tensor) -> bool:
        """Whether it is the gradient of just that: of the same pixels, to the bit, in the same batch."""
        return (
            self.what == what
            and self.points.dtype == points.dtype
            and torch.equal(self.points, points)
            and torch.equal(self.classes, classes)
        )


class KnownGradients:
    """The first gradients of attacks on one classifier, the last used ones, as many as fit.

    What comes is to the byte what is computed without: it is looked up by the pixels of the whole batch.

    Args:
        room: bytes that they may take.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[int, _Taken] = OrderedDict()
        self._numbers = count()

    def of(self, oracle: Oracle, what: Hashable, classes: torch.Tensor) -> Oracle:
        """The same as ``oracle``, from memory where it was asked before.

        Args:
            oracle: images, N × C × H × W → gradients of the classifier.
            what: tells its loss from others.
            classes: N, of the images.
        """
        asked = count()

        def gradient(points: torch.Tensor) -> torch.Tensor:
            if next(asked) >= _FIRST:
                return oracle(points)
            for number, taken in self._kept.items():
                if taken.answers(what, points, classes):
                    self._kept.move_to_end(number)
                    return taken.gradient.clone()
            before = generator_states(points.device)
            found = oracle(points)
            # A classifier that draws says something else the next time, and what it draws later depends on it.
            if all(map(torch.equal, before, generator_states(points.device))):
                self._keep(_Taken(what, points.detach().clone(), classes.clone(), found.clone()))
            return found

        return gradient

    def _keep(self, taken: _Taken) -> None:
        if taken.nbytes > self._room:
            return
        self._kept[next(self._numbers)] = taken
        while sum(one.nbytes for one in self._kept.values()) > self._room:
            self._kept.popitem(last=False)
