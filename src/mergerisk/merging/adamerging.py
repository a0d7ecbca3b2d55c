"""AdaMerging: coefficients learnt without labels, by minimising entropy."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch.func import functional_call

from mergerisk.merging.averaging import WeightAveraging
from mergerisk.merging.batch_norm import is_statistic
from mergerisk.merging.method import EncoderMerging, Merged, tied_names
from mergerisk.merging.vectors import common_dtype, magnitude_threshold
from mergerisk.randomness import generator
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.merging.method import Calibration
    from mergerisk.models.classifier import Head
    from mergerisk.models.encoder import Encoder, State
    from mergerisk.tasks.images import Images


@hyperparameters
class AdaMerging(EncoderMerging):
    """θ0 + Σ λ(t,l) τ(t,l), with λ minimising the summed mean softmax entropy of all tasks
    (Yang et al. 2024, arXiv 2310.02575, equations 4 to 6).

    FusionBench takes 1000 steps and does not clamp. Entropy comes from log-softmax: adding 1e-8 inside the
    logarithm, as found elsewhere, biases it.

    BatchNorm's running statistics have no λ, which could make a variance negative: they are the experts' mean,
    and images pass in evaluation mode. Tied tensors share one λ per task.

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

    def make(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        calibration: Mapping[str, Calibration],
        seed: int,
    ) -> Merged:
        pretrained = base.state()
        states = [expert.state() for expert in experts.values()]
        origin = tied_names(pretrained)
        fixed = [n for n, t in pretrained.items() if not t.is_floating_point() or is_statistic(n, pretrained)]
        averages = WeightAveraging().merge_states(
            {name: pretrained[name] for name in fixed}, [{name: state[name] for name in fixed} for state in states]
        )
        start = {name: tensor for name, tensor in pretrained.items() if name not in {*fixed, *origin}}
        vectors = self._task_vectors(start, states)
        encoder = base.with_state(pretrained | averages)  # in evaluation mode, whatever the base is in
        own = [*encoder.backbone.named_parameters(), *encoder.backbone.named_buffers()]
        slots = {slot: origin.get(slot, slot) for slot, _ in own if origin.get(slot, slot) in start}
        device = base.mean.device
        shape = (len(states), len(vectors) if self.granularity == "layer_wise" else 1)
        coefficients = torch.full(shape, self.initial, device=device, dtype=common_dtype(start))
        optimizer = torch.optim.Adam([coefficients], lr=self.learning_rate, betas=(0.9, 0.999))
        heads = [calibration[task].head for task in experts]
        draws = {task: generator(seed, "adamerging", task) for task in experts}
        size = self.batches * self.batch_size
        for _ in range(self.steps):
            batches = [draw(calibration[task].images, size, draws[task]).to(device) for task in experts]
            merged = _combine(start, vectors, coefficients)
            gradients = _entropy_gradients(encoder, merged, slots, batches, heads)
            # dL/dλ(t,l) = <τ(t,l), dL/dθ(l)>: the graph never has to reach back through the combination.
            slopes = torch.stack(
                [
                    torch.einsum("tn,n->t", vector.reshape(len(states), -1), gradients[name].flatten())
                    for name, vector in vectors.items()
                ],
                dim=1,
            )
            coefficients.grad = slopes.sum(dim=1, keepdim=True) if shape[1] == 1 else slopes
            optimizer.step()
            if self.clamp:
                coefficients.clamp_(0.0, 1.0)
        labels = list(vectors) if self.granularity == "layer_wise" else ["all"]
        merged = averages | _combine(start, vectors, coefficients)
        parts = {name: merged[origin.get(name, name)] for name in pretrained}
        return Merged(
            base.with_state(parts),
            parts,
            coefficients=dict(zip(labels, coefficients.cpu().unbind(dim=1), strict=True)),
        )

    def _task_vectors(self, base: State, experts: Sequence[State]) -> State:
        """Per tensor of ``base``, what λ multiplies: T × its shape."""
        return {name: torch.stack([expert[name] for expert in experts]) - tensor for name, tensor in base.items()}


@hyperparameters
class AdaMergingPlusPlus(AdaMerging):
    """AdaMerging++: the same on what TIES keeps of the task vectors (Yang et al. 2024, arXiv 2310.02575,
    section 3.2; Yadav et al. 2023, arXiv 2306.01708, algorithm 1).

    Each task vector keeps its largest entries by magnitude, ranked over all parameters together; entries whose
    sign is not that of the sum of what all tasks kept are 0 too. A zero sum takes the sign that most entries of
    the model elected, + if they balance.

    Attributes:
        density: share of entries kept, in (0, 1]; 0.2 is the value of TIES. Entries that tie with the last one
            kept are kept too.
    """

    density: Annotated[float, Field(gt=0, le=1)] = 0.2

    def _task_vectors(self, base: State, experts: Sequence[State]) -> State:
        thresholds = [magnitude_threshold(base, expert, list(base), self.density) for expert in experts]
        vectors = super()._task_vectors(base, experts)
        for stacked in vectors.values():
            for vector, threshold in zip(stacked, thresholds, strict=True):
                vector.masked_fill_(vector.abs() < threshold, 0.0)
        elected = {name: stacked.sum(dim=0).sign() for name, stacked in vectors.items()}
        majority = 1.0 if sum(int(sign.sum()) for sign in elected.values()) >= 0 else -1.0
        for stacked, sign in zip(vectors.values(), elected.values(), strict=True):
            sign[sign == 0] = majority
            stacked.masked_fill_(stacked.sign() != sign, 0.0)
        return vectors


def draw(images: Images, count: int, draws: torch.Generator) -> torch.Tensor:
    """``count`` images drawn with replacement."""
    return images[torch.randint(len(images), (count,), generator=draws)]


def mean_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Mean over images (N × classes) of the softmax's entropy, in nats."""
    log_probabilities = F.log_softmax(logits, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()


def _combine(base: State, vectors: State, coefficients: torch.Tensor) -> State:
    columns = coefficients.expand(-1, len(vectors)).unbind(dim=1)
    return {
        name: base[name] + torch.einsum("t,t...->...", column, vector)
        for (name, vector), column in zip(vectors.items(), columns, strict=True)
    }


def _entropy_gradients(
    encoder: Encoder,
    tensors: State,
    slots: Mapping[str, str],
    batches: Sequence[torch.Tensor],
    heads: Sequence[Head],
) -> State:
    """Gradient of the tasks' summed mean entropy with respect to ``tensors``.

    Args:
        encoder: in evaluation mode.
        tensors: what replaces its own.
        slots: name of each tensor of the encoder that is replaced → name of what replaces it. Tied tensors are
            several slots, a layer under several names is one: functional_call cannot put it back otherwise.
        batches: images, per task.
        heads: per task.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    named = {f"backbone.{slot}": leaves[name] for slot, name in slots.items()}
    run = partial(functional_call, encoder, named, tie_weights=False)
    if len({batch.shape[1:] for batch in batches}) == 1:
        features = run(args=(torch.cat(list(batches)),)).split([len(batch) for batch in batches])
    else:  # tasks of different image sizes cannot share a batch
        features = tuple(run(args=(batch,)) for batch in batches)
    entropies = [mean_entropy(head(z)) for head, z in zip(heads, features, strict=True)]
    gradients = torch.autograd.grad(torch.stack(entropies).sum(), list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
    }
