"""Repositories whose ``main`` holds pickles only, and the safetensors that the hub's bot proposes for them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from huggingface_hub import scan_cache_dir
from safetensors.torch import save

from mergerisk.errors import UserError
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.sources.hub import ask, commit_of, fetch, remark, revision_of
from tests.models.hub_stand_in import COMMIT, PullRequest, hub

if TYPE_CHECKING:
    from pathlib import Path

NAME = "org/name"
MAIN = {"config.json": b"{}", "pytorch_model.bin": b"pickle", "README.md": b"words", "vocab.json": b"{}"}
WEIGHTS = {"model.safetensors": save({"weight": torch.arange(3.0)}), ".gitattributes": b"lfs"}
CONVERSION = PullRequest(66, MAIN | WEIGHTS)
NOWHERE = "http://127.0.0.1:9"


def taken(cache: Path, *proposed: PullRequest, main: dict[str, bytes] = MAIN, **options: Any) -> Path:
    with hub({NAME: main}, pull_requests={NAME: proposed}, **options) as (address, _):
        return fetch(NAME, endpoint=address, cache=cache)


def test_the_conversion_is_taken_and_said_to_be(tmp_path: Path) -> None:
    folder = taken(tmp_path, CONVERSION)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "vocab.json"}
    assert list(Checkpoint(folder)) == ["weight"]
    assert commit_of(folder) == CONVERSION.head
    assert remark(NAME, folder) == (
        "main of org/name has no safetensors; taken from the hub's conversion, refs/pr/66, commit 0000000, which the "
        "repository's owner has not merged"
    )
    assert revision_of(NAME, folder) == revision_of(f"{NAME}@main", folder) == f"{NAME}@refs/pr/66"
    # Whoever names the revision knows.
    assert remark(f"{NAME}@refs/pr/66", folder) == ""
    assert revision_of(f"{NAME}@{CONVERSION.head}", folder) == f"{NAME}@{CONVERSION.head}"


@pytest.mark.parametrize("spec", [NAME, f"{NAME}@main", f"{NAME}@refs/pr/66", f"{NAME}@{CONVERSION.head}"])
def test_it_is_there_without_the_hub(spec: str, tmp_path: Path) -> None:
    folder = taken(tmp_path, CONVERSION)
    assert fetch(spec, offline=True, cache=tmp_path) == folder
    assert fetch(spec, endpoint=NOWHERE, cache=tmp_path) == folder
    # The cache stays one that the hub's own tools can read and tidy up.
    found = scan_cache_dir(tmp_path)
    assert not found.warnings
    (revision,) = next(iter(found.repos)).revisions
    assert revision.refs == {"refs/pr/66", "conversion-of-main/refs/pr/66"}


def test_with_the_library_told_to_be_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = taken(tmp_path, CONVERSION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with hub({NAME: MAIN}, pull_requests={NAME: [CONVERSION]}) as (address, requests):
        assert fetch(NAME, endpoint=address, cache=tmp_path) == folder
        assert not requests


def test_a_hub_that_cannot_be_asked_is_told_from_one_without_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(tmp_path, CONVERSION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOWHERE)
    assert ask(NAME) == CONVERSION.head
    with pytest.raises(UserError, match="cannot be asked"):
        ask("org/other")


def test_the_newest_that_fits_is_taken(tmp_path: Path) -> None:
    older, stale = PullRequest(15, MAIN | WEIGHTS), PullRequest(70, MAIN | WEIGHTS | {"config.json": b'{"a": 1}'})
    assert commit_of(taken(tmp_path, older, stale, CONVERSION)) == CONVERSION.head


@pytest.mark.parametrize(
    ("proposed", "reason"),
    [
        ([], "the hub's conversion bot has proposed none"),
        ([PullRequest(1, MAIN | WEIGHTS, author="somebody")], "has proposed none"),
        ([PullRequest(1, MAIN | WEIGHTS, title="Better weights")], "has proposed none"),
        ([PullRequest(1, MAIN | WEIGHTS, status="closed")], "has proposed none"),
        ([PullRequest(1, MAIN)], "has proposed none"),
        ([PullRequest(1, MAIN | {"onnx/model.safetensors": b""})], "has proposed none"),
        (
            [PullRequest(1, MAIN | WEIGHTS | {"pytorch_model.bin": b"x"})],
            "refs/pr/1, .* another pytorch_model.bin",
        ),
        ([PullRequest(1, MAIN | WEIGHTS | {"config.json": b"x"})], "refs/pr/1, were made of another config.json"),
        ([PullRequest(1, MAIN | WEIGHTS | {"merges.txt": b"x"})], "refs/pr/1, were made of another merges.txt"),
    ],
)
def test_nothing_else_is(proposed: list[PullRequest], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason) as raised:
        taken(tmp_path, *proposed)
    assert str(raised.value).startswith(f"{NAME}: the repository has no safetensors; only pytorch_model.bin, and ")
    assert str(raised.value).endswith("; convert it: mergerisk convert org/name --out DIR, then give DIR")
    with pytest.raises(UserError, match="not in the cache"):
        fetch(NAME, offline=True, cache=tmp_path)


def test_discussions_may_be_switched_off(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has proposed none; convert it"):
        taken(tmp_path, CONVERSION, without_discussions=(NAME,))


def test_where_main_has_safetensors_nothing_changes(tmp_path: Path) -> None:
    with hub({NAME: MAIN | WEIGHTS}, pull_requests={NAME: [CONVERSION]}) as (address, requests):
        folder = fetch(NAME, endpoint=address, cache=tmp_path)
    assert commit_of(folder) == COMMIT
    assert remark(NAME, folder) == ""
    assert revision_of(NAME, folder) == NAME
    assert not [request for request in requests if "discussions" in request or "refs/pr" in request]


def test_once_it_is_merged_main_is_taken(tmp_path: Path) -> None:
    taken(tmp_path, CONVERSION)
    merged = taken(tmp_path, PullRequest(66, MAIN | WEIGHTS, status="merged"), main=MAIN | WEIGHTS)
    assert commit_of(merged) == COMMIT
    assert fetch(NAME, offline=True, cache=tmp_path) == merged
    assert remark(NAME, merged) == ""


@pytest.mark.parametrize("revision", [COMMIT, COMMIT[:8]])
def test_a_revision_that_was_asked_for_is_not_replaced(revision: str, tmp_path: Path) -> None:
    spec = f"{NAME}@{revision}"
    with (
        hub({NAME: MAIN}, pull_requests={NAME: [CONVERSION]}) as (address, requests),
        pytest.raises(UserError, match=f"^{spec}: .*; convert it: mergerisk convert {spec} --out"),
    ):
        fetch(spec, endpoint=address, cache=tmp_path)
    assert not [request for request in requests if "discussions" in request]


def test_a_transfer_that_breaks_off_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library waits between its attempts
    with pytest.raises(UserError, match="cannot be downloaded"):
        taken(tmp_path, CONVERSION, dropping=("model.safetensors",))
    with pytest.raises(UserError, match="not in the cache"):
        fetch(NAME, offline=True, cache=tmp_path)
    assert commit_of(taken(tmp_path, CONVERSION)) == CONVERSION.head


def test_a_cache_that_holds_the_pickle_of_main_too(tmp_path: Path) -> None:
    """As transformers leaves it."""
    conversion = taken(tmp_path, CONVERSION)
    main = conversion.with_name(COMMIT)
    main.mkdir()
    (main / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "models--org--name" / "refs" / "main").write_text(COMMIT)
    assert fetch(NAME, offline=True, cache=tmp_path) == conversion


def test_who_names_the_hub_in_python_is_warned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mergerisk.models.sources.loading import backbone_folder

    folder = taken(tmp_path, CONVERSION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match="conversion, refs/pr/66"):
        assert backbone_folder(NAME, offline=True) == folder
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backbone_folder(str(folder)) == folder
