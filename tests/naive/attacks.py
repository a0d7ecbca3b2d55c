"""Naive transfer attacks: float64, one image at a time, plain loops.

Every function takes a model from pixels in [0, 1] to logits (float64 parameters), images N×C×H×W float64 in
[0, 1] and integer labels N, and returns the last iterate, N×C×H×W float64. All share these definitions:

* the loss is the cross-entropy with the true label, ``logsumexp(z) - z[y]``;
* the gradient is accumulated as ``m <- mu m + g / mean|g|``, where an all-zero ``g`` adds zero;
* ``delta <- clip(delta + alpha sign(m), -eps, eps)``, then ``x + delta`` is clipped to [0, 1]; sign(0) is 0;
* ``alpha`` is ``eps / 4`` unless given.

Sources: FGSM, Goodfellow et al. 2015 (arXiv 1412.6572); I-FGSM, Kurakin et al. 2017 (1607.02533); MI-FGSM,
Dong et al. 2018 (1710.06081); NI-FGSM, Lin et al. 2020 (1908.06281); TI-FGSM, Dong et al. 2019 (1904.02884);
DI-FGSM, Xie et al. 2019 (1803.06978).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Choice:
    """What input diversity draws for one image at one step.

    ``size`` is the height and width after resizing; ``top`` and ``left`` say where that picture lies on the
    zero canvas, whose height and width are the image's own unless ``canvas`` names others (then the padded
    picture is resized back to the image's size).
    """

    apply: bool
    size: tuple[int, int] = (1, 1)
    top: int = 0
    left: int = 0
    canvas: tuple[int, int] | None = None


def loss_gradient(model: Callable[[Tensor], Tensor], point: Tensor, label: int) -> Tensor:
    """Gradient of the cross-entropy of one image C×H×W with respect to its pixels."""
    leaf = point.detach().clone().requires_grad_(True)
    logits = model(leaf[None])[0]
    largest = logits.max().detach()
    loss = torch.log(torch.exp(logits - largest).sum()) + largest - logits[label]
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def accumulate(momentum: Tensor, gradient: Tensor, decay: float) -> Tensor:
    """``mu m + g / mean|g|``; an all-zero gradient adds nothing (0/0 would be NaN for good)."""
    scale = float(gradient.abs().sum()) / gradient.numel()
    if scale == 0.0:
        return decay * momentum
    return decay * momentum + gradient / scale


def sign(values: Tensor) -> Tensor:
    """+1, -1, and 0 where the value is 0."""
    return (values > 0).to(values.dtype) - (values < 0).to(values.dtype)


def move(image: Tensor, adversarial: Tensor, direction: Tensor, epsilon: float, step_size: float) -> Tensor:
    """One signed step, then the ball, then the box."""
    delta = adversarial - image + step_size * sign(direction)
    edge = torch.full_like(delta, epsilon)
    delta = torch.minimum(torch.maximum(delta, -edge), edge)
    moved = image + delta
    return torch.minimum(torch.maximum(moved, torch.zeros_like(moved)), torch.ones_like(moved))


def fgsm(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, epsilon: float) -> Tensor:
    """One step of size epsilon."""
    done = []
    for image, label in zip(images, labels.tolist(), strict=True):
        gradient = loss_gradient(model, image, label)
        done.append(move(image, image, gradient, epsilon, epsilon))
    return torch.stack(done)


def i_fgsm(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int = 10,
    step_size: float | None = None,
) -> Tensor:
    """Iterated FGSM (BIM), no momentum, start at the clean image."""
    alpha = epsilon / 4 if step_size is None else step_size
    done = []
    for image, label in zip(images, labels.tolist(), strict=True):
        adversarial = image
        for _ in range(steps):
            gradient = loss_gradient(model, adversarial, label)
            adversarial = move(image, adversarial, gradient, epsilon, alpha)
        done.append(adversarial)
    return torch.stack(done)


def mi_fgsm(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
) -> Tensor:
    """Momentum over L1-normalised gradients."""
    alpha = epsilon / 4 if step_size is None else step_size
    done = []
    for image, label in zip(images, labels.tolist(), strict=True):
        adversarial = image
        momentum = torch.zeros_like(image)
        for _ in range(steps):
            gradient = loss_gradient(model, adversarial, label)
            momentum = accumulate(momentum, gradient, decay)
            adversarial = move(image, adversarial, momentum, epsilon, alpha)
        done.append(adversarial)
    return torch.stack(done)


def ni_fgsm(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
) -> Tensor:
    """The gradient is taken at ``x_adv + alpha mu m``; that point is clipped to neither ball nor box."""
    alpha = epsilon / 4 if step_size is None else step_size
    done = []
    for image, label in zip(images, labels.tolist(), strict=True):
        adversarial = image
        momentum = torch.zeros_like(image)
        for _ in range(steps):
            gradient = loss_gradient(model, adversarial + alpha * decay * momentum, label)
            momentum = accumulate(momentum, gradient, decay)
            adversarial = move(image, adversarial, momentum, epsilon, alpha)
        done.append(adversarial)
    return torch.stack(done)


def gaussian_kernel(kernel_size: int = 15, sigma: float = 3.0) -> list[list[float]]:
    """Normalised outer product of a standard normal density at linspace(-sigma, sigma, kernel_size)."""
    gap = 2 * sigma / (kernel_size - 1)
    at = [-sigma + gap * i for i in range(kernel_size)]
    row = [math.exp(-0.5 * x * x) for x in at]
    total = sum(a * b for a in row for b in row)
    return [[a * b / total for b in row] for a in row]


def smooth(gradient: Tensor, kernel: list[list[float]]) -> Tensor:
    """Correlate each channel of C×H×W with an odd square kernel; outside the picture counts as zero."""
    height, width = gradient.shape[-2:]
    reach = len(kernel) // 2
    smoothed = torch.zeros_like(gradient)
    for i, row in enumerate(kernel):
        for j, weight in enumerate(row):
            down, right = i - reach, j - reach
            rows = [y for y in range(height) if 0 <= y + down < height]
            columns = [x for x in range(width) if 0 <= x + right < width]
            if not rows or not columns:
                continue
            top, bottom, first, last = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            source = gradient[:, top + down : bottom + down, first + right : last + right]
            smoothed[:, top:bottom, first:last] += weight * source
    return smoothed


def ti_fgsm(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    kernel_size: int = 15,
    sigma: float = 3.0,
) -> Tensor:
    """The gradient is smoothed before it is normalised; ``decay=0`` is the variant without momentum."""
    alpha = epsilon / 4 if step_size is None else step_size
    kernel = gaussian_kernel(kernel_size, sigma)
    done = []
    for image, label in zip(images, labels.tolist(), strict=True):
        adversarial = image
        momentum = torch.zeros_like(image)
        for _ in range(steps):
            gradient = smooth(loss_gradient(model, adversarial, label), kernel)
            momentum = accumulate(momentum, gradient, decay)
            adversarial = move(image, adversarial, momentum, epsilon, alpha)
        done.append(adversarial)
    return torch.stack(done)


def bilinear_matrix(old: int, new: int) -> Tensor:
    """new×old weights of bilinear interpolation between half-pixel centres, without antialiasing."""
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        centre = max((i + 0.5) * old / new - 0.5, 0.0)
        low = min(math.floor(centre), old - 1)
        high = min(low + 1, old - 1)
        weights[i, low] += 1.0 - (centre - low)
        weights[i, high] += centre - low
    return weights


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of C×H×W."""
    vertical = bilinear_matrix(image.shape[-2], size[0])
    horizontal = bilinear_matrix(image.shape[-1], size[1])
    return vertical @ image @ horizontal.T


def diversify(image: Tensor, choice: Choice) -> Tensor:
    """Resize, place on a zero canvas, and come back to the image's own size."""
    if not choice.apply:
        return image
    own = (int(image.shape[-2]), int(image.shape[-1]))
    height, width = own if choice.canvas is None else choice.canvas
    small = resize(image, choice.size)
    bottom = height - choice.top - choice.size[0]
    right = width - choice.left - choice.size[1]
    if min(choice.top, choice.left, bottom, right) < 0:
        raise ValueError(f"{choice} does not fit on a canvas of {height}×{width}")
    padded = torch.nn.functional.pad(small, (choice.left, right, choice.top, bottom))
    return padded if (height, width) == own else resize(padded, own)


def di_fgsm(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    choices: Sequence[Sequence[Choice]],
    *,
    epsilon: float,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
) -> Tensor:
    """The gradient is that of a diversified input; ``choices[image][step]`` says how it is diversified."""
    alpha = epsilon / 4 if step_size is None else step_size
    done = []
    for image, label, own_choices in zip(images, labels.tolist(), choices, strict=True):
        adversarial = image
        momentum = torch.zeros_like(image)
        for step in range(steps):
            choice = own_choices[step]

            def seen(batch: Tensor, choice: Choice = choice) -> Tensor:
                return model(torch.stack([diversify(one, choice) for one in batch]))

            momentum = accumulate(momentum, loss_gradient(seen, adversarial, label), decay)
            adversarial = move(image, adversarial, momentum, epsilon, alpha)
        done.append(adversarial)
    return torch.stack(done)
