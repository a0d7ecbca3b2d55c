"""What a diagnostic gave, as a stage keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from mergerisk.causes.cause import Cause
    from mergerisk.causes.result import Measured


def kept(cause: Cause, found: Measured | str, images: tuple[int, ...]) -> Result:
    """Every column's values, float64 with NaN where one is missing, and beside it ``COLUMN/missing``: 0 where
    there is a value, else the place of its reason among ``reasons``, plus one.

    ``rows`` are the images' places in the test split, or in the info the names of the parts.

    Args:
        cause: the diagnostic.
        found: what it gave, or why it gave nothing.
        images: that it was asked about.
    """
    import numpy as np

    if isinstance(found, str):
        rows: tuple[Any, ...] = images if cause.per == "image" else ("all",)
        nothing = {column.name: np.full(len(rows), np.nan) for column in cause.columns}
        arrays: dict[str, Any] = {
            **nothing,
            **{f"{name}/missing": np.ones(len(rows), np.int8) for name in nothing},
        }
        reasons = [found]
    else:
        rows, reasons, arrays = found.rows, [], {}
        for name, values in found.items():
            codes = np.zeros(len(values), np.int8)
            for reason, where in values.missing.items():
                if reason not in reasons:
                    reasons.append(reason)
                codes[where] = 1 + reasons.index(reason)
            arrays |= {name: values.values, f"{name}/missing": codes}
    if cause.per == "image":
        return Result({**arrays, "rows": np.array(rows, dtype=np.int64)}, {"reasons": reasons})
    return Result(arrays, {"reasons": reasons, "rows": [str(row) for row in rows]})
