"""The one loop that every gradient attack shares, and its few hooks.

δ starts at the images; each step takes the gradient of the loss at a (possibly transformed) point, filters
it, accumulates it, and moves by α in the direction of its sign, within the ε-ball and the pixel box.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from mergerisk.errors import UserError
from mergerisk.randomness import ImageRandom
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn


@dataclass(frozen=True)
class Crafted:
    """Adversarial images and what crafting them met.

    Attributes:
        adversarial: N × C × H × W in [0, 1], within ε of the images.
        zero_gradients: int64, N: at how many steps an image's gradient was exactly zero everywhere, as happens
            when a float32 softmax saturates.
    """

    adversarial: torch.Tensor
    zero_gradients: torch.Tensor


@dataclass(frozen=True)
class Attack:
    """An untargeted L∞ attack on the true label by gradients of the cross-entropy.

    Implementations are frozen dataclasses that override :meth:`schedule` and the hooks they need.
    """

    def schedule(self, epsilon: float) -> tuple[int, float]:
        """Number of steps and step size α at a budget."""
        raise NotImplementedError

    @property
    def gradients_per_image(self) -> int:
        """Input gradients that one image costs: what the attack's time is made of."""
        return self.schedule(1.0)[0]

    def look_ahead(self, adversarial: torch.Tensor, momentum: torch.Tensor, step_size: float) -> torch.Tensor:  # noqa: ARG002
        """Where the gradient is taken."""
        return adversarial

    def transform(self, images: torch.Tensor, random: ImageRandom) -> torch.Tensor:  # noqa: ARG002
        """What the classifier sees of the images; differentiable, of the same shape."""
        return images

    def filter(self, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient after spatial filtering."""
        return gradient

    def accumulate(self, momentum: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """The direction to step in, from the last one and the new gradient."""
        return gradient

    def __call__(
        self,
        classifier: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        epsilon: float,
        seed: int = 0,
        indices: Sequence[int] | torch.Tensor | None = None,
        batch_size: int | None = None,
    ) -> torch.Tensor:
        """Adversarial images; see :meth:`craft`."""
        return self.craft(
            classifier, images, labels, epsilon=epsilon, seed=seed, indices=indices, batch_size=batch_size
        ).adversarial

    def craft(
        self,
        classifier: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        epsilon: float,
        seed: int = 0,
        indices: Sequence[int] | torch.Tensor | None = None,
        batch_size: int | None = None,
    ) -> Crafted:
        """Perturb ``images`` so that ``classifier`` mistakes them.

        Args:
            classifier: pixels in [0, 1] → logits; used in evaluation mode, left as it was.
            images: N × C × H × W, floating, in [0, 1].
            labels: int64, N, the true labels.
            epsilon: L∞ budget in pixel units, in [0, 1]: 8/255, say.
            seed: of the attack's randomness, which belongs to (seed, image index).
            indices: the images' identities; their positions 0 … N−1 by default.
            batch_size: images at a time; all by default. Results do not depend on it.

        Returns:
            Images that differ from ``images`` by at most ``epsilon``, exactly, and lie in [0, 1].

        Raises:
            UserError: images out of range, labels that do not fit, ε out of range, or logits with NaN.
        """
        identities = _check_inputs(images, labels, epsilon, indices)
        size = batch_size or max(1, len(images))
        with _frozen(classifier):
            parts = [
                self._craft_batch(
                    classifier,
                    images[start : start + size],
                    labels[start : start + size],
                    epsilon,
                    ImageRandom(seed, type(self).__name__, identities[start : start + size]),
                )
                for start in range(0, len(images), size)
            ]
        return Crafted(
            torch.cat([part.adversarial for part in parts]),
            torch.cat([part.zero_gradients for part in parts]),
        )

    def _craft_batch(
        self,
        classifier: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        epsilon: float,
        random: ImageRandom,
    ) -> Crafted:
        steps, step_size = self.schedule(epsilon)
        lower, upper = bounds(images, epsilon)
        adversarial = images.clone()
        momentum = torch.zeros_like(images)
        zero_gradients = torch.zeros_like(labels)
        for _ in range(steps):
            point = self.look_ahead(adversarial, momentum, step_size).detach().requires_grad_()
            with torch.enable_grad():
                logits = classifier(self.transform(point, random))
                # Summed, so that an image's gradient does not depend on its batch.
                loss = F.cross_entropy(logits, labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, point)
            with torch.no_grad():
                size = gradient.abs().amax(dim=(1, 2, 3))
                _check_gradient(size)
                zero_gradients += size == 0
                momentum = self.accumulate(momentum, self.filter(gradient))
                adversarial = adversarial.add(momentum.sign(), alpha=step_size).clamp_(lower, upper)
        return Crafted(adversarial, zero_gradients)


@hyperparameters
class IterativeAttack(Attack):
    """An attack of several equal steps.

    Attributes:
        steps: number of gradients.
        step_size: α in pixel units; None for ε/4 (2/255 at 8/255), so that it follows ε in a sweep.
        decay: μ of m ← μ m + g / mean|g|, the mean over an image's pixels; 0 for no momentum.
    """

    steps: PositiveInt = 10
    step_size: PositiveFloat | None = None
    decay: NonNegativeFloat = 0.0

    def schedule(self, epsilon: float) -> tuple[int, float]:
        return self.steps, epsilon / 4 if self.step_size is None else self.step_size

    def accumulate(self, momentum: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        if self.decay == 0:
            return gradient
        size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
        # An all-zero gradient adds nothing; 0/0 here would freeze the image for good.
        return self.decay * momentum + gradient / size.where(size > 0, 1.0)


def bounds(images: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The ε-ball around ``images`` cut with the pixel box, as its lower and upper corner.

    Rounding to the images' dtype goes towards the images, so that no perturbation exceeds ε even when it is
    measured in float64.
    """
    exact = images.double()
    corners = []
    for side in (-1, 1):
        corner = (exact + side * epsilon).to(images.dtype)
        outside = (corner.double() - exact) * side > epsilon
        corner = torch.where(outside, torch.nextafter(corner, images), corner)
        corners.append(corner.clamp(0.0, 1.0))
    return corners[0], corners[1]


def _check_inputs(
    images: torch.Tensor, labels: torch.Tensor, epsilon: float, indices: Sequence[int] | torch.Tensor | None
) -> list[int]:
    """The images' identities, once everything is in order."""
    if images.ndim != 4 or not images.is_floating_point():
        raise UserError(f"images must be floating, N × C × H × W, got {images.dtype}, {tuple(images.shape)}")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise UserError(
            f"labels must be integers, one per image, got {labels.dtype}, {tuple(labels.shape)} "
            f"for {len(images)} images"
        )
    if not 0.0 <= epsilon <= 1.0:
        raise UserError(f"epsilon must lie in [0, 1], got {epsilon:g}; pixels do, so 8/255 is written 8/255")
    if len(images):
        low, high = float(images.min()), float(images.max())
        if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails too
            raise UserError(f"images must lie in [0, 1], found {low:g} to {high:g}")
    identities = list(range(len(images))) if indices is None else [int(index) for index in indices]
    if len(identities) != len(images):
        raise UserError(f"indices must name each of the {len(images)} images, got {len(identities)}")
    return identities


def _check_gradient(size: torch.Tensor) -> None:
    broken = int((~torch.isfinite(size)).sum())
    if broken:
        raise UserError(f"the classifier's gradient is NaN or infinite for {broken} images; check its weights")


@contextmanager
def _frozen(classifier: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients, and back to what it was."""
    training = {module: module.training for module in classifier.modules()}
    trainable = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    classifier.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter in trainable:
            parameter.requires_grad_(True)
