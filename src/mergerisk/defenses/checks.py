"""What must hold before one may say that a defense defends: signs that attacks on it failed for a reason of their
own (Carlini et al. 2019, arXiv 1902.06705; Athalye et al. 2018, arXiv 1802.00420; Pintor et al. 2022, arXiv
2106.09947).

Every check is a function of what attacks did to each image; limits are ours, and each result shows its figure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
from scipy.special import bdtrc

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Fooled = NDArray[np.bool_]
    """N: of the images that the defended model names rightly when clean, which it does not under attack."""

Key = TypeVar("Key")

Name = Literal[
    "transfer_is_no_stronger",
    "all_fall_in_the_end",
    "steps_help",
    "noise_fails",
    "queries_are_no_stronger",
    "gradients_are_there",
    "loss_has_settled",
    "restarts_change_nothing",
]
CHECKS: tuple[Name, ...] = get_args(Name)
"""Every check, in the order in which they are told."""

FEWEST = 20
"""Images below which nothing is said."""

_CHANCE = 0.05
"""Of a difference between two attacks on the same images, by an exact sign test, that is called none."""

_MOST_BY_NOISE = 0.05
_STILL_RISING = 0.05
_BY_RESTARTS = 0.02


@dataclass(frozen=True)
class Check:
    """How one check came out.

    Attributes:
        name: of the check.
        passed: None if it is missing: what it needs was not tried.
        figure: what was looked at; NaN if there is none.
        limit: what it is held against.
        means: what the figure is, in words.
    """

    name: Name
    passed: bool | None
    figure: float
    limit: float
    means: str


@dataclass(frozen=True, eq=False)
class Evidence:
    """What attacks did to the same N images, all of which the defended model names rightly when clean. What was
    not tried is left out, and the check that needs it is missing.

    Attributes:
        white_box: by the attacker who knows the defense and the model, at the budget in question.
        transferred: by attacks crafted on other models, the undefended one among them, by name.
        by_epsilon: by the white box, by budget: up to one at which nothing is left of an image.
        by_steps: by the white box, by number of steps.
        noise: by random noise of that budget.
        queried: by a query attack on the defended model.
        flat_steps: int, N: at how many steps the white box found no gradient, or a zero one.
        losses: N × steps, the loss that the white box raises, after every step.
        restarts: R × N, by each of its random starts.
    """

    white_box: Fooled | None = None
    transferred: Mapping[str, Fooled] = field(default_factory=dict)
    by_epsilon: Mapping[float, Fooled] = field(default_factory=dict)
    by_steps: Mapping[int, Fooled] = field(default_factory=dict)
    noise: Fooled | None = None
    queried: Fooled | None = None
    flat_steps: NDArray[np.int64] | None = None
    losses: NDArray[np.float64] | None = None
    restarts: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        counts = set(self._counts())
        if len(counts) > 1:
            raise UserError(f"checks need outcomes of the same images; there are {sorted(counts)} of them")

    @property
    def images(self) -> int:
        """How many there are; 0 where nothing was tried."""
        return next(self._counts(), 0)

    def _counts(self) -> Iterator[int]:
        """Of images, in everything that was tried."""
        for one in (self.white_box, self.noise, self.queried, self.flat_steps, self.losses):
            if one is not None:
                yield len(one)
        for several in (self.transferred, self.by_epsilon, self.by_steps):
            yield from map(len, several.values())
        if self.restarts is not None:
            yield self.restarts.shape[1]


def pooled(parts: Sequence[Evidence]) -> Evidence:
    """Evidence on other images together, of several tasks say: what all parts have. The largest budgets belong
    together, whatever they are.

    Args:
        parts: of the same defense; those without images say nothing.
    """
    known = [part for part in parts if part.images]
    if not known:
        return Evidence()

    def joined(values: Iterable[NDArray[Any] | None], axis: int = 0) -> NDArray[Any] | None:
        arrays = [value for value in values if value is not None]
        return np.concatenate(arrays, axis=axis) if len(arrays) == len(known) else None

    def shared(several: Sequence[Mapping[Key, NDArray[np.bool_]]]) -> dict[Key, NDArray[np.bool_]]:
        return {
            key: np.concatenate([one[key] for one in several])
            for key in several[0]
            if all(key in one for one in several)
        }

    by_epsilon = shared([part.by_epsilon for part in known])
    if all(part.by_epsilon for part in known):
        largest = [max(part.by_epsilon) for part in known]
        last = [part.by_epsilon[budget] for part, budget in zip(known, largest, strict=True)]
        by_epsilon[max(largest)] = np.concatenate(last)
    return Evidence(
        white_box=joined(part.white_box for part in known),
        transferred=shared([part.transferred for part in known]),
        by_epsilon=by_epsilon,
        by_steps=shared([part.by_steps for part in known]),
        noise=joined(part.noise for part in known),
        queried=joined(part.queried for part in known),
        flat_steps=joined(part.flat_steps for part in known),
        losses=joined(part.losses for part in known),
        restarts=joined((part.restarts for part in known), axis=1),
    )


def check(evidence: Evidence) -> tuple[Check, ...]:
    """Every check, in order; those are missing that lack what they need, and all of them where there are fewer
    than :data:`FEWEST` images."""
    if evidence.images < FEWEST:
        return tuple(_missing(name, f"fewer than {FEWEST} images") for name in CHECKS)
    white = evidence.white_box
    return (
        transfer_is_no_stronger(white, evidence.transferred),
        all_fall_in_the_end(evidence.by_epsilon),
        steps_help(evidence.by_steps),
        noise_fails(evidence.noise),
        queries_are_no_stronger(white, evidence.queried),
        gradients_are_there(evidence.flat_steps),
        loss_has_settled(evidence.losses),
        restarts_change_nothing(evidence.restarts),
    )


def defends(results: Iterable[Check]) -> bool:
    """Whether the word may be used: every check of :data:`CHECKS` is there and passed."""
    return not not_shown(results)


def not_shown(results: Iterable[Check]) -> tuple[Name, ...]:
    """The checks for whose sake it may not: those that failed or are missing, in order."""
    passed = {result.name: result.passed is True for result in results}
    return tuple(name for name in CHECKS if not passed.get(name, False))


def transfer_is_no_stronger(white_box: Fooled | None, transferred: Mapping[str, Fooled]) -> Check:
    """Who sees gradients fools at least as many as who does not. The figure is the lead of the strongest
    transferred attack in the share of images fooled; a lead that chance explains is none."""
    means = "lead of the strongest transferred attack over the white box, share of images"
    if white_box is None or not transferred:
        return _missing("transfer_is_no_stronger", means)
    leads = {name: float(fooled.mean() - white_box.mean()) for name, fooled in transferred.items()}
    name = max(leads, key=leads.__getitem__)
    stronger = any(_beats(fooled, white_box) for fooled in transferred.values())
    return Check("transfer_is_no_stronger", not stronger, leads[name], 0.0, f"{means}: {name}")


def all_fall_in_the_end(by_epsilon: Mapping[float, Fooled]) -> Check:
    """At the largest budget every image is fooled. The figure is the share that is."""
    means = "share fooled by the white box at the largest budget"
    if not by_epsilon:
        return _missing("all_fall_in_the_end", means)
    share = float(by_epsilon[max(by_epsilon)].mean())
    return Check("all_fall_in_the_end", share == 1.0, share, 1.0, f"{means}, {max(by_epsilon):.4g}")


def steps_help(by_steps: Mapping[int, Fooled]) -> Check:
    """More steps fool more images, or all; and no number of steps fewer than a smaller one. The figure is the rise
    from the fewest to the most, in the share of images."""
    means = "rise of the share fooled from the fewest steps to the most"
    if len(by_steps) < 2:
        return _missing("steps_help", means)
    rows = [by_steps[steps] for steps in sorted(by_steps)]
    rise = float(rows[-1].mean() - rows[0].mean())
    falls = any(_beats(fewer, more) for fewer, more in pairwise(rows))
    return Check("steps_help", (rise > 0 or bool(rows[-1].all())) and not falls, rise, 0.0, means)


def noise_fails(noise: Fooled | None) -> Check:
    """Random noise of the budget fools next to none. The figure is the share that it does."""
    means = "share fooled by random noise of the same budget"
    if noise is None:
        return _missing("noise_fails", means)
    share = float(noise.mean())
    return Check("noise_fails", share <= _MOST_BY_NOISE, share, _MOST_BY_NOISE, means)


def queries_are_no_stronger(white_box: Fooled | None, queried: Fooled | None) -> Check:
    """An attack without gradients fools no more than one with them. The figure is its lead, in the share of
    images; one that chance explains is none."""
    means = "lead of the query attack over the white box, share of images"
    if white_box is None or queried is None:
        return _missing("queries_are_no_stronger", means)
    lead = float(queried.mean() - white_box.mean())
    return Check("queries_are_no_stronger", not _beats(queried, white_box), lead, 0.0, means)


def gradients_are_there(flat_steps: NDArray[np.int64] | None) -> Check:
    """At every step of every image there is a gradient other than zero. The figure is how many images lack one at
    some step."""
    means = "images with a zero or missing gradient at some step"
    if flat_steps is None:
        return _missing("gradients_are_there", means)
    count = int((flat_steps > 0).sum())
    return Check("gradients_are_there", count == 0, float(count), 0.0, means)


def loss_has_settled(losses: NDArray[np.float64] | None) -> Check:
    """The loss has risen, and rises no more at the end. The figure is how much of the rise of the mean, the best
    so far of every image, came in the last tenth of the steps; infinite if there was none."""
    means = "share of the loss's rise in the last tenth of the steps"
    if losses is None or losses.shape[1] < 10:
        return _missing("loss_has_settled", means)
    best = np.maximum.accumulate(losses, axis=1).mean(axis=0)
    rise = best[-1] - best[0]
    last = best[-1] - best[-1 - losses.shape[1] // 10]
    share = float(last / rise) if rise > 0 else float("inf")
    return Check("loss_has_settled", share <= _STILL_RISING, share, _STILL_RISING, means)


def restarts_change_nothing(restarts: NDArray[np.bool_] | None) -> Check:
    """Any start fools what all of them together do. The figure is what they add to one, in the share of images,
    the mean over starts."""
    means = "what all random starts add to one, share of images"
    if restarts is None or len(restarts) < 2:
        return _missing("restarts_change_nothing", means)
    added = float(restarts.any(axis=0).mean() - restarts.mean())
    return Check("restarts_change_nothing", added <= _BY_RESTARTS, added, _BY_RESTARTS, means)


def _missing(name: Name, means: str) -> Check:
    return Check(name, None, float("nan"), float("nan"), means)


def _beats(one: Fooled, other: Fooled) -> bool:
    """Whether one attack fools more of the same images than another, by more than chance: one-sided sign test over
    the images that one of them alone fools."""
    ahead, behind = int((one & ~other).sum()), int((other & ~one).sum())
    return ahead > behind and float(bdtrc(ahead - 1, ahead + behind, 0.5)) < _CHANCE
