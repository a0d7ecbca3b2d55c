"""The tutorials run from their first cell to their last, and show what is kept of them."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.test_pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
pytest.importorskip("nbclient", reason="nbclient is not installed: pip install '.[docs]'")

NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def executed(file: Path, folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "scripts" / "run_notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.executed(file, folder)


def shown(cell: Any) -> list[str]:
    """What a cell shows, without figures, which another processor may round otherwise: words and kinds."""
    found = []
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        if "image/png" in data:
            found.append("a picture")
            continue
        text = output.get("text") or data.get("text/html") or data.get("text/plain", "")
        text = re.sub(r"told apart.*?(?=Report|<)|The safest: .*?\. ", "", text)  # depends on what figures say
        text = re.sub(r"FAILED|passed|supported|contradicted|inconclusive", "judged", text)
        found.append(re.sub(r"[-\d.,;/%>≥≤–&gt ]+|\bmin\b|\bs\b", " ", text))
    return found


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_runs_and_shows_what_is_kept(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    kept: Any = nbformat.read(file, as_version=4)
    for before, after in zip(kept.cells, executed(file, tmp_path).cells, strict=True):
        assert [one.output_type for one in after.get("outputs", ())] == [
            one.output_type for one in before.get("outputs", ())
        ], before.source
        assert shown(after) == shown(before), before.source
    text = file.read_text(encoding="utf-8")
    assert "/tmp/" not in text
    assert str(ROOT) not in text


def test_there_are_four() -> None:
    assert [file.stem for file in NOTEBOOKS] == ["audit", "own", "paper", "study"]
