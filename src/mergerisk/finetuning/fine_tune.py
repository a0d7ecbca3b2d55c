"""Experts: the base encoder fine-tuned on one task under its frozen head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from mergerisk.errors import UserError
from mergerisk.models.core.checks import precision_named
from mergerisk.models.core.classifier import Classifier
from mergerisk.randomness import drawing, generator
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from mergerisk.models.core.classifier import Head
    from mergerisk.models.core.encoder import Encoder
    from mergerisk.tasks.task import Task


@hyperparameters
class FineTuning:
    """How an expert is trained: AdamW, a linear warm-up over the first tenth, then a cosine to zero."""

    epochs: PositiveInt = 8
    learning_rate: PositiveFloat = 4e-4
    batch_size: PositiveInt = 64
    weight_decay: NonNegativeFloat = 0.01


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
    device = base.mean.device
    copies = {name: tensor.clone() for name, tensor in base.state().items()}
    expert = base.with_state(copies).requires_grad_(True)
    classifier = Classifier(expert, head)
    optimizer = torch.optim.AdamW(
        expert.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=True
    )
    draws = generator(seed, "fine_tune", task.name)
    batches = math.ceil(len(train) / recipe.batch_size)
    total, warmup = recipe.epochs * batches, max(1, recipe.epochs * batches // 10)
    step = 0
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(train), generator=draws).split(recipe.batch_size):
            share = (step + 1) / warmup if step < warmup else _cosine((step - warmup) / (total - warmup))
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * share
            with precision_named(expert, train.images[:0], "the base"):
                logits = classifier(train.images[batch].to(device))
            loss = F.cross_entropy(logits, train.labels[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    if not all(bool(torch.isfinite(tensor).all()) for tensor in expert.state().values()):
        raise UserError(
            f"fine-tuning on {task.name!r} diverged at learning rate {recipe.learning_rate:g}; lower it"
        )
    return expert.requires_grad_(False).eval()


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))
