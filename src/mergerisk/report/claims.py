"""Claims of a study as the report shows them: a sentence, what was found, and the figures behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError
from mergerisk.report.formatting import MISSING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FIGURES = (
    ("test", "test"), ("effect", "effect"), ("interval", "95% interval"), ("p_value", "p"),
    ("p_adjusted", "p, adjusted"), ("tested_over", "tested over"), ("saturated", "saturated cells"),
)  # fmt: skip
"""Fields of a claim that have a name of their own on the page, in this order; others follow under theirs."""

HOLDS = {"holds", "supported", "confirmed", "true"}
FAILS = {"fails", "refuted", "contradicted", "rejected", "false"}


@dataclass(frozen=True)
class AttackerView:
    """The claim for one attacker: whose attacks, ✓, ✗ or ○, the verdict, effect and interval, which may be
    empty."""

    attacker: str
    mark: str
    verdict: str
    effect: str
    interval: str


@dataclass(frozen=True)
class ClaimView:
    """One claim, ready to be laid out.

    Attributes:
        sentence: what is claimed.
        verdict: what was found, in the words of whoever tested it.
        reason: why; may be empty.
        mark: a sign beside the verdict: ✓ holds, ✗ fails, ○ anything else.
        figures: (name, text) of what stands behind it.
        compared: what was compared with what; may be empty.
        cautions: what limits it, a sentence each.
        attacker: whose attacks the verdict is about; may be empty.
        attackers: the same claim for each attacker, and for all pooled; empty where there is one.
    """

    sentence: str
    verdict: str
    reason: str
    mark: str
    figures: tuple[tuple[str, str], ...]
    compared: str = ""
    cautions: tuple[str, ...] = ()
    attacker: str = ""
    attackers: tuple[AttackerView, ...] = ()


def claim_views(claims: Iterable[Mapping[str, Any]]) -> tuple[ClaimView, ...]:
    """Plain dicts into what the page and the exports show.

    Raises:
        UserError: a claim lacks its sentence or its verdict.
    """
    return tuple(_view(position, claim) for position, claim in enumerate(claims))


def _view(position: int, claim: Mapping[str, Any]) -> ClaimView:
    """A claim's dict, told apart into what has its own place on the page and figures under their names."""
    lacking = [name for name in ("sentence", "verdict") if not str(claim.get(name) or "").strip()]
    if lacking:
        raise UserError(f"claim {position}: has no {' and no '.join(lacking)}; give it one")
    named = dict(FIGURES)
    taken = {
        "name",
        "sentence",
        "verdict",
        "reason",
        "compared",
        "cautions",
        "detail",
        "attacker",
        "attackers",
        *named,
    }
    figures = [
        (label, _chance(claim[name]) if name.startswith("p_") else figure(claim[name]))
        for name, label in FIGURES
        if claim.get(name) is not None
    ]
    figures += [
        (str(name).replace("_", " "), figure(value))
        for name, value in claim.items()
        if name not in taken and value is not None
    ]
    verdict = str(claim["verdict"])
    return ClaimView(
        str(claim["sentence"]),
        verdict,
        str(claim.get("reason") or ""),
        _mark(verdict),
        tuple(figures),
        str(claim.get("compared") or ""),
        tuple(str(caution) for caution in claim.get("cautions") or ()),
        str(claim.get("attacker") or ""),
        tuple(_attacker(part) for part in claim.get("attackers") or ()),
    )


def _attacker(part: Mapping[str, Any]) -> AttackerView:
    verdict = str(part.get("verdict") or MISSING)
    return AttackerView(
        str(part.get("attacker") or MISSING),
        _mark(verdict),
        verdict,
        str(part.get("effect") or ""),
        str(part.get("interval") or ""),
    )


def _mark(verdict: str) -> str:
    """✓, ✗ or ○ for a verdict in whoever's words."""
    word = verdict.strip().lower()
    return "✓" if word in HOLDS else "✗" if word in FAILS else "○"


def _chance(p: Any) -> str:
    """A p-value; nobody needs the digits of a very small one."""
    return "< 1e-12" if isinstance(p, float) and p < 1e-12 else figure(p)


def figure(value: Any) -> str:
    """A figure in three digits, an interval or list of them in brackets, anything else as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return MISSING if math.isnan(value) else f"{value:.3g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(figure(item) for item in value)}]"
    return str(value)
