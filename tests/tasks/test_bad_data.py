"""Data that claims, hides or never ends: said in one line, before it takes the memory or the time."""

from __future__ import annotations

import io
import json
import os
import resource
import time
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.lib.format import write_array_header_1_0
from PIL import Image

from mergerisk.errors import UserError
from mergerisk.tasks import load_task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KIB_AT_MOST = 120 * 1024
"""That refusing may take, by getrusage."""


def refused(spec: Path, **options: Any) -> str:
    """What is said of a task, in one line, soon, and without taking the memory that it claims."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        load_task(str(spec), **options)
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KIB_AT_MOST
    message = str(caught.value)
    assert "\n" not in message
    message.encode()
    assert str(spec) in message or f"task {spec.stem!r}" in message
    return message


# npz

GOOD: dict[str, Any] = {
    "images": np.zeros((8, 4, 4, 3), np.uint8),
    "labels": np.array([0, 1] * 4),
    "split": np.array([0, 0, 0, 0, 1, 1, 1, 1]),
}


def written(folder: Path, members: dict[str, Any]) -> Path:
    """An archive of arrays, and of bytes as they are."""
    file = folder / "data.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            content = io.BytesIO()
            if isinstance(value, bytes):
                content.write(value)
            else:
                np.save(content, value, allow_pickle=True)
            archive.writestr(f"{name}.npy", content.getvalue())
    return file


def claiming(shape: tuple[int, ...], kind: str = "|u1", content: bytes = b"") -> bytes:
    """An array's header, and content that it need not fit."""
    file = io.BytesIO()
    write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": claiming((10**9, 64, 64, 3))}, "'images' should have 12,288,000,000,000 bytes"),
        ({"images": claiming((2**62, 2**62, 3))}, "'images' should have"),
        ({"images": claiming((8, 4, 4, 3), content=bytes(10**6))}, "'images' should have 384 bytes, (8, 4, 4, 3)"),
        ({"labels": claiming((10**12,), "<i8")}, "'labels' should have 8,000,000,000,000 bytes"),
        ({"split": claiming((10**12,), "<i8")}, "'split' should have 8,000,000,000,000 bytes"),
        ({"class_names": claiming((10**12,), "<U9")}, "'class_names' should have"),
        ({"images": b"GIF89a"}, "'images' is no array"),
        ({"labels": b""}, "'labels' is no array"),
        ({"split": b"\x93NUMPY\x09\x00"}, "'split' is no array"),
        ({"class_names": b"ant, bee"}, "'class_names' is no array"),
        ({"labels": b"\x93NUMPY\x01\x00\x76\x00{'descr': __import__('os')"}, "'labels' is no array"),
        ({"images": np.array([{}], object)}, "'images' holds Python objects"),
        ({"class_names": np.array(["a", "b"], object)}, "'class_names' holds Python objects"),
        ({"split": np.array(0)}, "split must be integers, one per image, got int64, ()"),
        ({"split": np.zeros((8, 1), int)}, "split must be integers, one per image"),
        ({"split": np.zeros(8)}, "split must be integers, one per image, got float64"),
        ({"labels": np.array(0)}, "labels must be integers, one per image"),
        ({"labels": np.zeros(0, int)}, "labels must be integers, one per image"),
        ({"images": np.array(0, np.uint8)}, "0 images, 8 labels"),
        ({"images": np.zeros((8, 0, 4, 3), np.uint8)}, "images must be N×H×W×3"),
        ({"class_names": np.array("ant")}, "class_names must be a list of names, got ()"),
        ({"class_names": np.array(["a\x00b", "c"])}, "the name of class 0 holds a character that cannot be printed"),
        ({"class_names": np.array(["a", "\ud800"])}, "the name of class 1 holds half of a character, U+D800"),
        ({"class_names": claiming((2,), "<U1", b"\xff" * 8)}, "cannot be read as .npz"),
        ({"labels": b"\x93NUMPY\x01\x00\x0a\x00{'descr': ("}, "'labels' is no array, as numpy.savez writes it"),
    ],
)  # fmt: skip
def test_an_archive_is_held_to_what_it_claims(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    message = refused(written(tmp_path, GOOD | changes))
    assert said in message


def test_a_bomb_is_measured_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mergerisk.tasks.npz.free_memory", lambda: 2**27)
    file = tmp_path / "data.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("labels", "split"):
            content = io.BytesIO()
            np.save(content, GOOD[name])
            archive.writestr(f"{name}.npy", content.getvalue())
        with archive.open("images.npy", "w") as member:
            member.write(claiming((8, 4096, 2048, 3)))
            for _ in range(8 * 24):
                member.write(bytes(2**20))
    assert file.stat().st_size < 2**20
    assert "its arrays unpack to 0.2 GiB, and 0.1 GiB of memory are free" in refused(file)


def test_an_archive_whose_directory_lies_is_damaged(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD)
    content = bytearray(file.read_bytes())
    place = content.rindex(b"PK\x01\x02", 0, content.rindex(b"labels.npy"))
    content[place + 24 : place + 28] = (2**31).to_bytes(4, "little")  # its size when unpacked
    file.write_bytes(content)
    assert "'labels' should have 64 bytes" in refused(file)


# Parquet


def png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG")
    return content.getvalue()


def table(folder: Path, labels: pa.Array, metadata: dict[str, str] | None = None, name: str = "label") -> Path:
    rows = len(labels)
    images = pa.array([{"bytes": png(), "path": None}] * rows)
    made = pa.table({"image": images, name: labels}).replace_schema_metadata(metadata)
    (folder / "data").mkdir()
    pq.write_table(made, folder / "data" / "test.parquet")
    pq.write_table(made, folder / "data" / "train.parquet")
    return folder / "data"


def test_rows_are_counted_before_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    images = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2_000_000, np.int32)), pa.array([png()]))
    rows = pa.table({"image": images.cast(pa.binary()), "label": pa.array(np.zeros(2_000_000, np.int8))})
    with pq.ParquetWriter(tmp_path / "data" / "train.parquet", rows.schema, compression="zstd") as writer:
        writer.write_table(rows)
    file = tmp_path / "data" / "train.parquet"
    content = pq.ParquetFile(file)
    assert content.metadata.num_rows == 2_000_000
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mergerisk.tasks.parquet._MOST_ROWS", 1_000_000)
        assert "2,000,000 rows; at most 1,000,000 are read of a file" in refused_at(file)


def refused_at(file: Path) -> str:
    message = refused(file.parent)
    assert str(file) in message
    return message


@pytest.mark.parametrize(
    "noted",
    [
        "[" * 100_000,
        '{"info":' * 50_000,
        json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": [["a"], {"b": 1}]}}}}),
        json.dumps({"info": {"features": [1]}}),
        json.dumps({"info": None}),
        "\x00",
    ],
)
def test_metadata_that_says_nothing_is_passed_over(noted: str, tmp_path: Path) -> None:
    task = load_task(str(table(tmp_path, pa.array([0, 1] * 4), {"huggingface": noted})), name="t")
    assert len(task.class_names) == 2


@pytest.mark.parametrize(
    ("names", "said"),
    [(["a", "b\x00"], "U+0000"), (["\ud800", "b"], "U+D800"), (["a\x1b[2J", "b"], "U+001B")],
)
def test_names_that_cannot_be_written_are_refused(names: list[str], said: str, tmp_path: Path) -> None:
    noted = json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}})
    assert said in refused(table(tmp_path, pa.array([0, 1] * 4), {"huggingface": noted}))


def test_texts_that_are_no_unicode_are_refused(tmp_path: Path) -> None:
    broken = pa.array([b"ant", b"\xff\xfe"] * 4).cast(pa.binary()).view(pa.string())
    assert "cannot be read as Parquet" in refused_at(table(tmp_path, broken) / "test.parquet")


def test_a_column_whose_name_is_no_unicode_is_refused(tmp_path: Path) -> None:
    folder = table(tmp_path, pa.array([0, 1] * 4), name="labXX")
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"labXX", b"lab\xff\xfe"))
    assert "cannot be read as Parquet" in refused(folder)


# Folders


def pictures(folder: Path) -> Path:
    for name in ("ant", "bee"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(4):
            (folder / "photos" / name / f"{number}.png").write_bytes(png())
    return folder / "photos"


SPECIAL: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "device": lambda place: place.symlink_to("/dev/zero"),
    "terminal": lambda place: place.symlink_to("/dev/tty"),
    "link to a pipe": lambda place: (os.mkfifo(place.with_name(".pipe")), place.symlink_to(".pipe"))[1],
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["ant/x.png", "x.txt"])
def test_what_is_no_file_is_not_opened(kind: str, name: str, tmp_path: Path) -> None:
    folder = pictures(tmp_path)
    SPECIAL[kind](folder / name)
    message = refused(folder)
    assert f"{folder / name}: a pipe, a socket or a device, no file; move it away" in message


@pytest.mark.parametrize("kind", SPECIAL)
def test_no_pipe_is_read_as_parquet(kind: str, tmp_path: Path) -> None:
    folder = table(tmp_path, pa.array([0, 1] * 4))
    SPECIAL[kind](folder / "validation.parquet")
    assert "no file; move it away" in refused(folder)


def test_a_link_to_nothing_is_left_out(tmp_path: Path) -> None:
    folder = pictures(tmp_path)
    (folder / "ant" / "x.png").symlink_to("nowhere")
    assert [skipped.name for skipped in load_task(str(folder)).skipped] == ["ant/x.png"]
