"""Experts: the base encoder fine-tuned on one task under its frozen head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from mergerisk.finetuning.descent import FineTuning, descend
from mergerisk.models.core.checks import precision_named
from mergerisk.models.core.classifier import Classifier
from mergerisk.randomness import drawing, generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.models.core.classifier import Head
    from mergerisk.models.core.encoder import Encoder
    from mergerisk.tasks.task import Task


def fine_tune(
    base: Encoder, head: Head, task: Task, *, recipe: FineTuning | None = None, seed: int = 0
) -> Encoder:
    """An expert: ``base`` fine-tuned on ``task.train`` to minimise cross-entropy under the frozen ``head``.

    It may be called anywhere, within ``torch.no_grad()`` and ``torch.inference_mode()`` too. A base that draws
    from PyTorch's global generator draws from ``seed``, and leaves that generator as it was.

    Raises:
        UserError: the head has other classes than the task, or has them in another order; the task has no training
            images, the base is of another precision than they are, or the training diverged (weights are no longer
            finite).
    """
    head.check_task(task)
    recipe = recipe or FineTuning()
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        drawing(seed, "fine_tune's base", task.name, device=base.mean.device),
    ):
        return _fine_tune(base, head, task, recipe, seed)


def _fine_tune(base: Encoder, head: Head, task: Task, recipe: FineTuning, seed: int) -> Encoder:
    train = task.training_split("fine-tuning")
    draws = generator(seed, "fine_tune", task.name)
    differentiate = under_head(head, task, base.mean.device)
    return descend(base, {task.name: len(train)}, recipe, draws, differentiate, f"fine-tuning on {task.name!r}")


def under_head(
    head: Head, task: Task, device: torch.device
) -> Callable[[Encoder], Callable[[int, str, torch.Tensor], None]]:
    """What :func:`~mergerisk.finetuning.descent.descend` asks for, of the cross-entropy of a task's training
    images under its frozen head."""
    train = task.training_split("fine-tuning")

    def differentiate(expert: Encoder) -> Callable[[int, str, torch.Tensor], None]:
        classifier = Classifier(expert, head)

        def backward(_epoch: int, _task: str, rows: torch.Tensor) -> None:
            with precision_named(expert, train.images[:0], "the base"):
                logits = classifier(train.images[rows].to(device))
            F.cross_entropy(logits, train.labels[rows].to(device)).backward()

        return backward

    return differentiate
