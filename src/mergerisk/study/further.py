"""The tables that a study can ask for, by name."""

from __future__ import annotations

from typing import Any

from mergerisk.registry import Entry, Registry

TABLES: Registry[type[Any]] = Registry(
    "table",
    "mergerisk.tables",
    [
        Entry("stealth", "mergerisk.study.tables.stealth:StealthTable", "how little each attacked image shows it"),
        Entry("queries", "mergerisk.study.tables.queries:QueriesTable", "what a few queries add to transfer"),
    ],
)
"""Kinds of :class:`~mergerisk.study.tables.table.RunTable` by what stands under ``tables``; plugins add to it."""
