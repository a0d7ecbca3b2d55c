"""From a transferred image on by queries: searches that ask a target a few times where transfer alone has
failed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import PositiveFloat

from mergerisk.attacks.attack import Pool, Problem
from mergerisk.attacks.budget import LinfBall, ball
from mergerisk.attacks.given import first_look
from mergerisk.attacks.rejected import REJECTED
from mergerisk.attacks.square import Bumps, Square, Stripes, put_back
from mergerisk.attacks.watched import answered, heard
from mergerisk.errors import UserError
from mergerisk.memory import halved, in_portions
from mergerisk.models.inside.hooks import evaluating, frozen
from mergerisk.randomness import ImageRandom, drawing
from mergerisk.transfer.black_box import Said
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from mergerisk.attacks.budget import Norm

Asked = Callable[[torch.Tensor], Said]
"""Images, N × 3 × H × W in [0, 1] → what the target says of them. Every image is a query."""


@dataclass(frozen=True)
class Sought:
    """What came of asking.

    Attributes:
        adversarial: N × C × H × W: the best point found, which fools the target where one does.
        fooled_at: int64, N: the query that fooled the target, from 1, which is the transferred image itself; 0
            where none did.
        asked: int64, N: queries spent on each image.
    """

    adversarial: torch.Tensor
    fooled_at: torch.Tensor
    asked: torch.Tensor


class Searching(ABC):
    """A search over one batch."""

    @abstractmethod
    def propose(self, best: torch.Tensor, rows: torch.Tensor, query: int) -> torch.Tensor:
        """What to ask about next, of the images in some rows; it need not lie in ball and box.

        Args:
            best: the best points of all images so far.
            rows: int64: those that are not fooled yet.
            query: its number, from 2.
        """

    def learn(self, rows: torch.Tensor, better: torch.Tensor) -> None:  # noqa: B027  # some need not know
        """Whether what was proposed for the rows was better than before."""


class QuerySearch(ABC):
    """A way to search; a frozen dataclass of hyper-parameters."""

    gradients: ClassVar[int] = 0
    """Of the surrogate, per query, at most."""

    @abstractmethod
    def over(self, problem: Problem, queries: int) -> Searching:
        """The search over a batch, whose ``classifier`` is the attacker's surrogate."""


@hyperparameters
class SquareSearch(QuerySearch):
    """Square's search (arXiv 1912.00049) from the transferred image in place of stripes or bumps; the squares
    shrink over the queries that there are."""

    def over(self, problem: Problem, queries: int) -> Searching:
        return _SquareSearching(problem, Square(queries=queries))


class _SquareSearching(Searching):
    def __init__(self, problem: Problem, square: Square) -> None:
        self.problem, self.square = problem, square
        self.shapes = (Stripes if isinstance(problem.ball, LinfBall) else Bumps)(problem)

    def propose(self, best: torch.Tensor, rows: torch.Tensor, query: int) -> torch.Tensor:
        side = self.square.side(query - 1, best.shape[-2:])
        # Of all images, so that an image's draws do not depend on the others' success.
        draws = self.problem.random.uniform(self.shapes.numbers, like=best)
        return self.shapes.changed(best[rows], rows, side, draws[rows])


@hyperparameters
class SimBAODS(QuerySearch):
    """SimBA along directions that change what the surrogate says (Tashiro et al. 2020, arXiv 2003.06878, algorithm
    with SimBA): the gradient of w·f(x), w uniform in [−1, 1] for every class; first one way, then, if that is no
    better, the other.

    The authors step 0.2 in L2 and have no budget. Here a step is a share of ε in the budget's norm, which then
    bounds it: ±ε of every pixel's sign in L∞, where the transferred image lies at the corners already.

    Attributes:
        step: as a share of ε.
    """

    gradients: ClassVar[int] = 1

    step: PositiveFloat = 1.0

    def over(self, problem: Problem, queries: int) -> Searching:  # noqa: ARG002
        return _DirectionsSearching(problem, self.step * problem.epsilon)


class _DirectionsSearching(Searching):
    def __init__(self, problem: Problem, size: float) -> None:
        self.problem, self.size = problem, size
        self.along = torch.zeros_like(problem.images)
        self.back = torch.zeros_like(problem.labels, dtype=torch.bool)

    def propose(self, best: torch.Tensor, rows: torch.Tensor, query: int) -> torch.Tensor:
        problem, (classes, most) = self.problem, self._look
        # Of all images, so that an image's draws do not depend on the others' success.
        weights = 2 * problem.random.uniform(classes, like=best) - 1
        anew = rows[~self.back[rows]]

        def slopes(start: int, stop: int) -> torch.Tensor:
            some = anew[start:stop]
            with torch.enable_grad():
                leaf = best[some].detach().requires_grad_()
                logits = problem.classifier(leaf)
                (found,) = torch.autograd.grad((logits * weights[some].to(logits)).sum(), leaf)
            return found

        if len(anew):
            with drawing(problem.seed, "direction", query, device=best.device):
                found = torch.cat(in_portions(slopes, len(anew), halved(len(anew), most)))
            self.along[anew] = problem.ball.unit(found)
        way = torch.where(self.back[rows], -1.0, 1.0).to(best)[:, None, None, None]
        return best[rows] + self.size * way * self.along[rows]

    @cached_property
    def _look(self) -> tuple[int, int]:
        """How many classes the surrogate has, and for how many images at a time there is memory."""
        problem = self.problem
        with drawing(problem.seed, "look", device=problem.images.device):
            return first_look(problem.classifier, problem.images[:1], problem.labels, "the surrogate")

    def learn(self, rows: torch.Tensor, better: torch.Tensor) -> None:
        self.back[rows] = ~self.back[rows] & ~better


@torch.no_grad()
def search(
    ask: Asked,
    surrogate: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    transferred: torch.Tensor,
    *,
    how: QuerySearch,
    epsilon: float,
    queries: int,
    norm: Norm = "linf",
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> Sought:
    """Ask a target about every image until it names another class than the true one, or the queries are spent.

    A target that says scores is followed by the margin of the true class; of one that says labels alone nothing is
    learnt but whether it was fooled, so that each query is a draw from the transferred image on.

    Args:
        ask: the target; asked about all images that are left at once.
        surrogate: the attacker's own model, from pixels in [0, 1] to logits of the same classes.
        images: N × C × H × W in [0, 1].
        labels: int64, N, the true ones.
        transferred: what was crafted on the surrogate, within the budget: the first query.
        how: the search.
        epsilon: budget in pixel units, which no query exceeds.
        queries: at most, per image.
        norm: of the budget.
        seed: of what is drawn, which belongs to (seed, image index).
        indices: the images' identities; their positions by default.

    Raises:
        UserError: no query is allowed, images that do not fit each other, or a target that does not answer.
    """
    if queries < 1:
        raise UserError(f"queries must be at least 1, got {queries}")
    if transferred.shape != images.shape:
        raise UserError("transferred images must be as many, and as large, as the images")
    named = [*range(len(images))] if indices is None else indices
    problem = Problem(
        surrogate,
        images,
        labels,
        None,
        ball(norm, images, epsilon),
        ImageRandom(seed, "query_search", named),
        Pool(images, labels),
        seed,
    )
    best = problem.ball.project(transferred)
    fooled_at, asked = torch.zeros_like(labels), torch.ones_like(labels)
    with frozen(surrogate, "the surrogate"):
        margins = _heard(ask, best, labels)
        fooled_at[margins < 0] = 1
        searching = how.over(problem, queries)
        for query in range(2, queries + 1):
            left = (fooled_at == 0).nonzero()[:, 0]
            if not len(left):
                break
            tried = put_back(problem, best, left, searching.propose(best, left, query))
            found = _heard(ask, tried, labels[left])
            better = found < margins[left]
            best[left[better]], margins[left[better]] = tried[better], found[better]
            asked[left] += 1
            fooled_at[left[found < 0]] = query
            searching.learn(left, better)
    return Sought(best, fooled_at, asked)


def asking(model: nn.Module, *, batch_size: int = 256, seed: int = 0) -> Asked:
    """How a model at hand is asked; one that draws from PyTorch's global generator draws anew for every call."""
    calls = 0

    def ask(images: torch.Tensor) -> Said:
        nonlocal calls
        calls += 1
        logits, alarms = [], []
        with torch.no_grad(), evaluating(model), drawing(seed, "query", calls, device=images.device):
            for part in images.split(batch_size):
                said, alarm = heard(model, part)
                logits.append(said)
                alarms.append(alarm)
        whole = torch.cat(logits)
        alarm = None if alarms[0] is None else torch.cat([one for one in alarms if one is not None])
        return Said(answered(whole, alarm).cpu(), whole.double().cpu())

    return ask


def _heard(ask: Asked, points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """float64, N: below 0 where the target is fooled; how far the true class is ahead, or 1 where that is not
    said. An image that is rejected fools nobody."""
    said = ask(points)
    names, true = said.labels.to(labels.device), labels
    fooled = (names != true) & (names != REJECTED)
    if said.scores is None:
        margin = torch.ones(len(labels), dtype=torch.float64, device=labels.device)
    else:
        scores = said.scores.to(labels.device)
        own = scores.gather(1, true[:, None])[:, 0]
        margin = (own - scores.scatter(1, true[:, None], -torch.inf).amax(dim=1)).clamp(min=0.0)
    return torch.where(fooled, -1.0, margin)
