"""Images and labels in Parquet files, in the layout of Hugging Face's datasets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mergerisk.disk import refuse_special
from mergerisk.errors import UserError, did_you_mean, first_line, shown_text
from mergerisk.tasks.arrays import TEST, TRAIN
from mergerisk.tasks.class_names import Classes, check_names, one_form, ordered
from mergerisk.tasks.layout import split_of
from mergerisk.tasks.listing import Listing
from mergerisk.tasks.numbering import numbered, numbered_remark

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mergerisk.tasks.options import ParquetOptions
    from mergerisk.tasks.splits import Division

_MOST_ROWS = 20_000_000
"""Of one file; its labels are in memory at once."""

_ROWS = 64
"""Encoded images in memory at once."""

_BUFFER = 2**20
"""Bytes read at once; without one, all images of a row group are."""


def list_parquet(files: Mapping[str, Path], division: Division, options: ParquetOptions, where: str) -> Listing:
    """The images and labels in Parquet files; images are read later, a few rows at a time.

    Args:
        files: name in the dataset → file.
        division: the splits to use; files of others are left out.
        options: which columns, and which classes.
        where: what messages begin with.

    Raises:
        UserError: a file cannot be read, a column is missing, or a label is out of range.
    """
    codes = {name: division.codes[split_of(name)] for name in files if split_of(name) in division.codes}
    tables = [_open(name, files[name], options) for name in codes]
    names, numbers, remarks = _classes(tables, codes, options, where)
    check_names(names, where)
    labels = [_labels(table, numbers, len(names)) for table in tables]
    counts = [len(part) for part in labels]
    split = [np.full(count, codes[table.name]) for table, count in zip(tables, counts, strict=True)]
    ends = np.cumsum(counts)

    def name(position: int) -> str:
        table = int(np.searchsorted(ends, position, side="right"))
        return f"{tables[table].name}, row {position - int(ends[table]) + counts[table]}"

    def read(positions: NDArray[np.int64]) -> Iterator[bytes | None]:
        for table, end, count in zip(tables, ends.tolist(), counts, strict=True):
            within = positions[(positions >= end - count) & (positions < end)] - (end - count)
            yield from _images(table, within)

    return Listing(
        where, names, np.concatenate(labels), np.concatenate(split).astype(np.int64), name, read,
        remarks=(*division.remarks, *remarks), trained_on=division.trained_on,
    )  # fmt: skip


@dataclass(frozen=True)
class _Table:
    """A Parquet file and its columns.

    Attributes:
        name: in the dataset.
        path: where it is.
        image: the leaf column that holds images as bytes.
        label: the column of labels.
        kind: the type of the labels.
        class_names: one per integer label, if the file's metadata tells.
        groups: rows of each row group.
        values: labels as they are written.
    """

    name: str
    path: Path
    image: str
    label: str
    kind: pa.DataType
    class_names: tuple[str, ...] | None
    groups: tuple[int, ...]
    values: pa.ChunkedArray


def _open(name: str, path: Path, options: ParquetOptions) -> _Table:
    try:
        refuse_special(path)
        with pq.ParquetFile(path) as file:
            _check_rows(path, file.metadata.num_rows)
            schema = file.schema_arrow
            features = _features(schema)
            image = _image_column(path, schema, features, options.image_column)
            label = _label_column(path, schema, features, options.label_column)
            nested = pa.types.is_struct(schema.field(image).type)
            metadata = file.metadata
            values = file.read(columns=[label], use_threads=False).column(label)
            values.validate(full=True)  # texts that are none
            return _Table(
                name,
                path,
                f"{image}.bytes" if nested else image,
                label,
                schema.field(label).type,
                _names_of(features.get(label)),
                tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)),
                values,
            )
    except UserError:
        raise
    except (
        OSError,
        pa.ArrowException,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: names that are no UTF-8
        raise UserError(f"{path}: cannot be read as Parquet: {shown_text(first_line(error))}") from error


def _check_rows(path: Path, rows: int) -> None:
    if rows > _MOST_ROWS:
        raise UserError(f"{path}: {rows:,} rows; at most {_MOST_ROWS:,} are read of a file")


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face's ``datasets`` notes of the columns."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _names_of(feature: Any) -> tuple[str, ...] | None:
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return tuple(one_form(str(name)) for name in names) if isinstance(names, list) and names else None


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_image(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _image_column(path: Path, schema: pa.Schema, features: dict[str, Any], asked: str | None) -> str:
    if asked is not None:
        _check_column(path, schema, asked, "image_column")
        if not _is_image(schema.field(asked).type):
            raise UserError(
                f"{path}: image_column: {asked!r} holds {schema.field(asked).type}, not encoded images"
            )
        return asked
    able = [name for name in schema.names if _is_image(schema.field(name).type)]
    noted = [
        name for name in able if isinstance(features.get(name), dict) and features[name].get("_type") == "Image"
    ]
    return _only(path, noted or able, schema, "image_column", "image")


def _label_column(path: Path, schema: pa.Schema, features: dict[str, Any], asked: str | None) -> str:
    if asked is not None:
        _check_column(path, schema, asked, "label_column")
        return asked
    noted = [name for name in schema.names if _names_of(features.get(name)) is not None]
    return _only(
        path, noted or [name for name in ("label",) if name in schema.names], schema, "label_column", "label"
    )


def _only(path: Path, found: Sequence[str], schema: pa.Schema, option: str, usual: str) -> str:
    if usual in found or len(found) == 1:
        return usual if usual in found else found[0]
    kind = "several columns could be" if found else "no column is"
    raise UserError(f"{path}: {kind} the {usual}'s; say {option}, one of: {', '.join(found or schema.names)}")


def _check_column(path: Path, schema: pa.Schema, name: str, option: str) -> None:
    if name not in schema.names:
        raise UserError(f"{path}: {option}: no column {name!r}{did_you_mean(name, schema.names)}")


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _classes(
    tables: Sequence[_Table], codes: Mapping[str, int], options: ParquetOptions, where: str
) -> tuple[tuple[str, ...], dict[Any, int], tuple[str, ...]]:
    """The classes' names, the label of every value that is one, and what must be said of it."""
    for table in tables:
        if not (_is_text(table.kind) or pa.types.is_integer(table.kind)):
            raise UserError(
                f"{table.path}: column {table.label!r} holds {table.kind}; labels are integers or text"
            )
        if table.values.null_count:
            raise UserError(f"{table.path}: column {table.label!r} lacks {table.values.null_count} labels")
    first = tables[0]
    for table in tables[1:]:
        if table.class_names != first.class_names or _is_text(table.kind) != _is_text(first.kind):
            raise UserError(f"{where}: {table.name} has other classes than {first.name}")
    if first.class_names is not None and not _is_text(first.kind):
        return first.class_names, {label: label for label in range(len(first.class_names))}, ()
    found: dict[int, set[Any]] = {}
    for table in tables:
        found.setdefault(codes[table.name], set()).update(table.values.unique().to_pylist())
    every = set().union(*found.values())
    if _is_text(first.kind):
        names = ordered(every)
        label = {name: number for number, name in enumerate(names)}
        numbers = {value: label[one_form(value)] for value in every}
        known = Classes(names, len(names), "the data set")
        kept = {known.index(name, where) for name in options.classes or names}
        for code, name in ((TRAIN, "training"), (TEST, "test")):
            stray = sorted(kept - {numbers[value] for value in found.get(code, every)})
            if stray:
                raise UserError(
                    f"{where}: class {names[stray[0]]!r} has no {name} images; every split needs all classes"
                )
        return names, numbers, ()
    most, images = max(every, default=-1), sum(len(table.values) for table in tables)
    if options.classes is not None:  # other values, such as 255 for none, are of no concern
        values = sorted(every)
        return tuple(map(str, values)), {value: number for number, value in enumerate(values)}, ()
    if most - (min(every, default=0) == 1) >= images:
        raise UserError(f"{where}: label {most} among {images} images; labels are 0, 1, …, one per class")
    names, start = numbered(np.array(sorted(every), np.int64))
    return names, {start + label: label for label in range(len(names))}, numbered_remark(names, start)


def _labels(table: _Table, numbers: Mapping[Any, int], classes: int) -> NDArray[np.int64]:
    """One label per row."""
    labels = [numbers.get(value, -1) for value in table.values.to_pylist()]
    if -1 in labels:
        row = labels.index(-1)
        value = table.values[row].as_py()
        hint = "; where -1 stands for an unknown label, say another test_split" if value == -1 else ""
        raise UserError(
            f"{table.path}: row {row}: label {value} is out of range; labels are 0 to {classes - 1}{hint}"
        )
    return np.array(labels, dtype=np.int64)


def _images(table: _Table, rows: NDArray[np.int64]) -> Iterator[bytes | None]:
    """The encoded images in rising rows of a file; row groups without any of them are passed over."""
    ends = np.cumsum(table.groups)
    groups = [g for g, end in enumerate(ends.tolist()) if ((rows >= end - table.groups[g]) & (rows < end)).any()]
    starts = {group: int(ends[group]) - table.groups[group] for group in groups}
    try:
        with pq.ParquetFile(table.path, buffer_size=_BUFFER, pre_buffer=False) as file:
            for group in groups:
                start = starts[group]
                for batch in file.iter_batches(_ROWS, [group], [table.image], use_threads=False):
                    column = batch.column(0)
                    leaf = column.field("bytes") if pa.types.is_struct(column.type) else column
                    within = rows[(rows >= start) & (rows < start + len(leaf))] - start
                    for row in within.tolist():
                        # A null struct's own field may be anything.
                        yield leaf[row].as_py() if column[row].is_valid else None
                    start += len(leaf)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{table.path}: cannot be read as Parquet: {shown_text(first_line(error))}") from error
