"""What a diagnostic gives: columns of numbers, each with the reasons why some are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    import torch
    from numpy.typing import NDArray

Per = Literal["image", "pair"]
"""What a diagnostic has a value for: every image, or every part of a pair of models (a block, a tensor, a
path)."""

NOT_FINITE = "not a finite number"
"""The reason of a value that overflowed."""


@dataclass(frozen=True)
class Column:
    """What one column of a diagnostic holds.

    Attributes:
        name: no two columns of different diagnostics share one.
        unit: of its values.
        low: the least value; None where there is no bound.
        high: the largest value; likewise.
        reading: what a large value is expected to mean.
        per_block: whether there is besides a column for every block, ``NAME_block_0`` and so on.
    """

    name: str
    unit: str
    low: float | None
    high: float | None
    reading: str
    per_block: bool = False


@dataclass(frozen=True, eq=False)
class Values:
    """Numbers, and why some are missing.

    Attributes:
        values: float64; NaN exactly where one is missing.
        missing: reason → where it is the reason; no entry has two.
    """

    values: NDArray[np.float64]
    missing: Mapping[str, NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def present(self) -> NDArray[np.float64]:
        """The values that are not missing."""
        return self.values[np.isfinite(self.values)]

    @property
    def mean(self) -> float | None:
        """Of the values that are there; None if none is."""
        there = self.present
        return float(there.mean()) if len(there) else None

    @property
    def counts(self) -> dict[str, int]:
        """Reason → how many values are missing for it."""
        return {reason: int(where.sum()) for reason, where in self.missing.items() if where.any()}

    @property
    def reasons(self) -> list[str]:
        """One per value; empty where there is a value."""
        found = [""] * len(self)
        for reason, where in self.missing.items():
            for position in np.flatnonzero(where):
                found[position] = reason
        return found


@dataclass(frozen=True, eq=False)
class Measured(Mapping[str, Values]):
    """The columns of one diagnostic, by name.

    Attributes:
        cause: the diagnostic's name.
        per: what a row is.
        rows: the images' identities, or the names of the parts.
        columns: name → its values, one per row.
    """

    cause: str
    per: Per
    rows: tuple[int, ...] | tuple[str, ...]
    columns: Mapping[str, Values]

    def __getitem__(self, name: str) -> Values:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        means = {name: "none" if found.mean is None else f"{found.mean:.4g}" for name, found in self.items()}
        shown = ", ".join(f"{name}: mean {mean}" for name, mean in means.items())
        return f"Measured({self.cause}, {len(self.rows)} rows; {shown})"

    def frame(self) -> pd.DataFrame:
        """A row per image or part; beside every column, ``NAME_missing`` with the reason where a value is
        missing, NaN in the column itself."""
        import pandas as pd

        index = pd.Index(list(self.rows), name="image" if self.per == "image" else "part")
        found: dict[str, object] = {}
        for name, column in self.items():
            found |= {name: column.values, f"{name}_missing": column.reasons}
        return pd.DataFrame(found, index=index)


def stated(
    values: torch.Tensor | Sequence[float], missing: Mapping[str, torch.Tensor | Sequence[bool]] | None = None
) -> Values:
    """Values with the reasons why some are missing: of several that hold, the first. What is not finite for none
    of them is missing all the same."""
    numbers = np.array(_array(values), dtype=np.float64)
    taken = np.zeros(len(numbers), dtype=bool)
    found = {}
    for reason, where in (missing or {}).items():
        own = np.array(_array(where), dtype=bool) & ~taken
        taken |= own
        found[reason] = own
    broken = ~np.isfinite(numbers) & ~taken
    found[NOT_FINITE] = broken
    numbers[taken | broken] = np.nan
    return Values(numbers, {reason: where for reason, where in found.items() if where.any()})


def joined(parts: Sequence[Values]) -> Values:
    """Values one after the other."""
    reasons = dict.fromkeys(reason for part in parts for reason in part.missing)
    return Values(
        np.concatenate([np.empty(0), *(part.values for part in parts)]),
        {
            reason: np.concatenate([part.missing.get(reason, np.zeros(len(part), dtype=bool)) for part in parts])
            for reason in reasons
        },
    )


def _array(values: torch.Tensor | Sequence[float] | Sequence[bool]) -> object:
    return values if isinstance(values, Sequence) else values.detach().cpu().numpy()
