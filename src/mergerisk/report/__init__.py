"""A finished study → one self-contained HTML page, and the same figures as JSON.

`Summary` is the only input. Small pure functions turn it into what the page shows; the templates only lay
out.
"""

from __future__ import annotations

from mergerisk.report.export import summary_schema, summary_to_json
from mergerisk.report.page import render_html
from mergerisk.report.summary import (
    ACCURACY_COLUMNS,
    EPSILON50_COLUMNS,
    FLAG_COLUMNS,
    RESULT_COLUMNS,
    SCHEMA_VERSION,
    Example,
    RunRecord,
    StageTime,
    Summary,
)

__all__ = [
    "ACCURACY_COLUMNS",
    "EPSILON50_COLUMNS",
    "FLAG_COLUMNS",
    "RESULT_COLUMNS",
    "SCHEMA_VERSION",
    "Example",
    "RunRecord",
    "StageTime",
    "Summary",
    "render_html",
    "summary_schema",
    "summary_to_json",
]
