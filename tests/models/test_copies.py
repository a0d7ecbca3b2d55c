"""Which of several copies of the weights is meant: one way to say so, wherever weights are named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from mergerisk.audit.schema import load_audit
from mergerisk.errors import UserError
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.on_disk.copies import split_copy, with_copy
from mergerisk.study.paths import placed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("spec", "source", "prefix"),
    [
        ("two.safetensors#model_ema", "two.safetensors", "model_ema."),
        ("org/name@main#teacher.backbone.", "org/name@main", "teacher.backbone."),
        ("a#b/two.safetensors#ema", "a#b/two.safetensors", "ema."),
        ("two.safetensors", "two.safetensors", ""),
        ("two.safetensors#", "two.safetensors#", ""),
        ("#ema", "#ema", ""),
    ],
)
def test_a_spec_is_taken_apart(spec: str, source: str, prefix: str) -> None:
    assert split_copy(spec) == (source, prefix)
    if prefix:
        assert split_copy(with_copy(source, prefix)) == (source, prefix)


def test_what_exists_is_meant_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "model#2").mkdir()
    assert split_copy(str(tmp_path / "model#2")) == (str(tmp_path / "model#2"), "")
    assert placed(tmp_path, "model#2") == str(tmp_path / "model#2")


def test_paths_in_study_and_audit_files_are_placed_with_it(tmp_path: Path) -> None:
    assert placed(tmp_path, "two.safetensors#ema") == f"{tmp_path / 'two.safetensors'}#ema"
    assert placed(tmp_path, "./two#ema") == f"{tmp_path / 'two'}#ema"
    assert placed(tmp_path, "org/name#ema") == "org/name#ema"
    (tmp_path / "photos").mkdir()
    (tmp_path / "audit.yaml").write_text(
        "base: starter-vit\ningredients: {mine: ./two#teacher}\nmerged: two.safetensors#ema\nimages: ./photos\n"
    )
    audit = load_audit(tmp_path / "audit.yaml")
    assert audit.ingredients == {"mine": f"{tmp_path / 'two'}#teacher"}
    assert audit.merged == {"merged": f"{tmp_path / 'two.safetensors'}#ema"}


def test_a_checkpoint_holds_the_copy_alone(tmp_path: Path) -> None:
    values = torch.arange(3.0)
    save_file({"model.w": values, "model_ema.w": values + 1, "step": values + 2}, tmp_path / "two.safetensors")
    copy = Checkpoint(tmp_path / "two.safetensors", "model_ema.")
    assert list(copy) == ["w"]
    assert torch.equal(copy["w"], values + 1)
    with pytest.raises(UserError, match=r"no tensor's name begins with 'model_em\.' \(did you mean 'model_ema\.'"):
        Checkpoint(tmp_path / "two.safetensors", "model_em.")
