"""What lowers the risk, as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.price_picture import price_svg
from mergerisk.report.price_words import (
    accuracy_text,
    attacker_row,
    basis,
    check_text,
    headline,
    illusion,
    memory_text,
    row_of,
    time_text,
    training_text,
    verdict,
)

if TYPE_CHECKING:
    from markupsafe import Markup

    from mergerisk.report.prices import Offer, PriceList


@dataclass(frozen=True)
class OfferView:
    """One defended target.

    Attributes:
        name: of the target.
        undefended: what is defended.
        verdict: whether it may be said to defend.
        accuracy: clean, with and without.
        takes: time, training and memory.
        attackers: a row per attacker.
        checks: a line each.
    """

    name: str
    undefended: str
    verdict: str
    accuracy: str
    takes: str
    attackers: tuple[tuple[str, ...], ...]
    checks: tuple[str, ...]


@dataclass(frozen=True)
class PricesView:
    """The section.

    Attributes:
        headline: what helps, at a glance.
        illusion: how much only seems to.
        picture: of accuracy against ε50; None without a figure.
        rows: a row per defended target.
        offers: everything of each.
        basis: what the figures are.
    """

    headline: str
    illusion: str
    picture: Markup | None
    rows: tuple[tuple[str, ...], ...]
    offers: tuple[OfferView, ...]
    basis: str


def prices_view(found: PriceList | None) -> PricesView | None:
    """The section of a run with defenses; None of others."""
    if found is None:
        return None
    return PricesView(
        headline(found),
        illusion(found),
        price_svg(found),
        tuple(row_of(offer, found.epsilons) for offer in found.offers),
        tuple(_offer(offer, found) for offer in found.offers),
        basis(found),
    )


def _offer(offer: Offer, found: PriceList) -> OfferView:
    priced, cost = offer.priced, offer.cost
    return OfferView(
        priced.target,
        priced.undefended,
        verdict(offer),
        f"{accuracy_text(priced.accuracy.defended)}, undefended {accuracy_text(priced.accuracy.undefended)}",
        f"answer {time_text(cost)} per image; training {training_text(cost)}; memory {memory_text(cost)}",
        tuple(attacker_row(one, found.epsilons) for one in priced.attackers),
        tuple(check_text(check) for check in offer.checks),
    )
