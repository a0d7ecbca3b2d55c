"""What merges are made from, and what they give: tensors by name, calibration images, the merged model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError
from mergerisk.models.core.classifier import Classifier

if TYPE_CHECKING:
    from torch import nn

    from mergerisk.models.core.classifier import Head
    from mergerisk.models.core.encoder import Encoder, State
    from mergerisk.tasks.images import Images

Tensors = Mapping[str, torch.Tensor]
"""Tensors by name: a state dict, or a checkpoint that reads a tensor when it is asked for."""


@dataclass(frozen=True)
class Calibration:
    """What a data-driven method may read of one task.

    Attributes:
        images: unlabelled, N × 3 × H × W in [0, 1].
        head: the task's frozen head.
    """

    images: Images
    head: Head

    def __repr__(self) -> str:
        return f"Calibration({len(self.images)} images, {self.head!r})"


@dataclass(frozen=True)
class Merged:
    """A merged model: one encoder or one per task, and what else belongs to single tasks.

    Attributes:
        shared: the encoder of all tasks; None if each task has its own.
        per_task: encoders of single tasks, where a method has them. They may be made when asked for.
        adapters: per task, features → features, applied before the head.
        coefficients: what a data-driven method learnt, for the record: by tensor (or ``all``), a value per expert.
        parts: what :meth:`MergingMethod.restore` makes the model from again.
    """

    shared: Encoder | None
    parts: State
    per_task: Mapping[str, Encoder] = field(default_factory=dict)
    adapters: Mapping[str, nn.Module] = field(default_factory=dict)
    coefficients: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        kind = "one encoder for all tasks" if self.shared is not None else "an encoder per task"
        own = {"encoders": self.per_task, "adapters": self.adapters}
        tasks = [f"{name} of its own for {', '.join(parts)}" for name, parts in own.items() if parts]
        return f"Merged({'; '.join([kind, *tasks])})"

    @property
    def encoder(self) -> Encoder:
        """The encoder that all tasks share.

        Raises:
            UserError: there is none.
        """
        if self.shared is None:
            raise UserError("this merge has one encoder per task; ask for encoder_for(task)")
        return self.shared

    def encoder_for(self, task: str) -> Encoder:
        """The encoder that serves ``task``.

        Raises:
            UserError: the merge has none for it.
        """
        if task in self.per_task:
            return self.per_task[task]
        if self.shared is None:
            raise UserError(f"this merge has no encoder for task {task!r}; it has: {', '.join(self.per_task)}")
        return self.shared

    def classifier(self, task: str, head: Head) -> Classifier:
        """The merged model as a classifier for ``task``."""
        return Classifier(self.encoder_for(task), head, self.adapters.get(task)).eval()


def below(prefix: str, parts: Tensors) -> State:
    """The parts whose names start with ``prefix``, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in parts.items() if name.startswith(prefix)}
