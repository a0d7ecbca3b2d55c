"""The average of checkpoints that a fine-tune passes at a constant, high learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from mergerisk.finetuning.descent import FineTuning, descend
from mergerisk.finetuning.fine_tune import under_head
from mergerisk.randomness import drawing, generator
from mergerisk.validation import Share, hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mergerisk.models.core.classifier import Head
    from mergerisk.models.core.encoder import Encoder
    from mergerisk.tasks.task import Task


@hyperparameters
class Collecting(FineTuning):
    """How checkpoints are collected (LGV, Gubri et al. 2022, arXiv 2207.13129): SGD with momentum at a learning
    rate that never falls, several checkpoints an epoch at equal distances, as stochastic weight averaging has
    them.

    Epochs, momentum, checkpoints per epoch and weight decay are the authors'. Their learning rate, 0.05 for
    ResNets in batches of 256, throws fine-tuned transformers far out of their minimum (the starter suite's digits:
    11 % of the test images right after three epochs, 92 % at 0.003).

    Attributes:
        epochs: of the collection.
        learning_rate: constant.
        momentum: of SGD.
        per_epoch: checkpoints; one a step where an epoch has fewer steps.
    """

    epochs: PositiveInt = 10
    learning_rate: PositiveFloat = 0.003
    weight_decay: NonNegativeFloat = 1e-4
    momentum: Share = 0.9
    per_epoch: PositiveInt = 4

    def optimizer(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            foreach=True,
        )

    def rate(self, step: int, total: int) -> float:  # noqa: ARG002
        """The same at every step."""
        return self.learning_rate

    def collects(self, step: int, per_epoch: int) -> bool:
        """Whether a step, from 1, ends in a checkpoint; ``per_epoch`` steps are an epoch."""
        count = min(self.per_epoch, per_epoch)
        return step * count // per_epoch > (step - 1) * count // per_epoch


def average_checkpoints(
    start: Encoder, head: Head, task: Task, *, recipe: Collecting | None = None, seed: int = 0
) -> Encoder:
    """The mean of the weights that a fine-tuned encoder passes as it is trained on; see :class:`Collecting`. What
    is no weight, such as counts, is the last checkpoint's; so are BatchNorm's statistics, which nobody updates:
    those of an average are estimated anew by :func:`mergerisk.merging.batch_norm.reestimate_batch_norm`.

    Args:
        start: the attacker's own fine-tune; it is not changed.
        head: of the task, frozen.
        task: whose training images are learnt from.
        recipe: how checkpoints are collected.
        seed: of the order of the images.

    Raises:
        UserError: as :func:`mergerisk.fine_tune` does.
    """
    head.check_task(task)
    recipe = recipe or Collecting()
    train = task.training_split("fine-tuning")
    steps = math.ceil(len(train) / recipe.batch_size)
    total: dict[str, torch.Tensor] = {}
    collected = 0

    def look(step: int, passed: Encoder) -> None:
        nonlocal collected
        if recipe.collects(step, steps):
            collected += 1
            for name, tensor in passed.state().items():
                if not tensor.is_floating_point():
                    total[name] = tensor.clone()
                elif name in total:
                    total[name] += tensor.detach().double()
                else:
                    total[name] = tensor.detach().double()

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        drawing(seed, "average_checkpoints' base", task.name, device=start.mean.device),
    ):
        last = descend(
            start,
            {task.name: len(train)},
            recipe,
            generator(seed, "average_checkpoints", task.name),
            under_head(head, task, start.mean.device),
            f"collecting checkpoints on {task.name!r}",
            look,
        )
    before = last.state()
    return last.with_state(
        {
            name: (summed / collected).to(before[name].dtype) if summed.is_floating_point() else summed
            for name, summed in total.items()
        }
    )
