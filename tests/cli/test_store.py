"""``mergerisk store``: what it prints, and what it exits with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mergerisk.cli.main import main
from mergerisk.store import Store, content_key

if TYPE_CHECKING:
    from pathlib import Path


def _run(out: Path, *numbers: int) -> list[str]:
    """A run's folder with its own store, as far as ``store`` looks at it; the keys."""
    store, keys = Store(out / "store"), []
    for number in numbers:
        key = content_key({"stage": "merge", "number": number})
        store.put(key, {"w": np.arange(number)}, recipe={"stage": "merge", "number": number})
        keys.append(key)
    texts = {"device": "cpu", "started": "", "git_revision": None}
    record = {"stages": [{"key": key} for key in keys], "seconds": 1.0, "workers": 1} | texts
    record |= {"versions": {}, "kinds": {}, "counts": {}, "single_step_attacks": []}
    (out / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return keys


def test_a_runs_own_store_is_shown_checked_and_cleared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mergerisk.study.finished.read_record", lambda out: json.loads((out / "run.json").read_text())
    )
    first, second = _run(tmp_path / "a", 1, 2)
    main(["store", "du", str(tmp_path / "a")])
    assert capsys.readouterr().out.splitlines()[2].split()[:2] == ["merge", "2"]
    main(["store", "verify", str(tmp_path / "a" / "store")])
    assert capsys.readouterr().out == "2 sound, 0 damaged\n"

    (Store(tmp_path / "a" / "store").folder(first) / "arrays.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main(["store", "verify", str(tmp_path / "a")])
    assert ended.value.code == 3
    said = capsys.readouterr().out
    assert said == (f"damaged, and moved aside: {first[:12]}\n1 sound, 1 damaged: run again to make them anew\n")

    _run(tmp_path / "b", 1)
    main(["store", "gc", str(tmp_path / "a"), "--keep", str(tmp_path / "b"), "--dry-run"])
    assert Store(tmp_path / "a" / "store").has(second)
    main(["store", "gc", str(tmp_path / "a"), "--keep", str(tmp_path / "b")])
    assert not Store(tmp_path / "a" / "store").has(second)
    assert list((tmp_path / "a" / "store" / "damaged").iterdir()) == []


def test_a_folder_without_a_store_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["store", "du", str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"mergerisk: {tmp_path}: no store; give the folder of one, or of a run\n"
