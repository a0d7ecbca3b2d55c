"""What claims are judged on, from where a person keeps it: a run's folder, a table, or the poster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from mergerisk.errors import UserError, first_line
from mergerisk.merging.catalogue import INTERVENTIONS
from mergerisk.statistics.claim_tables import tables_from_outcomes, tables_from_rates
from mergerisk.statistics.diagnostics import Diagnostics
from mergerisk.statistics.poster import poster_tables, with_known_images
from mergerisk.yaml_files import read_mapping

if TYPE_CHECKING:
    from mergerisk.statistics.claim_tables import Tables

POSTER = "poster"
OUTCOME_COLUMNS = (
    "task", "attack", "surrogate", "target", "epsilon", "seed", "steps", "image", "label", "surrogate_clean",
    "target_clean", "surrogate_adversarial", "target_adversarial",
)  # fmt: skip
_NAMES = ("task", "attack", "surrogate", "target", "model")
CLEAN_COLUMNS = ("task", "model", "seed", "image", "label", "prediction")


def read_tables(source: str | Path) -> Tables:
    """Tables from a finished run's folder (outcomes per image, or results alone), a CSV or Parquet file of rates,
    or, by the word ``poster``, the published table that ships with the package.

    Raises:
        UserError: there is nothing of the kind, or it cannot be read.
    """
    path = Path(source)
    if str(source) == POSTER and not path.exists():
        return poster_tables()
    if path.is_dir():
        return _run(path)
    if not path.is_file():
        raise UserError(
            f"{source}: no such file or folder; give a finished run's folder, a CSV or Parquet file of rates, "
            f"or the word {POSTER}"
        )
    return with_known_images(tables_from_rates(_read(path), source=str(path)))


def _run(folder: Path) -> Tables:
    outcomes, results = folder / "outcomes.parquet", folder / "results.parquet"
    merges = _merges(folder / "study.yaml")
    if outcomes.is_file():
        table = _read(outcomes)
        _check(table, OUTCOME_COLUMNS, outcomes)
        clean = folder / "clean.parquet"
        whole = _read(clean) if clean.is_file() else None
        if whole is not None:
            _check(whole, CLEAN_COLUMNS, clean)
        return tables_from_outcomes(table, whole, merges=merges, source=str(folder), diagnostics=_causes(folder))
    if results.is_file():
        return tables_from_rates(_read(results), merges=merges, source=str(results))
    raise UserError(
        f"{folder}: holds neither outcomes.parquet nor results.parquet; make a run with: mergerisk run"
    )


def _causes(folder: Path) -> Diagnostics | None:
    """What a run measured of surrogates and targets, if its study asked for it."""
    causes, pairs = folder / "causes.parquet", folder / "pair_causes.parquet"
    if not causes.is_file():
        return None
    tables = []
    for path, columns in ((causes, (*_OF, "image")), (pairs, (*_OF, "measure", "part", "value"))):
        tables.append(_read(path))
        lacking = [name for name in columns if name not in tables[-1]]
        if lacking:
            raise UserError(
                f"{path}: lacks the column {lacking[0]}; run the study again, finished stages are kept"
            )
    return Diagnostics(*tables)


_OF = ("task", "surrogate", "target", "seed")


def _check(table: pd.DataFrame, columns: tuple[str, ...], place: Path) -> None:
    """Raises:
    UserError: a column is missing or should hold numbers, or there is no row.
    """
    lacking = [name for name in columns if name not in table.columns]
    words = [name for name in columns if name not in (*lacking, *_NAMES) and not is_numeric_dtype(table[name])]
    if lacking or words or table.empty:
        what = (
            f"lacks the column {lacking[0]}"
            if lacking
            else f"the column {words[0]} holds no numbers"
            if words
            else "holds no rows"
        )
        raise UserError(f"{place}: {what}; run the study again, finished stages are kept")


def _merges(study: Path) -> frozenset[str] | None:
    """Labels of a study's merges, which may be none; None if that is not known."""
    if not study.is_file():
        return None
    found: Any = read_mapping(study, "a study").get("merging") or []
    if not isinstance(found, list):
        raise UserError(f"{study}: merging: must be a list; run the study again, finished stages are kept")
    items = [item if isinstance(item, dict) else {"method": item} for item in found]
    # A merge that something is changed about is none that anybody would deploy: no claim is about it.
    return frozenset(
        str(item.get("label", item.get("method"))) for item in items if not INTERVENTIONS.keys() & item.keys()
    )


def _read(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file."""
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            return pd.read_parquet(path)
        return pd.read_csv(path)
    except (OSError, ValueError) as error:  # parser's and pyarrow's errors are ValueErrors
        raise UserError(f"{path}: cannot be read as a table: {first_line(error)}") from error
