"""The models of an audit, before any attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import yaml

from mergerisk.audit import audit
from mergerisk.audit.checking import check_file
from mergerisk.errors import UserError
from tests.audit.test_audit import AUDIT
from tests.tiny import arrays, save_tiny_models

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_merged_elsewhere_is_shown_with_its_ingredients(
    tmp_path: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_models(tmp_path, tiny_vit)
    np.savez(tmp_path / "blobs.npz", **arrays("blobs"))
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(AUDIT | {"base": str(tiny_vit)}))
    monkeypatch.chdir(tmp_path)
    found = check_file("audit.yaml", device="cpu")
    assert set(found.accuracy["model"]) == {"expert", "pretrained", "merged"}
    audit("audit.yaml", device="cpu")
    clean = pd.read_parquet(tmp_path / "audits" / "tiny" / "clean.parquet")
    merged = clean[clean["model"] == "merged"]
    (row,) = found.accuracy[found.accuracy["model"] == "merged"].to_dict("records")
    assert (row["correct"], row["images"]) == (int((merged["label"] == merged["prediction"]).sum()), len(merged))


def test_mistakes_are_told_in_the_words_of_audits(tmp_path: Path, tiny_vit: Path) -> None:
    file = tmp_path / "audit.yaml"
    file.write_text(yaml.safe_dump(AUDIT | {"base": str(tiny_vit), "images": "nowhere.npz"}))
    with pytest.raises(UserError, match=r"nowhere\.npz"):
        check_file(str(file))
