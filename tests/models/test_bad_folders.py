"""Folders of models whose files claim what no model is, or are no files: one line, and soon."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from mergerisk.errors import UserError
from mergerisk.models import load_classifier, load_encoder
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.on_disk.configs import check_config, read_config

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, tiny_vit: Path) -> Path:
    """A copy of a small model, to be spoilt."""
    shutil.copytree(tiny_vit, tmp_path / "model")
    return tmp_path / "model"


def refused(act: Any, *given: Any) -> str:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        act(*given)
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 10**7}, "num_hidden_layers is 10000000; no model has more than 1000"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers is 1"),
        ({"vision_config": {"num_hidden_layers": 10**7}}, "num_hidden_layers is 10000000"),
        ({"depths": [10**7, 2]}, "depths is [10000000, 2]"),
        ({"depths": [3] * 10**6}, "depths is [3, 3, 3"),
        ({"parts": [{"num_layers": 10**7}]}, "num_layers is 10000000"),
        ({"num_labels": 10**9}, "num_labels is 1000000000; no model has more than 1000000"),
    ],
)
def test_a_model_that_is_never_finished_is_not_begun(changes: dict[str, Any], said: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    for act in (check_config, load_encoder, load_classifier):
        message = refused(act, folder / "config.json" if act is check_config else str(folder))
        assert f"{folder / 'config.json'}: {said}" in message
    assert said in refused(read_config, folder)


@pytest.mark.parametrize("owners", [{"a": ["x"]}, {"a": {}}, {"a": 1}, {"a": None}, [], "x", {"a": "../x"}])
def test_an_index_is_of_names_of_files(owners: object, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": owners}))
    message = refused(Checkpoint, folder)
    assert "weight_map is missing or empty" in message or "shards are files of the same folder" in message


@pytest.mark.parametrize("content", ["[]", "[{}]", "1", "null", '"x"', "", "{", "[" * 100_000])
def test_an_index_that_is_no_mapping_is_refused(content: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    assert "index.json: " in refused(Checkpoint, folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_is_no_model(kind: str, name: str, folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name) if kind == "pipe" else (folder / name).symlink_to("/dev/zero")
    refused(load_encoder, str(folder))
