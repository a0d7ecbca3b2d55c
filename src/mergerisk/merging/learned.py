"""What methods share that learn from unlabelled images: their material in hand, and one way back to a model."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch

from mergerisk.merging.averaging import WeightAveraging
from mergerisk.merging.experts import states_of
from mergerisk.merging.material import Merged
from mergerisk.merging.method import EncoderMerging
from mergerisk.models.core.tied import tied_names
from mergerisk.randomness import generator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.merging.material import Calibration, Tensors
    from mergerisk.models.core.encoder import Encoder, State


@dataclass(frozen=True)
class Lesson:
    """What a method learns from.

    Attributes:
        base: the pretrained encoder.
        experts: task → encoder; they may be read from disk at every access.
        calibration: task → unlabelled images and head.
        seed: the merge's.
        stream: whose random numbers are drawn; other methods draw others.
    """

    base: Encoder
    experts: Mapping[str, Encoder]
    calibration: Mapping[str, Calibration]
    seed: int
    stream: str

    @cached_property
    def pretrained(self) -> State:
        """θ0."""
        return self.base.state()

    @cached_property
    def tied(self) -> Mapping[str, str]:
        """Further names of tied tensors → the name that counts."""
        return tied_names(self.pretrained)

    @cached_property
    def states(self) -> Mapping[str, Tensors]:
        """Task → θt."""
        return states_of(self.experts)

    def averages(self, names: Iterable[str]) -> State:
        """Some tensors' means over the experts."""
        base = {name: self.pretrained[name] for name in names}
        return WeightAveraging().merge_states(base, list(self.states.values()))

    def draws(self, *names: str) -> torch.Generator:
        """Random numbers for one use."""
        return generator(self.seed, self.stream, *names)

    def chosen_images(self, task: str, most: int) -> torch.Tensor:
        """Images of a task chosen at random; all of them, in another order, if there are no more than ``most``."""
        images = self.calibration[task].images
        return images[torch.randperm(len(images), generator=self.draws(task))[:most]]

    def merged(self, tensors: Tensors, coefficients: Mapping[str, torch.Tensor] | None = None) -> Merged:
        """The model with these tensors, each given under the name that counts."""
        parts = {name: tensors[self.tied.get(name, name)] for name in self.pretrained}
        return Merged(self.base.with_state(parts), parts, coefficients=coefficients or {})


class LearnedMerging(EncoderMerging):
    """A method that reads images: :meth:`learn` is all of it."""

    needs_calibration: ClassVar[bool] = True
    stream: ClassVar[str]
    """Names its random numbers."""

    def make(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        calibration: Mapping[str, Calibration],
        seed: int,
    ) -> Merged:
        return self.learn(Lesson(base, experts, calibration, seed, self.stream))

    @abstractmethod
    def learn(self, lesson: Lesson) -> Merged:
        """The method itself, on material that :meth:`merge` has checked."""
