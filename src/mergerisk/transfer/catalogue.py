"""Searches by queries, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.registry import Entry, Registry

if TYPE_CHECKING:
    from mergerisk.transfer.query_search import QuerySearch

_SEARCH = "mergerisk.transfer.query_search"

SEARCHES: Registry[type[QuerySearch]] = Registry(
    "query search",
    "mergerisk.query_searches",
    [
        Entry("square", f"{_SEARCH}:SquareSearch", "random squares", "arXiv 1912.00049"),
        Entry("simba_ods", f"{_SEARCH}:SimBAODS", "the surrogate's directions", "arXiv 2003.06878"),
    ],
)
"""Ways to go on from a transferred image by queries: what ``searches`` of the table ``queries`` can name."""
