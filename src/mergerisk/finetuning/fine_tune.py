"""Experts: the base encoder fine-tuned on one task under its frozen head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from mergerisk.errors import UserError
from mergerisk.models.classifier import Classifier
from mergerisk.randomness import generator
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from mergerisk.models.classifier import Head
    from mergerisk.models.encoder import Encoder
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

    Raises:
        UserError: the task has no training images, or the training diverged (weights are no longer finite).
    """
    train = task.training_split("fine-tuning")
    recipe = recipe or FineTuning()
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
