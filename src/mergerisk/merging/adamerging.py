"""AdaMerging: coefficients learnt without labels, by minimising entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch.func import functional_call

from mergerisk.merging.method import Merged, MergingMethod, check_calibration, expert_states
from mergerisk.randomness import generator
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.merging.method import Calibration
    from mergerisk.models.classifier import Head
    from mergerisk.models.encoder import Encoder, State


@hyperparameters
class AdaMerging(MergingMethod):
    """θ0 + Σ λ(t,l) τ(t,l), with λ minimising the summed mean softmax entropy of all tasks
    (Yang et al. 2024, arXiv 2310.02575, equations 4 to 6).

    FusionBench takes 1000 steps and does not clamp. Entropy comes from log-softmax: adding 1e-8 inside the
    logarithm, as found elsewhere, biases it.

    Attributes:
        granularity: ``layer_wise`` learns one λ per task and parameter tensor, ``task_wise`` one per task.
        initial: every λ at the start.
        steps: optimiser steps; each sees ``batches`` × ``batch_size`` images of every task.
        learning_rate: of Adam, betas (0.9, 0.999).
        clamp: keep λ within [0, 1] after each step.
    """

    needs_calibration: ClassVar[bool] = True

    granularity: Literal["layer_wise", "task_wise"] = "layer_wise"
    initial: Annotated[float, Field(ge=0, le=1)] = 0.3
    steps: PositiveInt = 500
    batches: PositiveInt = 2
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 1e-3
    clamp: bool = True

    def merge(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        *,
        calibration: Mapping[str, Calibration] | None = None,
        seed: int = 0,
    ) -> Merged:
        calibration = check_calibration(experts, calibration, "adamerging")
        states = expert_states(base, experts)
        device = base.mean.device
        pretrained = base.state()
        vectors = _task_vectors(pretrained, list(states.values()))
        shape = (len(states), len(vectors) if self.granularity == "layer_wise" else 1)
        coefficients = torch.full(shape, self.initial, device=device)
        optimizer = torch.optim.Adam([coefficients], lr=self.learning_rate, betas=(0.9, 0.999))
        heads = [calibration[task].head for task in states]
        draws = {task: generator(seed, "adamerging", task) for task in states}
        size = self.batches * self.batch_size
        for _ in range(self.steps):
            batches = [draw(calibration[task].images, size, draws[task]).to(device) for task in states]
            gradients = _entropy_gradients(base, _combine(pretrained, vectors, coefficients), batches, heads)
            # dL/dλ(t,l) = <τ(t,l), dL/dθ(l)>: the graph never has to reach back through the combination.
            slopes = torch.stack(
                [torch.einsum("tn,n->t", vectors[name].flatten(1), gradients[name].flatten()) for name in vectors],
                dim=1,
            )
            coefficients.grad = slopes.sum(dim=1, keepdim=True) if shape[1] == 1 else slopes
            optimizer.step()
            if self.clamp:
                coefficients.clamp_(0.0, 1.0)
        merged = base.with_state(_combine(pretrained, vectors, coefficients))
        return Merged(merged, coefficients={"adamerging": coefficients.cpu()})


def draw(images: torch.Tensor, count: int, draws: torch.Generator) -> torch.Tensor:
    """``count`` images drawn with replacement."""
    return images[torch.randint(len(images), (count,), generator=draws)]


def mean_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Mean over images (N × classes) of the softmax's entropy, in nats."""
    log_probabilities = F.log_softmax(logits, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()


def _task_vectors(base: State, experts: Sequence[State]) -> dict[str, torch.Tensor]:
    """Per floating tensor, the task vectors stacked: T × its shape."""
    return {
        name: torch.stack([expert[name] for expert in experts]) - tensor
        for name, tensor in base.items()
        if tensor.is_floating_point()
    }


def _combine(base: State, vectors: Mapping[str, torch.Tensor], coefficients: torch.Tensor) -> State:
    merged = dict(base)
    columns = coefficients.expand(-1, len(vectors)).unbind(dim=1)
    for (name, vector), column in zip(vectors.items(), columns, strict=True):
        merged[name] = base[name] + torch.einsum("t,t...->...", column, vector)
    return merged


def _entropy_gradients(
    base: Encoder, state: State, batches: Sequence[torch.Tensor], heads: Sequence[Head]
) -> State:
    """Gradient of the tasks' summed mean entropy with respect to every floating tensor of ``state``."""
    leaves = {name: t.detach().requires_grad_(t.is_floating_point()) for name, t in state.items()}
    named = {f"backbone.{name}": tensor for name, tensor in leaves.items()}
    if len({batch.shape[1:] for batch in batches}) == 1:
        features = functional_call(base, named, (torch.cat(list(batches)),)).split([len(b) for b in batches])
    else:  # tasks of different image sizes cannot share a batch
        features = tuple(functional_call(base, named, (batch,)) for batch in batches)
    entropies = [mean_entropy(head(z)) for head, z in zip(heads, features, strict=True)]
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    gradients = torch.autograd.grad(torch.stack(entropies).sum(), list(wanted.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(wanted.items(), gradients, strict=True)
    }
