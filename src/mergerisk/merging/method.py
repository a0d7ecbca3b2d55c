"""The contract of a merging method: base + experts (+ unlabelled images) → merged model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch

from mergerisk.errors import UserError
from mergerisk.models.checks import check_finite, check_same_architecture
from mergerisk.models.classifier import Classifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from mergerisk.models.classifier import Head
    from mergerisk.models.encoder import Encoder, State


@dataclass(frozen=True)
class Calibration:
    """What a data-driven method may read of one task.

    Attributes:
        images: unlabelled, N × 3 × H × W in [0, 1].
        head: the task's frozen head.
    """

    images: torch.Tensor
    head: Head


@dataclass(frozen=True)
class Merged:
    """A merged model: one encoder, and the parts that belong to single tasks where a method has them.

    Attributes:
        encoder: shared by all tasks.
        adapters: per task, features → features, applied before the head.
        coefficients: what a data-driven method learnt, by name, for the record.
    """

    encoder: Encoder
    adapters: Mapping[str, nn.Module] = field(default_factory=dict)
    coefficients: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def classifier(self, task: str, head: Head) -> Classifier:
        """The merged model as a classifier for ``task``."""
        return Classifier(self.encoder, head, self.adapters.get(task)).eval()


class MergingMethod(ABC):
    """A method with its hyper-parameters; implementations are frozen dataclasses."""

    needs_calibration: ClassVar[bool] = False
    """Whether :meth:`merge` reads images."""

    @abstractmethod
    def merge(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        *,
        calibration: Mapping[str, Calibration] | None = None,
        seed: int = 0,
    ) -> Merged:
        """Merge experts by task name.

        Args:
            base: the pretrained encoder all experts come from.
            experts: task name → expert.
            calibration: task name → unlabelled images and head; read only if ``needs_calibration``.
            seed: of everything random in the method.

        Raises:
            UserError: no experts, experts of another architecture, NaN weights, or missing calibration.
        """


class StateMerging(MergingMethod):
    """A method that needs no data: a function of state dicts."""

    @abstractmethod
    def merge_states(self, base: State, experts: Sequence[State]) -> State:
        """Merge states of one architecture, already checked. Integer tensors come out as in ``base``."""

    def merge(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        *,
        calibration: Mapping[str, Calibration] | None = None,  # noqa: ARG002  # part of the contract
        seed: int = 0,  # noqa: ARG002
    ) -> Merged:
        states = expert_states(base, experts)
        with torch.inference_mode(False), torch.no_grad():
            return Merged(base.with_state(self.merge_states(base.state(), list(states.values()))))


def expert_states(base: Encoder, experts: Mapping[str, Encoder]) -> dict[str, State]:
    """The experts' states, checked against the base.

    Raises:
        UserError: see :meth:`MergingMethod.merge`.
    """
    states = {task: expert.state() for task, expert in experts.items()}
    check_states(base.state(), states)
    return states


def check_states(base: State, states: Mapping[str, State]) -> None:
    """Names, shapes, kinds and finiteness of what is to be merged.

    Raises:
        UserError: no states, or one does not fit the base.
    """
    if not states:
        raise UserError("nothing to merge: give at least one expert")
    check_finite(base, "base")
    for task, state in states.items():
        check_same_architecture(base, state, f"expert {task!r}")
        check_finite(state, f"expert {task!r}")


def check_calibration(
    experts: Mapping[str, Encoder], calibration: Mapping[str, Calibration] | None, method: str
) -> Mapping[str, Calibration]:
    """Calibration for every expert.

    Raises:
        UserError: it is missing for a task, or has no images.
    """
    if calibration is None:
        raise UserError(f"{method} reads unlabelled images: pass calibration={{task: Calibration(images, head)}}")
    for task in experts:
        if task not in calibration:
            raise UserError(f"{method}: calibration for task {task!r} is missing")
        if len(calibration[task].images) == 0:
            raise UserError(f"{method}: calibration for task {task!r} has no images")
    return calibration
