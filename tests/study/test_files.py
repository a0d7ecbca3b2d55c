"""A run's files are written whole or not at all, and nowhere else."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from mergerisk.errors import UserError
from mergerisk.study.files import write_bytes, write_csv, write_parquet

if TYPE_CHECKING:
    from pathlib import Path

TABLE = pd.DataFrame({"name": ["ε", "b"], "value": [0.1, 2.0]})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_bytes(tmp_path / "page.html", b"new\r\n")
    write_csv(TABLE, tmp_path / "table.csv")
    write_parquet(TABLE, tmp_path / "table.parquet")
    assert (tmp_path / "page.html").read_bytes() == b"new\r\n"
    assert (tmp_path / "table.csv").read_bytes() == "name,value\nε,0.1\nb,2.0\n".encode()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), TABLE)
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "table.csv", "table.parquet"}
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o666 & ~mask


def test_links_in_the_folder_are_not_followed(tmp_path: Path) -> None:
    """Neither one under the file's own name nor one under a name that a temporary file might have."""
    outside, folder = tmp_path / "outside", tmp_path / "run"
    outside.write_bytes(b"somebody's")
    folder.mkdir()
    for name in ("report.html", ".report.html.tmp"):
        (folder / name).symlink_to(outside)
    write_bytes(folder / "report.html", b"page")
    assert outside.read_bytes() == b"somebody's"
    assert (folder / "report.html").read_bytes() == b"page"
    assert not (folder / "report.html").is_symlink()


def test_a_file_that_cannot_be_made_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"old")

    class Unwritable(pd.DataFrame):
        def to_csv(self, *arguments: object, **named: object) -> None:  # type: ignore[override]  # noqa: ARG002
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_csv(Unwritable(), tmp_path / "table.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_bytes() == b"old"
    with pytest.raises(UserError, match=r"gone/x: cannot be written: No such file"):
        write_bytes(tmp_path / "gone" / "x", b"")
