"""Two finished runs side by side: what both hold, what only one does, and by how much they differ."""

from __future__ import annotations

from mergerisk.report.comparison.comparing import Comparison, compare_runs
from mergerisk.report.comparison.page import comparison_html, write_comparison
from mergerisk.report.comparison.text import comparison_text

__all__ = ["Comparison", "compare_runs", "comparison_html", "comparison_text", "write_comparison"]
