"""Square: random search by queries, without a gradient."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, PositiveInt

from mergerisk.attacks.attack import Attack
from mergerisk.attacks.budget import LinfBall
from mergerisk.attacks.losses import closeness
from mergerisk.attacks.watched import heard
from mergerisk.errors import UserError
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from mergerisk.attacks.attack import Problem

_HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries: where the squares' area is halved."""


@hyperparameters
class Square(Attack):
    """Square (Andriushchenko et al. 2020, arXiv 1912.00049, algorithms 1 to 3): changes of squares at random
    places, kept where the margin falls. An image that is fooled is asked about no more.

    It follows no gradient, so that it is not misled by one: where it beats gradients, those are masked. In L∞
    every square is ±ε per channel from a start of stripes; in L2 the change of one square moves to another, in the
    shape of the paper's bumps. Targeted ones raise the target's margin, where the authors' code takes the
    cross-entropy.

    Attributes:
        queries: at most, per image.
        area: of the first squares, as a share of the image, p; it falls as in the paper, by the share of queries.
        targeted: move towards a label of one's own.
    """

    queries: PositiveInt = 5000
    area: Annotated[float, Field(gt=0, le=1)] = 0.8
    targeted: bool = False

    @property
    def gradients_per_image(self) -> int:
        """A forward pass is about a third of a gradient."""
        return -(-self.queries // 3)

    @torch.no_grad()
    def perturb(self, problem: Problem) -> torch.Tensor:
        search = (Stripes if isinstance(problem.ball, LinfBall) else Bumps)(problem)
        best = problem.ball.project(search.start())
        gain = self._gain(problem, best, torch.arange(len(best), device=best.device))
        for query in range(1, self.queries):
            square = self.side(query, best.shape[-2:])
            draws = problem.random.uniform(search.numbers, like=best)
            left = (gain <= 0).nonzero()[:, 0]
            if not len(left):
                break
            tried = search.changed(best[left], left, square, draws[left])
            tried = put_back(problem, best, left, tried)
            found = self._gain(problem, tried, left)
            better = found > gain[left]
            best[left[better]], gain[left[better]] = tried[better], found[better]
        return best

    def _gain(self, problem: Problem, points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """N: above 0 where the classifier says what is wanted, and no alarm is raised."""
        logits, alarm = heard(problem.classifier, points)
        gain = problem.sign * closeness("margin", logits, problem.classes[rows])
        if alarm is not None:
            gain = torch.where(alarm > 0, gain.clamp(max=0) - alarm, gain)
        if bool(gain.isnan().any()):
            raise UserError(f"the classifier says NaN of {int(gain.isnan().sum())} images; check its weights")
        return gain

    def side(self, query: int, size: torch.Size) -> int:
        """Of the square at a query, in pixels."""
        share = query / self.queries * 10_000
        area = self.area / 2 ** sum(share > limit for limit in _HALVED_AT)
        height, width = size
        return min(max(round(math.sqrt(area * height * width)), 1), height, width)


def put_back(problem: Problem, best: torch.Tensor, rows: torch.Tensor, tried: torch.Tensor) -> torch.Tensor:
    """Into ball and box, which are of all the images."""
    whole = best.clone()
    whole[rows] = tried
    return problem.ball.project(whole)[rows]


def _window(start: torch.Tensor, side: int, square: int) -> torch.Tensor:
    """bool, N × ``side``: which places of a line lie in the window that starts at a share of the free places."""
    first = (start * (side - square + 1)).floor().clamp(max=side - square)[:, None]
    places = torch.arange(side, device=start.device)
    return (places >= first) & (places < first + square)


def _signs(draws: torch.Tensor) -> torch.Tensor:
    return torch.where(draws < 0.5, -1.0, 1.0).to(draws)


class Stripes:
    """The search in L∞."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.numbers = 2 + problem.images.shape[1]

    def start(self) -> torch.Tensor:
        """±ε in columns one pixel wide."""
        images = self.problem.images
        draws = self.problem.random.uniform(images.shape[1], 1, images.shape[3], like=images)
        return images + self.problem.epsilon * _signs(draws)

    def changed(self, best: torch.Tensor, rows: torch.Tensor, square: int, draws: torch.Tensor) -> torch.Tensor:
        """±ε within the squares, one sign per channel."""
        inside = _squares(draws, square, best.shape)
        signs = _signs(draws[:, 2:])[..., None, None]
        return torch.where(inside, self.problem.images[rows] + self.problem.epsilon * signs, best)


def _squares(draws: torch.Tensor, square: int, shape: torch.Size) -> torch.Tensor:
    """bool, N × 1 × H × W."""
    down, across = _window(draws[:, 0], shape[2], square), _window(draws[:, 1], shape[3], square)
    return (down[:, :, None] & across[:, None, :])[:, None]


class Bumps:
    """The search in L2."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.numbers = 5 + problem.images.shape[1]

    def start(self) -> torch.Tensor:
        """Bumps on a grid of five by five, as far as it fits."""
        images = self.problem.images
        count, channels, height, width = images.shape
        side = max(1, min(height, width) // 5)
        down, across = height // side, width // side
        above, before = ((total - 5 * side) // 2 if total >= 5 * side else 0 for total in (height, width))
        down, across = (min(n, (t - s) // side) for n, t, s in ((down, height, above), (across, width, before)))
        draws = self.problem.random.uniform(down * across, 1 + channels, like=images)
        tiles = _bumps(draws, side).view(count, down, across, channels, side, side)
        change = torch.zeros_like(images)
        grid = tiles.permute(0, 3, 1, 4, 2, 5).reshape(count, channels, down * side, across * side)
        change[..., above : above + down * side, before : before + across * side] = grid
        return self._scaled(images, change)

    def changed(self, best: torch.Tensor, rows: torch.Tensor, square: int, draws: torch.Tensor) -> torch.Tensor:
        """What one square holds moves to another, where a bump is added to it."""
        images = self.problem.images[rows]
        channels, height, width = images.shape[1:]
        square = min(max(square, 3) | 1, height, width)
        change = best - images
        target, source = _squares(draws, square, best.shape), _squares(draws[:, 2:], square, best.shape)
        unused = (self.problem.epsilon**2 - _energy(change, (1, 2, 3))).clamp(min=0) / channels
        available = (unused + _energy(change * (target | source), (2, 3))).sqrt()
        old = change * target / (_energy(change * target, (1, 2, 3)).sqrt() + _TINY)
        bump = torch.zeros_like(change)
        bump.masked_scatter_(target.expand_as(change), _bumps(draws[:, None, 4:], square)[:, 0])
        new = bump + old
        new = new / (_energy(new, (2, 3)).sqrt() + _TINY) * available
        moved = torch.where(target, new, torch.where(source, 0.0, change))
        return self._scaled(images, moved)

    def _scaled(self, images: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """The whole budget is spent."""
        return images + self.problem.epsilon * self.problem.ball.unit(change)


_TINY = 1e-12


def _energy(change: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    return change.square().sum(dim=axes, keepdim=True)


def _bumps(draws: torch.Tensor, side: int) -> torch.Tensor:
    """N × K × C × side × side: two bumps of length 1 together, one up and one down, side by side or one above the
    other by the first of the draws (N × K × 1 + C), with a sign per channel by the others."""
    shape = _two_bumps(side).to(draws)
    turned = (draws[..., 0] < 0.5)[..., None, None]
    either = torch.where(turned, shape.T, shape)[:, :, None]
    return either * _signs(draws[..., 1:])[..., None, None]


@cache
def _two_bumps(side: int) -> torch.Tensor:
    """float64, side × side: the upper half rises, the lower falls."""
    half = side // 2
    shape = torch.cat([_bump(half, side), -_bump(side - half, side)])
    return shape / _energy(shape, (0, 1)).sqrt()


def _bump(height: int, width: int) -> torch.Tensor:
    """Rectangles around the middle, each a pixel wider on every side, of height 1, 1/4, 1/9 …, added up."""
    shape = torch.zeros(height, width, dtype=torch.float64)
    middle = (height // 2, width // 2)
    for ring in range(max(height // 2, width // 2) + 1):
        top, left = (max(0, place - ring) for place in middle)
        shape[top : middle[0] + ring + 1, left : middle[1] + ring + 1] += 1 / (ring + 1) ** 2
    return shape / _energy(shape, (0, 1)).sqrt() if height else shape
