"""How fast a model's gradient changes around the clean images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch.nn.attention import SDPBackend, sdpa_kernel

from mergerisk.attacks.losses import Loss
from mergerisk.causes.gradients import Gradient, flat
from mergerisk.causes.probe import Probe, Reads
from mergerisk.errors import UserError
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from mergerisk.causes.probe import Batch, Parts

_ROUNDING = 100
"""A remainder of so many roundings is nothing but rounding."""


@hyperparameters
class Curvature(Probe):
    """``curvature``, float64, N: the eigenvalue of largest magnitude of the loss's Hessian in the pixels; and
    ``change``, float64, N: ‖g(x+u) − g(x)‖ / ‖u‖ for a random u of Euclidean length ε.

    Attributes:
        loss: see :class:`~mergerisk.causes.gradients.Gradient`.
        products: Hessian-vector products per image at most, steps of Lanczos' iteration.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"labels", "gradients"})
    depends: ClassVar[frozenset[Literal["epsilon", "norm", "seed"]]] = frozenset({"epsilon", "seed"})

    loss: Loss = "cross_entropy"
    products: PositiveInt = 20

    @property
    def gradients_per_image(self) -> int:
        return 2 + 2 * self.products

    def measure(self, model: nn.Module, batch: Batch) -> Parts:
        probe = Gradient(loss=self.loss)
        random = batch.random("curvature")
        start, toward = random.normal(like=batch.images), random.normal(like=batch.images)
        # Attention's fused kernels cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            leaf = batch.images.detach().requires_grad_()
            gradient = probe.at(model, leaf, batch.labels, graph=True)

            def product(vectors: torch.Tensor) -> torch.Tensor:
                if not gradient.requires_grad:  # it is the same everywhere
                    return torch.zeros_like(vectors)
                try:
                    (found,) = torch.autograd.grad(
                        gradient, leaf, vectors, retain_graph=True, allow_unused=True, materialize_grads=True
                    )
                except RuntimeError as error:
                    if "is not implemented" not in str(error):
                        raise
                    raise UserError(
                        f"smoothness: the model's gradient cannot be differentiated again ({error})"
                    ) from error
                return found

            curvature = largest_eigenvalues(product, start, self.products)
        step = batch.epsilon * toward / toward.flatten(1).norm(dim=1)[:, None, None, None]
        moved = batch.images + step
        taken = flat(moved) - flat(batch.images)  # what rounding leaves of the step
        there = flat(probe.at(model, moved, batch.labels))
        change = (there - flat(gradient.detach())).norm(dim=1) / taken.norm(dim=1)
        return {"curvature": curvature, "change": change}


def largest_eigenvalues(
    product: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, steps: int
) -> torch.Tensor:
    """float64, N: of N symmetric matrices the eigenvalue of largest magnitude, by Lanczos' iteration.

    Every new vector is made orthogonal to all before it, twice. Where the start's Krylov space is exhausted, the
    matrix goes on with zeros, whose eigenvalues are never the largest.

    Args:
        product: vectors, N × …, → the matrices' products with them.
        start: N × …, not zero.
        steps: products to take.
    """
    shape, dtype = start.shape, start.dtype
    rows = start.flatten(1)
    steps = min(steps, rows.shape[1])
    vector = rows / rows.norm(dim=1, keepdim=True)
    basis = rows.new_zeros(steps, *rows.shape)
    matrix = torch.zeros(len(rows), steps, steps, dtype=torch.float64, device=rows.device)
    scale = rows.new_zeros(len(rows))
    for step in range(steps):
        basis[step] = vector
        image = product(vector.view(shape)).detach().flatten(1)
        along = (image * vector).sum(dim=1)
        matrix[:, step, step] = along.double()
        scale = torch.maximum(scale, image.norm(dim=1))
        if step + 1 == steps:
            break
        used = basis[: step + 1]
        for _ in range(2):
            image = image - torch.einsum("kn,knd->nd", torch.einsum("knd,nd->kn", used, image), used)
        left = image.norm(dim=1)
        there = left > _ROUNDING * torch.finfo(dtype).eps * scale
        left = torch.where(there, left, 0.0)
        matrix[:, step, step + 1] = matrix[:, step + 1, step] = left.double()
        vector = torch.where(there[:, None], image / left.where(there, 1.0)[:, None], 0.0)
    values: torch.Tensor = torch.linalg.eigvalsh(matrix)
    return values.gather(1, values.abs().argmax(dim=1, keepdim=True))[:, 0]
