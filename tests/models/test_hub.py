"""Folders, files and hub repositories, against a hub on this machine."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled
from safetensors.torch import save

from mergerisk.errors import UserError
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.sources.hub import commit_of, fetch, is_hub_id
from tests.models.hub_stand_in import COMMIT, hub

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = save({"weight": torch.arange(2000.0)})
MODEL = {"config.json": b"{}", "model.safetensors": WEIGHTS}


def test_a_path_that_exists_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert fetch("org/name").resolve() == tmp_path / "org" / "name"
    assert commit_of(fetch("org/name")) is None


@pytest.mark.parametrize("spec", ["./missing", "/missing", "~/missing", "a/b/c", "../a"])
def test_what_looks_like_a_path_is_not_asked_of_the_hub(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")  # wherever the tests are started, there may be an ../a
    with pytest.raises(UserError, match=r"no such file or folder$"):
        fetch(spec)


@pytest.mark.parametrize("spec", ["missing", "org/", "org/na me", "missing.safetensors"])
def test_what_is_neither_a_path_nor_a_hub_id_is_said_to_be(spec: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="org/name"):
        fetch(spec, cache=tmp_path, endpoint="http://127.0.0.1:9")


def test_only_what_a_merge_needs_is_downloaded(tmp_path: Path) -> None:
    repository = MODEL | {
        "preprocessor_config.json": b"{}",
        "pytorch_model.bin": b"pickle",
        "model.fp16.safetensors": b"other",
        "onnx/model.safetensors": b"other",
        "README.md": b"words",
    }
    with hub({"org/name": repository}) as (address, requests):
        folder = fetch("org/name", endpoint=address, cache=tmp_path)
        assert {path.name for path in folder.iterdir()} == {
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
        }
        assert torch.equal(Checkpoint(folder)["weight"], torch.arange(2000.0))
        assert commit_of(folder) == COMMIT
        before = len(requests)
        assert fetch(f"org/name@{COMMIT}", endpoint=address, cache=tmp_path) == folder
        assert not any(request.startswith("GET /org") for request in requests[before:])
    # The hub is gone; what was fetched is still there, with and without leave to ask for it.
    assert fetch("org/name", endpoint=address, cache=tmp_path) == folder
    assert fetch("org/name", offline=True, cache=tmp_path) == folder


def test_what_was_listed_is_what_is_downloaded(tmp_path: Path) -> None:
    with hub({"org/name": MODEL}) as (address, requests):
        folder = fetch("org/name@main", endpoint=address, cache=tmp_path)
    # The branch was asked for once; it may have moved since.
    assert [request for request in requests if COMMIT not in request] == ["GET /api/models/org/name/revision/main"]
    assert fetch("org/name@main", offline=True, cache=tmp_path) == folder


def test_shards_come_with_their_index(tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"weight": "model-00001-of-00001.safetensors"}}).encode()
    files = {"model.safetensors.index.json": index, "model-00001-of-00001.safetensors": WEIGHTS}
    with hub({"org/name": files}) as (address, _):
        assert list(Checkpoint(fetch("org/name", endpoint=address, cache=tmp_path))) == ["weight"]


def test_an_adapter_comes_with_its_configuration(tmp_path: Path) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS, "training_args.bin": b""}
    with hub({"org/name": files}) as (address, _):
        folder = fetch("org/name", endpoint=address, cache=tmp_path)
        assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("org/unknown", "no such model on the hub"),
        ("org/name@other", "no such revision"),
        ("org/gated", "gated; accept its conditions"),
        ("org/pickle", "no safetensors; only pytorch_model.bin"),
        ("org/empty", "no safetensors; use another revision"),
    ],
)
def test_what_the_hub_refuses_is_one_line(spec: str, message: str, tmp_path: Path) -> None:
    repositories = {
        "org/name": MODEL,
        "org/gated": MODEL,
        "org/pickle": {"pytorch_model.bin": b"pickle", "config.json": b"{}"},
        "org/empty": {"README.md": b""},
    }
    with hub(repositories, gated=("org/gated",)) as (address, requests):
        with pytest.raises(UserError, match=message) as raised:
            fetch(spec, endpoint=address, cache=tmp_path)
        assert "\n" not in str(raised.value)
        assert spec in str(raised.value)
        assert not any(request.startswith("GET /org") for request in requests)


def test_without_a_connection_the_message_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be downloaded") as raised:
        fetch("org/name", endpoint="http://127.0.0.1:9", cache=tmp_path)
    assert "\n" not in str(raised.value)
    assert re.search(
        r"http://127\.0\.0\.1:9 does not answer \(.*\); check the connection, and HF_ENDPOINT", str(raised.value)
    )


def test_a_variable_that_forbids_asking_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OfflineModeIsEnabled("Cannot reach https://…: offline mode is enabled.")

    monkeypatch.setattr("mergerisk.hub_downloads._listed", refuse)  # the library reads its variable once
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set, so that nothing may be asked of it") as raised:
        fetch("org/name", cache=tmp_path)
    assert "unset HF_HUB_OFFLINE, or give a folder" in str(raised.value)


def test_offline_nothing_is_asked(tmp_path: Path) -> None:
    with hub({"org/name": MODEL}) as (address, requests):
        with pytest.raises(UserError, match="not in the cache of downloads"):
            fetch("org/name", offline=True, endpoint=address, cache=tmp_path)
        assert not requests


def test_a_transfer_that_breaks_off_leaves_no_half_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library waits between its attempts
    with hub({"org/name": MODEL}, dropping=("model.safetensors",)) as (address, _):
        with pytest.raises(UserError, match="cannot be downloaded") as raised:
            fetch("org/name", endpoint=address, cache=tmp_path)
        assert "\n" not in str(raised.value)
        with pytest.raises(UserError, match="not in the cache"):
            fetch("org/name", offline=True, cache=tmp_path)
    with hub({"org/name": MODEL}) as (address, _):
        assert len(Checkpoint(fetch("org/name", endpoint=address, cache=tmp_path))) == 1


def test_a_transfer_goes_on_where_it_broke_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept is whole chunks
    with hub({"org/name": MODEL}, dropping_once=("model.safetensors",)) as (address, requests):
        folder = fetch("org/name", endpoint=address, cache=tmp_path)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert f"GET /org/name/resolve/{COMMIT}/model.safetensors from {len(WEIGHTS) // 2000 * 1000}" in requests


def test_tokenizers_come_with_the_model(tmp_path: Path) -> None:
    tokenizer = {"vocab.json": b"{}", "merges.txt": b"", "tokenizer.json": b"{}", "tokenizer_config.json": b"{}"}
    with hub({"org/name": MODEL | tokenizer | {"flax_model.msgpack": b"other"}}) as (address, _):
        folder = fetch("org/name", endpoint=address, cache=tmp_path)
    assert {path.name for path in folder.iterdir()} == {*MODEL, *tokenizer}


def test_offline_it_is_said_what_the_cache_lacks(tmp_path: Path) -> None:
    with hub({"org/name": MODEL}) as (address, _):
        folder = fetch("org/name", endpoint=address, cache=tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=rf"org/name: .*{COMMIT} lacks model\.safetensors: .*without --offline"):
        fetch("org/name", offline=True, cache=tmp_path)


@pytest.mark.parametrize("spec", ["org/name", "org/name@main", f"org/name@{COMMIT}"])
def test_what_is_written_as_a_model_of_the_hub(spec: str) -> None:
    assert is_hub_id(spec)


@pytest.mark.parametrize(
    "spec", ["starter-vit", "timm:vit", "package.module:factory", "./org/name", "a/b/c", "a b/c"]
)
def test_what_is_not(spec: str) -> None:
    assert not is_hub_id(spec)


def test_a_folder_that_exists_is_no_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert not is_hub_id("org/name")
