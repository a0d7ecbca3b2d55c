"""Which files an export is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd

from mergerisk.errors import UserError
from mergerisk.report.claims import figure
from mergerisk.report.export import summary_to_json
from mergerisk.report.exports.figures import drawn, pictures
from mergerisk.report.exports.latex import table_to_latex
from mergerisk.report.exports.markdown import to_markdown
from mergerisk.report.exports.paper_tables import tables
from mergerisk.report.further import means
from mergerisk.report.summary import COLUMNS
from mergerisk.report.view import view_of
from mergerisk.study.files import write_bytes, write_csv, write_parquet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mergerisk.report.summary import Summary

Format = Literal["json", "csv", "parquet", "md", "tex", "svg", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)
"""``json`` the whole summary; ``csv`` and ``parquet`` its tables; ``md`` one document; ``tex`` a file per table;
``svg`` and ``png`` a file per picture."""


def parse_formats(text: str | None) -> tuple[Format, ...]:
    """``md,tex`` as formats; all of them for None.

    Raises:
        UserError: one is unknown, or none is named.
    """
    if text is None:
        return FORMATS
    wanted = {word.strip().lower() for word in text.split(",")} - {""}
    strangers = wanted - set(FORMATS)
    if strangers or not wanted:
        named = f"unknown format {', '.join(sorted(strangers))}" if strangers else "no format named"
        raise UserError(f"--formats: {named}; choose from {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in wanted)


def write_exports(summary: Summary, folder: Path, formats: Sequence[Format] = FORMATS) -> tuple[Path, ...]:
    """Write a summary into a folder, which is made where it lacks.

    Layout: ``summary.json``, ``report.md``; ``data/NAME.csv`` and ``.parquet``; ``tables/NAME.tex``;
    ``figures/NAME.svg`` and ``.png``. Other files there are left alone.

    Returns:
        The files written.

    Raises:
        UserError: the folder cannot be written to.
    """
    view = view_of(summary)
    texts = tables(view) if {"md", "tex"} & set(formats) else ()
    shown = list(pictures(view)) if {"svg", "png"} & set(formats) else []
    for name in ("", "data", "tables", "figures"):
        _make(folder / name)
    written: list[Path] = []

    def put(name: str, content: bytes) -> None:
        write_bytes(folder / name, content)
        written.append(folder / name)

    if "json" in formats:
        put("summary.json", _encoded(summary_to_json(summary)))
    if "csv" in formats or "parquet" in formats:
        written += _data(summary, folder / "data", formats)
    for table in texts if "tex" in formats else ():
        put(f"tables/{table.name}.tex", _encoded(table_to_latex(table)))
    for picture in shown:
        for kind in ("svg", "png"):
            if kind in formats:
                put(f"figures/{picture.name}.{kind}", drawn(picture, kind))
    if "md" in formats:
        kind = "svg" if "svg" in formats else "png"
        addresses = [(picture.title, f"figures/{picture.name}.{kind}") for picture in shown]
        put("report.md", _encoded(to_markdown(view, texts, addresses)))
    for name in ("data", "tables", "figures"):
        if not any((folder / name).iterdir()):
            (folder / name).rmdir()
    return tuple(written)


def _data(summary: Summary, folder: Path, formats: Sequence[Format]) -> list[Path]:
    """Write every table, in each of the formats; the files written."""
    written = []
    claims = pd.DataFrame([_flat(claim) for claim in summary.claims])
    frames = {name: getattr(summary, name) for name in COLUMNS} | ({"claims": claims} if len(claims) else {})
    for kept in summary.further:
        frames[kept.declared.name] = kept.rows
        if kept.declared.shown_by == "mean":
            frames[f"{kept.declared.name}_means"] = means(kept)
    for name, frame in frames.items():
        for kind, write in (("csv", write_csv), ("parquet", write_parquet)):
            if kind in formats:
                write(frame, folder / f"{name}.{kind}")
                written.append(folder / f"{name}.{kind}")
    return written


def _flat(claim: Mapping[str, Any]) -> dict[str, str | float | None]:
    """A claim as a row: what is no number is text, and what is nested stays in the JSON."""
    return {
        str(name): figure([_in_line(item) for item in value])
        if isinstance(value, list | tuple)
        else value
        if isinstance(value, float)
        else str(value)
        for name, value in claim.items()
        if value is not None and not isinstance(value, dict)
    }


def _in_line(item: Any) -> Any:
    """An attacker's answer in one line; anything else as it is."""
    if not isinstance(item, dict):
        return item
    return " ".join(str(item[name]) for name in ("attacker", "verdict", "effect") if item.get(name) is not None)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}; choose another folder") from error


def _encoded(text: str) -> bytes:
    # a name may hold half of a surrogate pair, which no file could be written with
    return text.encode("utf-8", "replace")
