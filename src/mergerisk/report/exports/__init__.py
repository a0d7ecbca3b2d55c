"""A summary as files for other programs and for papers: JSON, CSV, Parquet, Markdown, LaTeX, SVG and PNG."""

from __future__ import annotations

from mergerisk.report.exports.writing import FORMATS, parse_formats, write_exports

__all__ = ["FORMATS", "parse_formats", "write_exports"]
