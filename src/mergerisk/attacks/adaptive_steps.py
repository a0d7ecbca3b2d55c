"""APGD: projected gradient steps whose size follows what they gain."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, PositiveInt

from mergerisk.attacks.attack import Crafted
from mergerisk.attacks.gradient_attack import GradientAttack, Run, losses_averaged
from mergerisk.attacks.gradients import gradient_sizes
from mergerisk.attacks.losses import closeness, difference_of_logits_ratio
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.attacks.attack import Problem


@dataclass(frozen=True)
class _Looked:
    """Points that the classifier was asked about.

    Attributes:
        points: N × C × H × W.
        gradient: there, of the gain.
        gain: N, of what grows.
        wanted: N: whether the classifier says what the attack wants.
    """

    points: torch.Tensor
    gradient: torch.Tensor
    gain: torch.Tensor
    wanted: torch.Tensor

    def replaced(self, where: torch.Tensor, other: _Looked) -> _Looked:
        """The same with other's, of the images where that is asked for."""
        pairs = [(getattr(other, field.name), getattr(self, field.name)) for field in fields(self)]
        return _Looked(*(torch.where(where.view(-1, *[1] * (new.ndim - 1)), new, old) for new, old in pairs))


@hyperparameters
class APGD(GradientAttack):
    """Auto-PGD (Croce and Hein 2020, arXiv 2003.01690, algorithm 1): steps start at 2ε, with momentum between
    iterates; at checkpoints, ever closer to each other, an image whose gain rose too seldom, or whose best has
    stood still at an unchanged step size, goes on from its best point with half the step.

    Checkpoints are those of the authors' code, whole numbers of steps, the paper's at 100. The first rise is
    counted against the start, where that code compares with zero. Of an image it returns the point of largest gain
    among those at which the surrogate is fooled, or of all if there is none; that code has the last such point.

    Attributes:
        steps: as the authors'; they cost one gradient more, at the start.
        rho: the share of steps that must have gained, ρ.
        weight: of a step against the last change, α.
    """

    steps: PositiveInt = 100
    rho: Annotated[float, Field(gt=0, le=1)] = 0.75
    weight: Annotated[float, Field(gt=0, le=1)] = 0.75

    def schedule(self, epsilon: float) -> tuple[int, float]:
        return self.steps, 2 * epsilon

    def estimates(self) -> int:
        return self.steps + 1

    def start(self, problem: Problem) -> torch.Tensor:
        return problem.ball.start(problem.random)

    def gains(self, problem: Problem, logits: torch.Tensor) -> torch.Tensor:
        """N: what grows."""
        return problem.sign * closeness(self.loss, logits, problem.classes)

    def perturb(self, problem: Problem) -> Crafted:
        steps, first = self.schedule(problem.epsilon)
        project, unit = problem.ball.project, problem.ball.unit
        kept = {}
        with torch.no_grad():
            look = self._looking(problem)
            now = best = chosen = at_checkpoint = look(self.start(problem))
            last = now.points
            zero_gradients = (gradient_sizes(now.gradient) == 0).long()
            step = torch.full_like(now.gain, first)
            rises, reduced = torch.zeros_like(zero_gradients), torch.ones_like(now.wanted)
            checkpoints, since = _checkpoints(steps), 0
            for number in range(1, steps + 1):
                moved = project(now.points + step[:, None, None, None] * unit(now.gradient))
                if number > 1:
                    ahead, before = moved - now.points, now.points - last
                    moved = project(now.points + self.weight * ahead + (1 - self.weight) * before)
                last, gain = now.points, now.gain
                now = look(moved)
                zero_gradients += gradient_sizes(now.gradient) == 0
                rises += now.gain > gain
                best = best.replaced(now.gain > best.gain, now)
                chosen = chosen.replaced(_preferred(now, chosen), now)
                if number in problem.after:
                    kept[number] = chosen.points
                if number in checkpoints:
                    seldom = rises < self.rho * (number - since)
                    stuck = seldom | (~reduced & (best.gain <= at_checkpoint.gain))
                    step = torch.where(stuck, step / 2, step)
                    now = now.replaced(stuck, best)
                    rises, reduced, at_checkpoint, since = torch.zeros_like(rises), stuck, best, number
        return Crafted(chosen.points, zero_gradients, after=kept)

    def _looking(self, problem: Problem) -> Callable[[torch.Tensor], _Looked]:
        """Asks about points, seen through the input transformations: gains, less the alarm where the classifier is
        watched, and answers are means over views."""
        said: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        members = losses_averaged(problem.classifier)

        def total(images: torch.Tensor) -> torch.Tensor:
            heard = [self.heard(member, images) for member in members]
            logits = torch.stack([one for one, _ in heard])
            gains = torch.stack([self.gains(problem, one) for one in logits]).mean(dim=0)
            alarms = [alarm for _, alarm in heard if alarm is not None]
            alarm = torch.stack(alarms).sum(dim=0) / len(members) if alarms else torch.zeros_like(gains)
            gains = gains - alarm if alarms else gains
            said.append((gains.detach(), logits.detach().mean(dim=0), alarm.detach()))
            return gains.sum()

        images = problem.images
        run = Run(problem, self._inputs(), self.gradient_of(total), 0.0, images, torch.zeros_like(images))

        def look(points: torch.Tensor) -> _Looked:
            said.clear()
            gradient = run.gradient(points)
            for part in self._filters():
                gradient = part.filter(gradient)
            gains, logits, alarm = (torch.stack(part).mean(dim=0) for part in zip(*said, strict=True))
            right = logits.argmax(dim=1) == problem.classes
            wanted = right if problem.targets is not None else ~right
            return _Looked(points, gradient, gains, wanted & (alarm == 0))

        return look


@hyperparameters
class APGDRatio(APGD):
    """APGD on the difference of logits ratio, which neither scale nor shift of the logits changes (Croce and Hein
    2020, arXiv 2003.01690, equations 6 and 7).

    Attributes:
        loss: what it is.
    """

    loss: Literal["dlr"] = "dlr"  # type: ignore[assignment]

    def gains(self, problem: Problem, logits: torch.Tensor) -> torch.Tensor:
        return difference_of_logits_ratio(logits, problem.labels, problem.targets)


def _preferred(new: _Looked, old: _Looked) -> torch.Tensor:
    """N: what fools before what does not; then what gains more."""
    return (new.wanted & ~old.wanted) | ((new.wanted == old.wanted) & (new.gain > old.gain))


def _checkpoints(steps: int) -> frozenset[int]:
    """After which steps a step size may be halved."""
    first, least, fewer = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    return frozenset(accumulate(max(first - number * fewer, least) for number in range(steps)))
