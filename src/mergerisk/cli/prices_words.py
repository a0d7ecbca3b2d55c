"""What ``mergerisk prices`` prints: what each defense gains and costs, attacker by attacker, and its checks."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from mergerisk.report.price_words import (
    ATTACKERS,
    COLUMNS,
    accuracy_text,
    attacker_row,
    basis,
    check_text,
    headline,
    illusion,
    memory_text,
    row_of,
)
from mergerisk.text_tables import text_table

if TYPE_CHECKING:
    from mergerisk.report.prices import Offer, PriceList

WIDTH = 100
"""Columns of the longest line of text; tables may be wider."""


def describe_prices(found: PriceList) -> str:
    """Everything, in lines of at most :data:`WIDTH` columns but for the tables and the checks."""
    table = text_table([COLUMNS, *(row_of(offer, found.epsilons) for offer in found.offers)], ruled=True)
    sections = [_section(offer, found) for offer in found.offers]
    return "\n\n".join([f"{fill(headline(found), WIDTH)}\n{fill(illusion(found), WIDTH)}", table, *sections,
                        fill(basis(found), WIDTH)])  # fmt: skip


def _section(offer: Offer, found: PriceList) -> str:
    priced = offer.priced
    head = (
        f"{priced.target}: clean accuracy {accuracy_text(priced.accuracy.defended)}, undefended "
        f"{accuracy_text(priced.accuracy.undefended)}; memory {memory_text(offer.cost)}"
    )
    table = text_table([ATTACKERS, *(attacker_row(one, found.epsilons) for one in priced.attackers)], ruled=True)
    return "\n".join([head, table, *(f"  {check_text(check)}" for check in offer.checks)])
