"""Blocks of rows that share names, stacked into one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Block = tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]
    """What all rows have in common, and the columns that differ."""


def stack(blocks: Sequence[Block], columns: Sequence[str]) -> pd.DataFrame:
    """Every block's rows, one after the other; names that are text become categories.

    Args:
        blocks: each with the same columns.
        columns: their order; what is not among them comes behind.
    """
    if not blocks:
        return pd.DataFrame(columns=list(columns))
    sizes = [len(next(iter(arrays.values()))) for _, arrays in blocks]
    table: dict[str, Any] = {}
    for name in blocks[0][0]:
        values = [names[name] for names, _ in blocks]
        if isinstance(values[0], str):
            categories = list(dict.fromkeys(values))
            places = {category: place for place, category in enumerate(categories)}
            codes = np.repeat([places[value] for value in values], sizes)
            table[name] = pd.Categorical.from_codes(codes, categories=pd.Index(categories, dtype=object))
        else:
            table[name] = np.repeat(np.asarray(values), sizes)
    for name in blocks[0][1]:
        table[name] = np.concatenate([arrays[name] for _, arrays in blocks])
    ordered = [*(name for name in columns if name in table), *(name for name in table if name not in columns)]
    return pd.DataFrame({name: table[name] for name in ordered})
