"""AdaMerging: coefficients learnt without labels, by minimising entropy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch.func import functional_call

from mergerisk.memory import free_bytes, graph_bytes
from mergerisk.merging.batch_norm import is_statistic
from mergerisk.merging.known_attacks import crafted_on_public
from mergerisk.merging.learned import LearnedMerging
from mergerisk.merging.vectors import common_dtype, magnitude_threshold, new_memory
from mergerisk.validation import Epsilon, hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mergerisk.merging.learned import Lesson
    from mergerisk.merging.material import Merged, Tensors
    from mergerisk.models.core.classifier import Head
    from mergerisk.models.core.encoder import Encoder, State
    from mergerisk.tasks.images import Images

_HELD = 2**29
"""Bytes of task vectors that are kept at most where memory is the CPU's, if they are no more than a tenth of what
is free; on another device, whose memory nobody else needs now, half of it. More are made anew at every step."""
_GRAPH = 3 * 2**28
"""Bytes that autograd may keep at once: the images of a step that need more are taken in portions. A constant,
since portions change sums in their last digits, and results must not depend on the machine."""


@hyperparameters
class AdaMerging(LearnedMerging):
    """θ0 + Σ λ(t,l) τ(t,l), with λ minimising the summed mean softmax entropy of all tasks
    (Yang et al. 2024, arXiv 2310.02575, equations 4 to 6).

    FusionBench takes 1000 steps and does not clamp. Entropy comes from log-softmax: adding 1e-8 inside the
    logarithm, as found elsewhere, biases it.

    BatchNorm's running statistics have no λ, which could make a variance negative: they are the experts' mean,
    and images pass in evaluation mode. Tied tensors share one λ per task.

    Held at a time are the base, the merge and its gradient, and one tensor of all experts. Task vectors are kept
    too if they take no more than 512 MiB and a tenth of what is free, or half of what is free on a GPU; the
    numbers are the same. Images of a step whose graph exceeds 768 MiB are taken in portions.

    Attributes:
        granularity: ``layer_wise`` learns one λ per task and parameter tensor, ``task_wise`` one per task.
        initial: every λ at the start.
        steps: optimiser steps; each sees ``batches`` × ``batch_size`` images of every task.
        learning_rate: of Adam, betas (0.9, 0.999).
        clamp: keep λ within [0, 1] after each step.
        robust: W of the mean entropy on adversarial images, W times which is minimised too; 0 for none. Own: the
            images are crafted beforehand, half of them on each task's expert and half on the base, which attackers
            hold, against what these say themselves, since no label is read; see
            :func:`mergerisk.merging.known_attacks.crafted_on_public`.
        robust_epsilon: their L∞ budget, in pixel units.
        robust_steps: of PGD.
        robust_images: how many are crafted of every task, at most.
    """

    stream: ClassVar[str] = "adamerging"
    added: ClassVar[frozenset[str]] = frozenset({"robust", "robust_epsilon", "robust_steps", "robust_images"})

    granularity: Literal["layer_wise", "task_wise"] = "layer_wise"
    initial: Annotated[float, Field(ge=0, le=1)] = 0.3
    steps: PositiveInt = 500
    batches: PositiveInt = 2
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 1e-3
    clamp: bool = True
    robust: NonNegativeFloat = 0.0
    robust_epsilon: Epsilon = 8 / 255
    robust_steps: PositiveInt = 10
    robust_images: PositiveInt = 256

    def cost(self, pools: Sequence[int]) -> Mapping[str, int]:
        shown = self.steps * self.batches * self.batch_size * len(pools)
        if not self.robust:
            return {"training": shown}
        crafted = sum(min(pool, self.robust_images) for pool in pools)
        return {"training": 2 * shown, "gradient": crafted * self.robust_steps}

    def learn(self, lesson: Lesson) -> Merged:
        base, pretrained, origin = lesson.base, lesson.pretrained, lesson.tied
        tasks, states = list(lesson.states), list(lesson.states.values())
        fixed = [n for n, t in pretrained.items() if not t.is_floating_point() or is_statistic(n, pretrained)]
        averages = lesson.averages(fixed)
        start = {name: tensor for name, tensor in pretrained.items() if name not in {*fixed, *origin}}
        vectors = _kept_if_small(self._task_vectors(start, states))
        encoder = base.with_state(pretrained | averages)  # in evaluation mode, whatever the base is in
        own = [*encoder.backbone.named_parameters(), *encoder.backbone.named_buffers()]
        slots = {slot: origin.get(slot, slot) for slot, _ in own if origin.get(slot, slot) in start}
        device = base.mean.device
        shape = (len(states), len(vectors) if self.granularity == "layer_wise" else 1)
        coefficients = torch.full(shape, self.initial, device=device, dtype=common_dtype(start))
        optimizer = torch.optim.Adam([coefficients], lr=self.learning_rate, betas=(0.9, 0.999))
        images: list[Images] = [lesson.calibration[task].images for task in tasks]
        heads = [lesson.calibration[task].head for task in tasks]
        draws = [lesson.draws(task) for task in tasks]
        weights = [1.0] * len(tasks)
        if self.robust:
            images += [self._crafted(lesson, task) for task in tasks]
            draws += [lesson.draws(task, "robust") for task in tasks]
            heads, weights = 2 * heads, weights + [self.robust] * len(tasks)
        size = self.batches * self.batch_size
        merged = {name: new_memory(tensor) for name, tensor in start.items()}
        _combine(start, vectors, coefficients, out=merged)
        portion = _images_at_once(encoder, merged, slots, images[0])
        for _ in range(self.steps):
            batches = [draw(found, size, own).to(device) for found, own in zip(images, draws, strict=True)]
            gradients = _entropy_gradients(encoder, merged, slots, batches, heads, weights, portion)
            # dL/dλ(t,l) = <τ(t,l), dL/dθ(l)>: the graph never has to reach back through the combination.
            slopes = torch.stack(
                [
                    torch.einsum("tn,n->t", vector.reshape(len(states), -1), gradients.pop(name).flatten())
                    for name, vector in vectors.items()
                ],
                dim=1,
            )
            coefficients.grad = slopes.sum(dim=1, keepdim=True) if shape[1] == 1 else slopes
            optimizer.step()
            if self.clamp:
                coefficients.clamp_(0.0, 1.0)
            _combine(start, vectors, coefficients, out=merged)
        labels = list(vectors) if self.granularity == "layer_wise" else ["all"]
        learnt = dict(zip(labels, coefficients.cpu().unbind(dim=1), strict=True))
        return lesson.merged(averages | merged, learnt)

    def _crafted(self, lesson: Lesson, task: str) -> torch.Tensor:
        """A task's adversarial images, on the CPU."""
        return crafted_on_public(
            lesson, task, epsilon=self.robust_epsilon, steps=self.robust_steps, most=self.robust_images
        )

    def _task_vectors(self, base: State, experts: Sequence[Tensors]) -> TaskVectors:
        """What λ multiplies."""
        return TaskVectors(base, experts)


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

    def _task_vectors(self, base: State, experts: Sequence[Tensors]) -> TaskVectors:
        thresholds = [magnitude_threshold(base, expert, list(base), self.density) for expert in experts]

        def trimmed(stacked: torch.Tensor) -> torch.Tensor:
            for vector, threshold in zip(stacked, thresholds, strict=True):
                vector.masked_fill_(vector.abs() < threshold, 0.0)
            return stacked

        balance = sum(
            int(stacked.sum(dim=0).sign().sum()) for stacked in TaskVectors(base, experts, trimmed).values()
        )
        majority = 1.0 if balance >= 0 else -1.0

        def elected(stacked: torch.Tensor) -> torch.Tensor:
            sign = trimmed(stacked).sum(dim=0).sign()
            sign[sign == 0] = majority
            return stacked.masked_fill_(stacked.sign() != sign, 0.0)

        return TaskVectors(base, experts, elected)


class TaskVectors(Mapping[str, torch.Tensor]):
    """Per tensor of the base the task vectors, T × its shape, made anew at every access.

    Args:
        base: θ0.
        experts: θt; tensors may be read from disk at every access.
        change: what becomes of them; it may write to what it is given.
    """

    def __init__(
        self,
        base: State,
        experts: Sequence[Tensors],
        change: Callable[[torch.Tensor], torch.Tensor] = lambda stacked: stacked,
    ) -> None:
        self._base = base
        self._experts = experts
        self._change = change

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return len(self._experts) * sum(tensor.nbytes for tensor in self._base.values())

    @property
    def device(self) -> torch.device:
        """Where they are made."""
        return next(iter(self._base.values())).device

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._change(torch.stack([expert[name] for expert in self._experts]) - self._base[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def _kept_if_small(vectors: TaskVectors) -> Tensors:
    """The task vectors, kept in memory where they leave enough of it; see ``_HELD``."""
    if not vectors:
        return vectors
    free = free_bytes(vectors.device)
    room = min(_HELD, free // 10) if vectors.device.type == "cpu" else free // 2
    return dict(vectors) if vectors.nbytes <= room else vectors


def draw(images: Images, count: int, draws: torch.Generator) -> torch.Tensor:
    """``count`` images drawn with replacement."""
    return images[torch.randint(len(images), (count,), generator=draws)]


def mean_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Mean over images (N × classes) of the softmax's entropy, in nats."""
    log_probabilities = F.log_softmax(logits, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()


def _combine(base: State, vectors: Tensors, coefficients: torch.Tensor, *, out: State) -> None:
    """θ0 + Σ λ(t,l) τ(t,l) into the memory of ``out``."""
    columns = coefficients.expand(-1, len(vectors)).unbind(dim=1)
    for (name, vector), column in zip(vectors.items(), columns, strict=True):
        torch.add(base[name], torch.einsum("t,t...->...", column, vector), out=out[name])


def _with_tensors(encoder: Encoder, tensors: State, slots: Mapping[str, str]) -> Callable[..., torch.Tensor]:
    """``encoder`` as a function of images, with other tensors; see :func:`_entropy_gradients`."""
    named = {f"backbone.{slot}": tensors[name] for slot, name in slots.items()}
    return partial(functional_call, encoder, named, tie_weights=False)


def _images_at_once(encoder: Encoder, tensors: State, slots: Mapping[str, str], images: Images) -> int:
    """How many images' graphs fit into ``_GRAPH``; at least one."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    run = _with_tensors(encoder, leaves, slots)
    image = images[:1].to(encoder.mean.device)
    return max(1, _GRAPH // max(1, graph_bytes(lambda: run((image,)))))


def _entropy_gradients(
    encoder: Encoder,
    tensors: State,
    slots: Mapping[str, str],
    batches: Sequence[torch.Tensor],
    heads: Sequence[Head],
    weights: Sequence[float],
    portion: int,
) -> State:
    """Gradient of the batches' weighted mean entropies, summed, with respect to ``tensors``.

    Args:
        encoder: in evaluation mode.
        tensors: what replaces its own.
        slots: name of each tensor of the encoder that is replaced → name of what replaces it. Tied tensors are
            several slots, a layer under several names is one: functional_call cannot put it back otherwise.
        batches: images, of a task each.
        heads: per batch.
        weights: per batch.
        portion: images whose graph is held at once.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    run = _with_tensors(encoder, leaves, slots)
    for pieces in _portions(batches, portion):
        images = [piece for _, piece in pieces]
        if len({piece.shape[1:] for piece in images}) == 1:
            features = run((torch.cat(images),)).split([len(piece) for piece in images])
        else:  # tasks of different image sizes cannot share a batch
            features = tuple(run((piece,)) for piece in images)
        entropies = [
            mean_entropy(heads[task](z)) * (weights[task] * len(z) / len(batches[task]))
            for (task, _), z in zip(pieces, features, strict=True)
        ]
        # Accumulated in place, so that no portion has a gradient of its own.
        torch.autograd.backward(torch.stack(entropies).sum(), inputs=list(leaves.values()))
    return {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}


def _portions(batches: Sequence[torch.Tensor], size: int) -> Iterator[list[tuple[int, torch.Tensor]]]:
    """The batches' images in order, with the batch's position, ``size`` images at a time."""
    pieces: list[tuple[int, torch.Tensor]] = []
    room = size
    for task, batch in enumerate(batches):
        taken = 0
        while taken < len(batch):
            piece = batch[taken : taken + room]
            pieces.append((task, piece))
            taken, room = taken + len(piece), room - len(piece)
            if not room:
                yield pieces
                pieces, room = [], size
    if pieces:
        yield pieces
