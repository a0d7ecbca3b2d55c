"""What all naive attacks share.

* ``x_adv`` starts at the image. At each step a gradient ``g`` of what the attack wants to grow is found, then
  ``m <- mu m + g / mean|g|``, where an all-zero ``g`` adds zero, then
  ``x_adv <- ball(box(x_adv + alpha unit(m)))``; ``alpha`` is ``epsilon / 4`` unless given.
* For L∞, ``unit`` is the sign (0 at 0) and ``ball`` clips every pixel's change to ±epsilon. For L2, ``unit(m)``
  is ``m / ‖m‖`` (0 at 0) and ``ball`` shortens a change that is longer than epsilon.
* What grows: the cross-entropy ``logsumexp(z) - z[y]`` with the true label; or the margin, the largest other
  logit minus ``z[y]``; or ``-z[y]``. Targeted: the same, negated, with the target for the label.
* A gradient at a point is the mean over the views that the input transformations give of the point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Transform = Callable[["Task", Tensor], Iterator[Tensor]]
    """Views of an image, one after another."""


class Draws(Protocol):
    """A stream of random numbers for a batch of one image."""

    def uniform(self, *shape: int, like: Tensor) -> Tensor: ...

    def noise(self, *, like: Tensor) -> Tensor: ...

    def normal(self, *, like: Tensor) -> Tensor: ...


class NoDraws:
    """For attacks that should need none."""

    def uniform(self, *_shape: int, like: Tensor) -> Tensor:
        raise AssertionError(like.shape)

    def noise(self, *, like: Tensor) -> Tensor:
        raise AssertionError(like.shape)

    normal = noise


@dataclass
class Task:
    """One image to attack; ``step`` is the number of the step being taken."""

    model: Callable[[Tensor], Tensor]
    image: Tensor
    label: int
    place: int
    epsilon: float
    draws: Draws
    pool: tuple[Tensor, list[int]]
    """All the images of the call with their labels, in the order of their identities."""
    norm: str = "linf"
    loss: str = "cross_entropy"
    target: int | None = None
    steps: int = 10
    step_size: float | None = None
    decay: float | None = None
    inputs: Sequence[Transform] = ()
    gradient: Sequence[Callable[[Tensor], Tensor]] = ()
    step: int = 0

    @property
    def alpha(self) -> float:
        return self.epsilon / 4 if self.step_size is None else self.step_size

    @property
    def last(self) -> bool:
        return self.step == self.steps - 1

    def per_pixel(self, radius: float) -> float:
        """What a perturbation of this length changes every pixel by, if it changes all alike."""
        return radius if self.norm == "linf" else radius / math.sqrt(self.image.numel())

    def project(self, point: Tensor) -> Tensor:
        return project(self.image, point, self.epsilon, self.norm)

    def gain(self, logits: Tensor) -> Tensor:
        """What the attack wants to grow, for the logits of one image."""
        label = self.label if self.target is None else self.target
        others = [logits[k] for k in range(len(logits)) if k != label]
        if self.loss == "cross_entropy":
            largest = logits.max().detach()
            away = torch.log(torch.exp(logits - largest).sum()) + largest - logits[label]
        elif self.loss == "margin":
            away = max(others, key=lambda logit: float(logit.detach())) - logits[label]
        else:
            away = -logits[label]
        return away if self.target is None else -away

    def ascent(self, point: Tensor) -> Tensor:
        """Gradient of the gain at one point C×H×W, averaged over its views."""
        leaf = point.detach().clone().requires_grad_(True)
        gains = [self.gain(self.model(view[None])[0]) for view in views(self, leaf, self.inputs)]
        (gradient,) = torch.autograd.grad(sum(gains[1:], gains[0]) / len(gains), leaf)
        return gradient

    def around(self, point: Tensor, radius: float) -> Tensor:
        """A random point whose pixels differ from ``point``'s by at most what ``radius`` is per pixel."""
        uniform = self.draws.noise(like=self.image[None])[0]
        return point + self.per_pixel(radius) * (2 * uniform - 1)


@dataclass
class Trace:
    """The iterates after every step, and at how many steps the gradient was zero everywhere."""

    path: list[Tensor] = field(default_factory=list)
    zero_gradients: int = 0


def euclidean(values: Tensor) -> float:
    return math.sqrt(float((values * values).sum()))


def views(task: Task, image: Tensor, transforms: Sequence[Transform]) -> Iterator[Tensor]:
    """Every view that the first transformation gives goes through the others."""
    if not transforms:
        yield image
        return
    for view in transforms[0](task, image):
        yield from views(task, view, transforms[1:])


def unit(direction: Tensor, norm: str) -> Tensor:
    """The step of length 1 that gains most; zero where the direction is."""
    if norm == "linf":
        return (direction > 0).to(direction.dtype) - (direction < 0).to(direction.dtype)
    length = euclidean(direction)
    return direction / length if length > 0 else direction


def project(image: Tensor, point: Tensor, epsilon: float, norm: str) -> Tensor:
    """The point put into the box, then into the ball around the image; for L∞ the order is of no account."""
    delta = torch.minimum(torch.maximum(point, torch.zeros_like(point)), torch.ones_like(point)) - image
    if norm == "linf":
        edge = torch.full_like(delta, epsilon)
        delta = torch.minimum(torch.maximum(delta, -edge), edge)
    elif euclidean(delta) > epsilon:
        delta = delta * (epsilon / euclidean(delta))
    return image + delta


def move(
    image: Tensor,
    adversarial: Tensor,
    direction: Tensor,
    epsilon: float,
    step_size: float | Tensor,
    norm: str,
) -> Tensor:
    """One step, then back into box and ball."""
    return project(image, adversarial + step_size * unit(direction, norm), epsilon, norm)


def normalised(gradient: Tensor) -> Tensor:
    """``g / mean|g|``; zero stays zero (0/0 would be NaN for good)."""
    scale = float(gradient.abs().sum()) / gradient.numel()
    return gradient if scale == 0.0 else gradient / scale


def accumulate(momentum: Tensor, gradient: Tensor, decay: float) -> Tensor:
    """``mu m + g / mean|g|``."""
    return decay * momentum + normalised(gradient)


def iterate(
    task: Task,
    ascent: Callable[[Tensor, Tensor], Tensor],
    *,
    decay: float = 1.0,
    start: Tensor | None = None,
    shrink: float = 1.0,
) -> Trace:
    """The loop. ``ascent(x_adv, m)`` gives the gradient; ``decay`` is mu if the task leaves it open.

    With ``shrink``, the steps of pixels whose momentum changes its sign become smaller by that factor.
    """
    mu = decay if task.decay is None else task.decay
    trace = Trace()
    adversarial = task.image if start is None else start
    momentum, scale = torch.zeros_like(task.image), torch.ones_like(task.image)
    for step in range(task.steps):
        task.step = step
        gradient = ascent(adversarial, momentum)
        for smooth in task.gradient:
            gradient = smooth(gradient)
        trace.zero_gradients += int(not bool((gradient != 0).any()))
        before, momentum = momentum, accumulate(momentum, gradient, mu)
        if step > 0:
            scale = torch.where(torch.sign(before) == torch.sign(momentum), scale, scale * shrink)
        adversarial = move(task.image, adversarial, momentum, task.epsilon, task.alpha * scale, task.norm)
        trace.path.append(adversarial)
    return trace


class ForEachImage:
    """Makes an attack on one image an attack on several; see the package's docstring."""

    def __init__(self, attack: Callable[..., Trace]) -> None:
        self.attack = attack

    def __call__(self, *arguments: Any, **settings: Any) -> Tensor:
        return torch.stack([trace.path[-1] for trace in self.trace(*arguments, **settings)])

    def trace(
        self,
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float,
        targets: Tensor | None = None,
        draws: Sequence[Draws] | None = None,
        indices: Sequence[int] | None = None,
        norm: str = "linf",
        loss: str = "cross_entropy",
        steps: int = 10,
        step_size: float | None = None,
        decay: float | None = None,
        inputs: Sequence[Transform] = (),
        gradient: Sequence[Callable[[Tensor], Tensor]] = (),
        **own: Any,
    ) -> list[Trace]:
        """One trace per image; ``own`` are the hyper-parameters that only this attack has."""
        count = len(images)
        identities = list(range(count)) if indices is None else list(indices)
        order = sorted(range(count), key=lambda place: identities[place])
        pool = (torch.stack([images[place] for place in order]), [int(labels[place]) for place in order])
        traces = []
        for place in range(count):
            task = Task(
                model=model,
                image=images[place],
                label=int(labels[place]),
                place=place,
                epsilon=epsilon,
                draws=draws[place] if draws else NoDraws(),
                pool=pool,
                norm=norm,
                loss=loss,
                target=None if targets is None else int(targets[place]),
                steps=steps,
                step_size=step_size,
                decay=decay,
                inputs=inputs,
                gradient=gradient,
            )
            traces.append(self.attack(task, **own))
        return traces


def with_parts(task: Task, *, inputs: Sequence[Transform] = (), gradient: Sequence[Any] = ()) -> Task:
    """The task with an attack's own parts before those it is composed with."""
    return replace(task, inputs=[*inputs, *task.inputs], gradient=[*gradient, *task.gradient])
