"""A comparison in the terminal's words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mergerisk.report.comparison.reading import accuracy_by_model, conclusion
from mergerisk.report.formatting import MISSING, listing, plural
from mergerisk.text_tables import text_table

if TYPE_CHECKING:
    from mergerisk.report.comparison.comparing import Comparison

MOST_FIELDS = 12


def comparison_text(found: Comparison) -> str:
    """What a terminal shows: the conclusion, fields that differ, and a line per target."""
    lines = [f"A  {found.names[0]} ({found.studies[0]})", f"B  {found.names[1]} ({found.studies[1]})", ""]
    lines += conclusion(found)
    if found.fields:
        lines += ["", "They differ in:"]
        lines += [f"  {field.field}: {field.a} → {field.b}" for field in found.fields[:MOST_FIELDS]]
        if len(found.fields) > MOST_FIELDS:
            lines.append(f"  and {plural(len(found.fields) - MOST_FIELDS, 'more field')}")
    for only in found.only:
        for name, here in (("A", only.a), ("B", only.b)):
            if here:
                lines.append(f"Only {name} has {only.axis} {listing(list(here), limit=6)}.")
    if len(found.targets):
        accuracies = accuracy_by_model(found)
        rows = [("target", "settings", "ΔASR", "Δ relative ASR", "Δ clean accuracy")]
        rows += [
            (
                str(row["target"]),
                str(row["settings"]),
                difference(row["asr_difference"], row["asr_low"], row["asr_high"]),
                difference(row["relative_difference"], row["relative_low"], row["relative_high"]),
                difference(accuracies.get(str(row["target"]), math.nan)),
            )
            for row in found.targets.to_dict("records")
        ]
        lines += ["", text_table(rows, right=True)]
        lines.append("B − A in percentage points, means over settings; 95% bootstrap intervals over images.")
    return "\n".join(lines)


def difference(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A difference of rates in percentage points: ``+2.1 [−0.3, +4.4]``."""
    if not math.isfinite(value):
        return MISSING
    text = signed(value)
    return f"{text} [{signed(low)}, {signed(high)}]" if math.isfinite(low) and math.isfinite(high) else text


def signed(value: float) -> str:
    """``+2.1``, ``−0.3`` or ``0.0``: percentage points of a rate."""
    points = round(100 * value, 1)
    return "0.0" if points == 0 else f"{'+' if points > 0 else '−'}{abs(points):.1f}"
