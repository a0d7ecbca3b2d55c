"""What is said of defenses in words and figures: terminal, page, audit and exports say the same.

The word *defends* is used where every check passed and something is gained, and nowhere else.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mergerisk.report.epsilon50 import epsilon50_text
from mergerisk.report.formatting import MISSING, budget, count, listing, plural, with_interval
from mergerisk.report.naming import holder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.report.prices import Cost, FoundCheck, Offer, PriceList
    from mergerisk.statistics.priced import Bounded, Kind, Price

KNOWS: Mapping[Kind, str] = {
    "unaware": "does not know",
    "aware": "knows the defense",
    "adaptive": "sees through it",
    "unseen": "unknown to it",
    "own_merge": "merges alike",
    "undefended": "holds the merge, does not know",
    "white_box": "holds all: upper bound",
}
"""What an attacker knows of a defense."""

COLUMNS = (
    "defended", "ε50, worst attacker", "undefended", "gain", "unaware gain", "clean points lost", "extra time",
    "training", "checks",
)  # fmt: skip
ATTACKERS = (
    "attack made on", "knows", "by", "ε50", "undefended", "gain", "relative ASR", "undefended", "difference",
    "images",
)  # fmt: skip


def row_of(offer: Offer, epsilons: Sequence[float]) -> tuple[str, ...]:
    """A defended target in short; see `COLUMNS`."""
    priced, worst = offer.priced, offer.priced.worst
    return (
        priced.target,
        half_text(worst.epsilon50, epsilons) if worst else MISSING,
        half_text(worst.undefended_epsilon50, epsilons) if worst else MISSING,
        gain_text(worst),
        gain_text(priced.unaware),
        lost_text(offer),
        time_text(offer.cost),
        training_text(offer.cost),
        verdict(offer),
    )


def attacker_row(price: Price, epsilons: Sequence[float]) -> tuple[str, ...]:
    """One attacker on a defended target; see `ATTACKERS`."""
    return (
        holder(price.surrogate),
        KNOWS[price.kind],
        price.attack,
        half_text(price.epsilon50, epsilons),
        half_text(price.undefended_epsilon50, epsilons) if price.beside else MISSING,
        gain_text(price),
        ratio_text(price.relative_asr),
        ratio_text(price.undefended_relative_asr),
        difference_text(price.relative_difference),
        count(price.images),
    )


def verdict(offer: Offer) -> str:
    """Whether it may be said to defend; if not, why."""
    if offer.not_shown or not offer.checks:
        return f"not shown to defend: {', '.join(offer.not_shown) or 'no check was made'}"
    return "defends" if offer.defends else "every check passed, nothing gained beyond chance"


def headline(found: PriceList) -> str:
    """What helps, at a glance: the largest gain under the worst attacker of what is shown to defend."""
    shown = [offer for offer in found.offers if offer.checks and not offer.not_shown]
    total = plural(len(found.offers), "defended model")
    if not shown:
        return f"Of {total} none is shown to defend."
    helping = [offer for offer in shown if offer.defends]
    said = f"Of {total} {len(shown)} {'passes' if len(shown) == 1 else 'pass'} every check"
    if not helping:
        return f"{said}; none has a higher ε50 under its worst attacker than without, beyond chance."
    best = max(helping, key=lambda offer: offer.priced.worst.gain.value if offer.priced.worst else 0.0)
    assert best.priced.worst is not None
    return (
        f"{said}. Most is gained by {best.priced.target}: {gain_text(best.priced.worst)} the ε50 under its worst "
        f"attacker, for {lost_text(best)} points of clean accuracy."
    )


def illusion(found: PriceList) -> str:
    """How much of what defenses seem to gain is gone before attackers who know."""
    gone = [
        offer.priced.target
        for offer in found.offers
        if (worst := offer.priced.worst) is not None
        and (unaware := offer.priced.unaware) is not None
        and worst.epsilon50.value < unaware.epsilon50.value
    ]
    if not gone:
        return "No attacker who knows a defense is worse for it than those who do not."
    fall = "falls" if len(gone) == 1 else "fall"
    return f"{listing(gone)} {fall} sooner to attackers who know than to those who do not."


def half_text(half: Bounded, epsilons: Sequence[float]) -> str:
    """An ε50 with its interval."""
    if math.isnan(half.value):
        return MISSING
    value, low, high = (
        epsilon50_text(-math.inf if end == 0 else end, epsilons) for end in (half.value, half.low, half.high)
    )
    return f"{value} [{low}, {high}]" if 0 < half.value < math.inf else value


def gain_text(price: Price | None) -> str:
    """How many times the undefended ε50; bounded where one lies beyond the budgets."""
    if price is None or price.bound == "unknown" or math.isnan(price.gain.value):
        return MISSING
    sign = {"exact": "", "at_least": "≥ ", "at_most": "≤ "}[price.bound]
    gain = price.gain
    return f"{sign}×{gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}]"


def lost_text(offer: Offer) -> str:
    """Percentage points of clean accuracy, with their interval."""
    lost = offer.priced.accuracy.lost
    return (
        MISSING
        if math.isnan(lost.value)
        else f"{100 * lost.value:.1f} [{100 * lost.low:.1f}, {100 * lost.high:.1f}]"
    )


def accuracy_text(accuracy: Bounded) -> str:
    """A clean accuracy with its interval."""
    return with_interval(accuracy.value, accuracy.low, accuracy.high, 1)


def ratio_text(found: Bounded) -> str:
    """A relative ASR with its interval."""
    if math.isnan(found.value):
        return MISSING
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def difference_text(found: Bounded) -> str:
    """A difference of relative ASRs with its interval."""
    return MISSING if math.isnan(found.value) else f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def time_text(cost: Cost) -> str:
    """What an answer takes more than an undefended one."""
    more = 1000 * (cost.seconds - cost.undefended_seconds)
    passes = f", {cost.passes} passes" if cost.passes > 1 else ""
    return f"{more:+.2f} ms{passes}"


def training_text(cost: Cost) -> str:
    """What was trained to make it of the undefended model."""
    if not cost.training and not cost.gradient:
        return "none"
    crafted = f", {count(cost.gradient)} gradients" if cost.gradient else ""
    return f"{count(cost.training)} images{crafted}"


def memory_text(cost: Cost) -> str:
    """Weights that are kept besides those of the undefended model."""
    more = (cost.bytes - cost.undefended_bytes) / 2**20
    return "none" if more == 0 else f"{more:+.1f} MiB"


def check_text(check: FoundCheck) -> str:
    """A check in a line: how it came out, its figure and what that is."""
    mark = {True: "passed", False: "failed", None: "missing"}[check.passed]
    figure = "" if math.isnan(check.figure) else f" {check.figure:.3g}"
    limit = "" if math.isnan(check.limit) else f", limit {check.limit:.3g}"
    return f"{check.name}: {mark}{figure}{limit} ({check.says}; {plural(check.images, 'image')})"


def in_a_line(offer: Offer, found: PriceList) -> str:
    """A defended target in a sentence of a terminal."""
    priced, worst = offer.priced, offer.priced.worst
    said = f"{priced.target}: {verdict(offer)}; {lost_text(offer)} clean points lost"
    if worst is None:
        return said
    return (
        f"{said}; ε50 {half_text(worst.epsilon50, found.epsilons)} under {holder(worst.surrogate)}, undefended "
        f"{half_text(worst.undefended_epsilon50, found.epsilons)}"
    )


def basis(found: PriceList) -> str:
    """What the figures are."""
    return (
        "Every attacker uses the attack that is strongest from what it holds. ε50: the budget at which the mean "
        "ASR over tasks crosses one half; gain: how many times that of the undefended model, on the same images, "
        "under the same attacker, who knows of no defense there; worst attacker: of those who hold no merge, each "
        f"model’s own. Relative ASR at {budget(found.epsilon)}. Clean points: percentage points, on whole test "
        "splits. In brackets: 95% intervals, over images. Defends: said only where every check passed "
        "and the worst attacker’s ε50 rises, beyond chance."
    )
