"""Images bent like a rubber sheet, by as little as keeps what is on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveInt

from mergerisk.attacks.gradient_sign import MIFGSM
from mergerisk.attacks.gradients import gradient_sizes
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from mergerisk.attacks.gradient_attack import Run

_TINY = 1e-9
"""Added to a squared distance before its logarithm is taken, as in the authors' code."""


@hyperparameters
class DeCowA(MIFGSM):
    """The mean gradient over images that are warped as little as keeps what is on them (Lin et al. 2024, arXiv
    2402.03951; as the authors' code, TransferAttack's, computes it).

    A thin-plate spline holds the points on the edge of a regular mesh over the image and moves those inside by ξ,
    uniform in ± ``strength`` of half a side. Then ξ ← ξ − ρ ∇_ξ L: away from warps that raise the loss by
    themselves. So a warp costs two gradients. ξ belongs to the image here; public code has one for a batch, by the
    batch's mean loss. Pixels are sampled at their centres, so that a mesh at rest changes nothing; public code is
    off by up to half a pixel then.

    Attributes:
        warps: warped copies at each step.
        mesh: points along a side.
        strength: largest move of a point, as a share of half a side.
        constraint: ρ.
    """

    warps: PositiveInt = 20
    mesh: Annotated[int, Field(ge=3)] = 3
    strength: NonNegativeFloat = 1.0
    constraint: NonNegativeFloat = 0.01

    def estimates(self) -> int:
        return self.iterations * 2 * self.warps

    def estimate(self, run: Run, point: torch.Tensor) -> torch.Tensor:
        if "spline" not in run.memory:
            run.memory["spline"] = _spline(self.mesh, *point.shape[-2:]).to(point)
        spline = run.memory["spline"]
        total = torch.zeros_like(point)
        for _ in range(self.warps):
            drawn = run.problem.random.uniform(spline.shape[-1], 2, like=point)
            moves = self.strength * (2 * drawn - 1)
            with torch.enable_grad():
                leaf = moves.requires_grad_()
                view = _warped(point, spline, leaf)
                seen = run.gradient(view)
                gradient_sizes(seen)  # which raises where a gradient is broken: a broken warp would show black
                (slope,) = torch.autograd.grad(view, leaf, seen)
                leaf = point.detach().requires_grad_()
                view = _warped(leaf, spline, moves.detach() - self.constraint * slope)
                (found,) = torch.autograd.grad(view, leaf, run.gradient(view))
            total += found
        return total / self.warps


def _warped(images: torch.Tensor, spline: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Images (N × C × H × W) under moves of the mesh's inner points (N × points × 2: across, down; a side spans −1
    to 1), bilinear, black beyond the edge."""
    height, width = images.shape[-2:]
    down, across = (_centres(side).to(images) for side in (height, width))
    rest = torch.stack([across.expand(height, width), down[:, None].expand(height, width)], dim=-1)
    return F.grid_sample(images, rest + (spline @ moves[:, None]), align_corners=False)


def _centres(side: int) -> torch.Tensor:
    """float64: where the centres of ``side`` pixels lie between −1 and 1."""
    return (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1


def _spline(mesh: int, height: int, width: int) -> torch.Tensor:
    """float64, H × W × points: how far each pixel goes with each inner point of a mesh of ``mesh``² points, row by
    row, under the thin-plate spline that holds the others."""
    ends = torch.linspace(-1, 1, mesh, dtype=torch.float64)
    points = torch.cartesian_prod(ends, ends).flip(-1)
    pixels = torch.cartesian_prod(_centres(height), _centres(width)).flip(-1)
    count = len(points)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    system[:count] = _terms(points, points)
    system[count:, :count] = system[:count, count:].T
    weights = torch.linalg.solve(system, torch.eye(count + 3, count, dtype=torch.float64))
    inner = (points.abs() < 1).all(dim=-1)
    follows: torch.Tensor = (_terms(pixels, points) @ weights)[:, inner]
    return follows.view(height, width, -1)


def _terms(places: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Places × (points + 3): the spline's radial terms, then 1 and the place itself."""
    squared = (places[:, None] - points).square().sum(dim=-1)
    return torch.cat([squared * (squared + _TINY).log(), places.new_ones(len(places), 1), places], dim=1)
