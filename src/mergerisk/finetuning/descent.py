"""The one loop that trains encoders: its recipe, the order of batches, and the descent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from mergerisk.errors import UserError
from mergerisk.memory import check_room, graph_bytes
from mergerisk.randomness import drawing
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mergerisk.models.core.encoder import Encoder


@hyperparameters
class FineTuning:
    """How an encoder is trained: AdamW, a linear warm-up over the first tenth, then a cosine to zero."""

    epochs: PositiveInt = 8
    learning_rate: PositiveFloat = 4e-4
    batch_size: PositiveInt = 64
    weight_decay: NonNegativeFloat = 0.01

    def optimizer(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """What takes the steps."""
        return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, foreach=True)

    def rate(self, step: int, total: int) -> float:
        """The learning rate at a step, from 0, of all."""
        warmup = max(1, total // 10)
        share = (step + 1) / warmup if step < warmup else _cosine((step - warmup) / (total - warmup))
        return self.learning_rate * share


def descend(
    encoder: Encoder,
    counts: Mapping[str, int],
    recipe: FineTuning,
    draws: torch.Generator,
    differentiate: Callable[[Encoder], Callable[[int, str, torch.Tensor], None]],
    what: str,
    look: Callable[[int, Encoder], None] | None = None,
) -> Encoder:
    """A trained copy of an encoder, in evaluation mode throughout, as all encoders here are.

    Args:
        encoder: where it starts; it is not changed.
        counts: task → images that are learnt from. A batch is of one task; those of all tasks come mixed.
        recipe: how it is trained.
        draws: the order of the images.
        differentiate: given the copy, what leaves the gradient of a batch's loss in its parameters, which have
            none yet, from the epoch, the task and the images' positions.
        what: is trained on, in words.
        look: is shown the copy after every step, with the step's number, from 1.

    Raises:
        UserError: a batch does not fit into memory, or the training diverged: weights are no longer finite.
    """
    _check_batch(encoder, recipe, what)
    trained = encoder.with_state({name: tensor.clone() for name, tensor in encoder.state().items()})
    trained.requires_grad_(True)
    optimizer = recipe.optimizer(trained.parameters())
    total, step = recipe.epochs * sum(math.ceil(count / recipe.batch_size) for count in counts.values()), 0
    backward = differentiate(trained)
    for epoch in range(recipe.epochs):
        for task, rows in _batches(counts, recipe.batch_size, draws):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step, total)
            optimizer.zero_grad()
            try:
                backward(epoch, task, rows)
            except UserError:  # of what met weights that are numbers no longer
                _check_finite(trained, recipe, what)
                raise
            optimizer.step()
            step += 1
            if look is not None:
                look(step, trained)
    _check_finite(trained, recipe, what)
    return trained.requires_grad_(False).eval()


_COPIES = 4
"""Of the weights that training holds: those that are trained, their gradient, and AdamW's two moments."""


def _check_batch(encoder: Encoder, recipe: FineTuning, what: str) -> None:
    """See that a batch fits into memory: results depend on its size, so that it is not split.

    Raises:
        UserError: it does not.
    """
    image = torch.zeros(1, 3, *[encoder.image_size] * 2, device=encoder.mean.device, dtype=encoder.mean.dtype)
    with drawing(0, "descent's batch", device=image.device):  # an encoder's own draws are none of the training's
        graph = graph_bytes(lambda: encoder(image.requires_grad_()))
    weights = sum(tensor.nbytes for tensor in encoder.state().values())
    needed = int(1.5 * recipe.batch_size * graph) + _COPIES * weights
    check_room(needed, image.device, f"{what}, {recipe.batch_size} images at a time (batch_size),")


def _check_finite(trained: Encoder, recipe: FineTuning, what: str) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in trained.state().values()):
        raise UserError(f"{what} diverged at learning rate {recipe.learning_rate:g}; lower it")


def _batches(counts: Mapping[str, int], size: int, draws: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """An epoch: every image once."""
    batches = [
        (task, rows)
        for task, count in counts.items()
        for rows in torch.randperm(count, generator=draws).split(size)
    ]
    order = torch.randperm(len(batches), generator=draws).tolist() if len(counts) > 1 else range(len(batches))
    for place in order:
        yield batches[place]


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))
