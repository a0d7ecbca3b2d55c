"""What is said of a table: enough to read and to show it without the code that made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

ShownBy = Literal["median", "mean"]
"""What pages and papers show of many rows."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: of the column.
        holds: a ``name`` (of a task, an attack, a model), a ``number``, a ``reason`` why a number is missing, a
            ``setting``, a number that tells rows apart as names do, or ``yes_no``, 1 or 0, whose mean is a rate.
        meaning: in words, with units.
    """

    name: str
    holds: Literal["name", "number", "reason", "setting", "yes_no"]
    meaning: str


@dataclass(frozen=True)
class Declared:
    """A table from outside.

    Attributes:
        name: of the table, and of its file without ``.parquet``.
        one_row_per: what a row is about.
        columns: in their order.
        may_be_empty: whether a run may leave it without rows.
        shown_by: what pages and papers show of many rows: the ``median`` of each number, or its ``mean`` with an
            interval.

    Raises:
        ValueError: the name is none of a file.
    """

    name: str
    one_row_per: str
    columns: tuple[Column, ...]
    may_be_empty: bool = False
    shown_by: ShownBy = "median"

    def __post_init__(self) -> None:
        if not self.name.isidentifier():  # it becomes a file's, of the run's folder and of exports
            raise ValueError(f"a table's name must be a word of letters, digits and _, got {self.name!r}")

    @property
    def file(self) -> str:
        """Of the run's folder."""
        return f"{self.name}.parquet"

    def names(self) -> list[str]:
        """The columns that hold names."""
        return [column.name for column in self.columns if column.holds == "name"]

    def numbers(self) -> list[str]:
        """The columns that hold numbers."""
        return [column.name for column in self.columns if column.holds == "number"]

    def fault_of(self, table: pd.DataFrame) -> str | None:
        """Why a table is not what it is declared to be, in words; None if it is."""
        from pandas.api.types import is_numeric_dtype  # planning does without

        for column in self.columns:
            if column.name not in table.columns:
                return f"lacks the column {column.name!r}"
            if column.holds in {"number", "setting", "yes_no"} and not is_numeric_dtype(table[column.name]):
                return f"the column {column.name!r} holds no numbers"
        return "holds no rows" if table.empty and not self.may_be_empty else None

    def to_plain(self) -> dict[str, Any]:
        """As plain data; see :meth:`from_plain`."""
        columns = [{"name": c.name, "holds": c.holds, "meaning": c.meaning} for c in self.columns]
        plain = {"one_row_per": self.one_row_per, "columns": columns, "may_be_empty": self.may_be_empty}
        return plain if self.shown_by == "median" else {**plain, "shown_by": self.shown_by}

    @classmethod
    def from_plain(cls, name: str, content: Mapping[str, Any]) -> Declared:
        """What :meth:`to_plain` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        columns = tuple(Column(**column) for column in content["columns"])
        shown_by = content.get("shown_by", "median")
        if shown_by not in get_args(ShownBy):
            raise ValueError(f"unknown shown_by {shown_by!r}")
        return cls(name, content["one_row_per"], columns, content["may_be_empty"], shown_by)
