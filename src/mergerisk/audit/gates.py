"""Gates: conditions under which an audit fails, so that it can stand in a release pipeline."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.errors import UserError, did_you_mean
from mergerisk.validation import check_epsilon, parse_fraction

if TYPE_CHECKING:
    from collections.abc import Callable

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

AT_A_BUDGET = (
    "asr", "asr_low", "asr_high", "asr_all", "asr_all_low", "asr_all_high",
    "relative_asr", "relative_asr_low", "relative_asr_high", "delta_asr",
)  # fmt: skip
"""Measures of one surrogate at one budget, under the strongest attack."""

OF_A_CURVE = ("epsilon50",)
"""Measures of one surrogate over all budgets."""

OF_A_MODEL = ("clean_accuracy", "clean_accuracy_low", "clean_accuracy_high")
"""Measures of the audited model alone."""

_SHARES = ("asr", "clean_accuracy")
"""What measures begin with that lie in [0, 1]."""

_GRAMMAR = "MEASURE > NUMBER [at EPSILON] [from SURROGATE] [on MODEL], such as 'asr > 50% at 4/255'"

_PATTERN = re.compile(
    r"\s*(?P<measure>\w+)\s*(?P<comparison>>=|<=|>|<)\s*(?P<limit>[^\s%]+)(?:(?P<percent>\s*%)(?=\s|$|at\b|from\b|on\b))?"
    r"(?:(?:\s+|(?<=%))at\s+(?P<epsilon>\S+))?(?:(?:\s+|(?<=%))from\s+(?P<surrogate>\S+))?(?:(?:\s+|(?<=%))on\s+(?P<model>\S+))?\s*"
)


@dataclass(frozen=True)
class Gate:
    """One condition.

    Attributes:
        text: as it was written.
        measure: what is compared.
        comparison: ``>``, ``>=``, ``<`` or ``<=``.
        limit: with what.
        epsilon: at which budget, in pixel units; None for any that was measured.
        surrogate: from which surrogate; None for any but the audited model itself.
        model: on which model; None for every one to be released, or else the one that is recommended.
    """

    text: str
    measure: str
    comparison: str
    limit: float
    epsilon: float | None = None
    surrogate: str | None = None
    model: str | None = None

    def holds(self, value: float) -> bool:
        """Whether a value makes the audit fail; one that is not known never does."""
        return _COMPARISONS[self.comparison](value, self.limit)


def parse_gate(text: str) -> Gate:
    """``asr > 50% at 4/255``: fail if some surrogate's attacks fool the model on more than half of the images.

    Args:
        text: ``MEASURE > NUMBER``, then optionally ``at EPSILON``, ``from SURROGATE`` and ``on MODEL``. A number
            may be a fraction, or a percentage. :data:`AT_A_BUDGET`, :data:`OF_A_CURVE` and :data:`OF_A_MODEL` list
            the measures.

    Raises:
        UserError: it cannot be understood; the message says how a gate is written.
    """
    text = " ".join(text.split())
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise UserError(f"gate {text!r}: write {_GRAMMAR}")
    known = (*AT_A_BUDGET, *OF_A_CURVE, *OF_A_MODEL)
    measure = found["measure"]
    if measure not in known:
        raise UserError(f"gate {text!r}: unknown measure {measure!r}{did_you_mean(measure, known)}")
    try:
        limit = parse_fraction(found["limit"]) / (100 if found["percent"] else 1)
        epsilon = None if found["epsilon"] is None else check_epsilon(parse_fraction(found["epsilon"]))
    except ValueError as error:
        raise UserError(f"gate {text!r}: {error}") from error
    if measure.startswith(_SHARES) and not 0 <= limit <= 1:
        raise UserError(f"gate {text!r}: {measure} is a share, from 0 to 1; write 0.9 or 90%")
    if epsilon is not None and measure not in AT_A_BUDGET:
        raise UserError(f"gate {text!r}: {measure} belongs to no single budget; leave out 'at {found['epsilon']}'")
    if found["surrogate"] is not None and measure in OF_A_MODEL:
        raise UserError(f"gate {text!r}: {measure} belongs to no surrogate; leave out 'from {found['surrogate']}'")
    return Gate(text, measure, found["comparison"], limit, epsilon, found["surrogate"], found["model"])
