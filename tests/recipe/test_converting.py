"""Pickled weights into safetensors: what is read, what is refused, and that nothing in a pickle ever runs."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.torch_version import TorchVersion

from mergerisk.errors import UserError
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.recipe import convert
from mergerisk.recipe.converting import PICKLED, PICKLED_INDEX
from mergerisk.recipe.unpickling import Job, convert_file, read_state_dict, to_text
from tests.models.hub_stand_in import COMMIT, hub

STATE = nn.Linear(3, 2).state_dict()
PAYLOAD = "payload-ran"


class Payload:
    """Whoever unpickles this makes a file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / PAYLOAD

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def saved(folder: Path, content: object, name: str = "model.pt", **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / name, **options)
    return folder / name


def equal(file: Path, state: dict[str, torch.Tensor]) -> bool:
    found = load_file(file)
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read in this process, which has PyTorch already: another takes seconds to start."""

    def carry_out(job: Job) -> None:
        for source, destination in job.files.items():
            convert_file(source, destination, job.key)

    monkeypatch.setattr("mergerisk.recipe.converting._carry_out", carry_out)


def test_a_payload_does_run_where_pickles_are_trusted(tmp_path: Path) -> None:
    """So that the tests below would notice."""
    torch.load(saved(tmp_path, {"weight": Payload(tmp_path)}), weights_only=False)
    assert (tmp_path / PAYLOAD).exists()


def test_a_pickle_that_wants_more_is_refused_and_never_runs(tmp_path: Path) -> None:
    file = saved(tmp_path / "in", {"weight": torch.ones(2), "more": Payload(tmp_path)})
    with pytest.raises(UserError, match=r"it wants [\w.]+, which is more than tensors") as raised:
        convert(str(file), tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(str(file))
    assert not (tmp_path / PAYLOAD).exists()
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_nor_does_it_in_the_process_that_reads(form: str, tmp_path: Path) -> None:
    content = {"weight": Payload(tmp_path)}
    file = saved(tmp_path, content, _use_new_zipfile_serialization=form == "zip")
    if form == "bare":
        file.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError):
        read_state_dict(file)
    assert not (tmp_path / PAYLOAD).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Linear(2, 2), r"it wants torch\.nn\.modules\.linear\.Linear, which is more"),
        ({"state_dict": STATE, "args": argparse.Namespace(lr=1)}, r"it wants argparse\.Namespace, which is more"),
        (
            {"model": STATE, "model_ema": STATE},
            "several state dicts; choose one with --key; there are: model, model_ema",
        ),
        ({"weight": torch.ones(2), "epoch": 3}, "no state dict: 'epoch' is a int"),
        (torch.ones(2), "no state dict: a Tensor"),
        ({}, "no state dict: it is empty"),
        ({"a": torch.ones(3, dtype=torch.complex64)}, "tensor 'a' is .* complex64; only dense"),
        ({"a": torch.ones(3).to_sparse()}, "tensor 'a' is .*sparse"),
        ({"a": torch.tensor([1.0, float("nan")])}, "tensor 'a' holds NaN or infinity"),
        ({"a": torch.ones(1).expand(10**9)}, "take 4,000,000,000 bytes, the file has .* repeats values"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_state_dict_is_one_line(content: object, message: str, tmp_path: Path) -> None:
    file = saved(tmp_path, content)
    with pytest.raises(UserError, match=message) as raised:
        convert_file(str(file), str(tmp_path / "out"))
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation", "ignore:TypedStorage")
def test_nor_are_quantised_tensors(tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    with pytest.raises(UserError, match="tensor 'a' is quantised"):
        read_state_dict(saved(tmp_path, {"a": quantised}))


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut short"])
def test_nor_is_what_torch_did_not_save(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"not a file of tensors that torch\.save wrote"):
        read_state_dict(file)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (STATE, None),
        ({"state_dict": STATE, "epoch": 3, "rng_state": torch.ones(2)}, None),
        ({"model": {"state_dict": STATE}, "name": "x"}, None),
        ({"model": STATE, "ema": {"model": {"other": torch.ones(1)}}}, "model"),
        ({"ema": {"model": STATE}, "model": {"other": torch.ones(1)}}, "ema.model"),
        ({"model": STATE, "optimizer": torch.optim.Adam([nn.Parameter(torch.ones(1))]).state_dict()}, None),
        ({name: nn.Parameter(tensor) for name, tensor in STATE.items()}, None),
    ],
    ids=["plain", "lightning", "nested", "key", "nested key", "optimizer", "parameters"],
)
def test_state_dicts_are_found_where_trainers_put_them(content: object, key: str | None, tmp_path: Path) -> None:
    found = read_state_dict(saved(tmp_path, content), key)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)
    assert not any(tensor.requires_grad for tensor in found.values())


def test_a_key_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--key: no state dict at 'modle'; there are: model"):
        read_state_dict(saved(tmp_path, {"model": STATE, "epoch": 1}), "modle")


def test_tensors_that_share_memory_or_are_no_rows_keep_their_values(tmp_path: Path) -> None:
    whole = torch.randn(4, 3)
    state = {"whole": whole, "turned": whole.T, "part": whole[1:, :2], "half": whole.half(), "n": torch.tensor(7)}
    file = saved(tmp_path, state)
    convert_file(str(file), str(tmp_path / "out.safetensors"))
    assert equal(tmp_path / "out.safetensors", state)


def test_tied_tensors_stay_tied(tmp_path: Path) -> None:
    tied = torch.randn(4, 3)
    file = saved(
        tmp_path, {"head": tied, "embedding": tied, "other": tied.clone(), "a": torch.ones(0), "b": torch.ones(0)}
    )
    convert_file(str(file), str(tmp_path / "out.safetensors"))
    found = Checkpoint(tmp_path / "out.safetensors")
    assert found.aliases == {"head": "embedding"}
    assert load_file(tmp_path / "out.safetensors").keys() == {"a", "b", "embedding", "other"}
    assert all(torch.equal(found[name], tied) for name in ("embedding", "other"))


@pytest.mark.usefixtures("here")
def test_a_folder_comes_with_its_configurations(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    saved(folder, STATE, PICKLED)
    saved(folder, {"lr": 1}, "training_args.bin")
    saved(folder, {"lr": 1}, "optimizer.pt")
    configs = ("config.json", "preprocessor_config.json", "processor_config.json", "vocab.json", "merges.txt")
    for name in (*configs, "trainer_state.json", "README.md"):
        (folder / name).write_text(name)
    out = convert(str(folder), tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == sorted([*configs, "model.safetensors"])
    assert all((out / name).read_text() == name for name in configs)
    assert equal(out / "model.safetensors", STATE)


def sharded(folder: Path, **elsewhere: str) -> Path:
    """A folder whose index places tensors ``elsewhere``, if any."""
    owners = {}
    for number in (1, 2):
        name = f"pytorch_model-0000{number}-of-00002.bin"
        saved(folder, {f"part{number}": torch.full((2,), number)}, name)
        owners[f"part{number}"] = name
    (folder / PICKLED_INDEX).write_text(json.dumps({"weight_map": owners | elsewhere}))
    return folder


def test_shards_keep_their_index(tmp_path: Path) -> None:
    out = convert(str(sharded(tmp_path / "in")), tmp_path / "out")
    found = Checkpoint(out)
    assert {name: found[name].tolist() for name in found} == {"part1": [1, 1], "part2": [2, 2]}
    assert [path.name for path in found.files] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


@pytest.mark.usefixtures("here")
def test_an_index_must_place_tensors_where_they_are(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "in", part2="pytorch_model-00001-of-00002.bin")
    with pytest.raises(UserError, match="places tensor 'part2' elsewhere than the files do"):
        convert(str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("here")
def test_an_adapter_stays_one(tmp_path: Path) -> None:
    saved(tmp_path / "in", STATE, "adapter_model.bin")
    (tmp_path / "in" / "adapter_config.json").write_text("{}")
    out = convert(str(tmp_path / "in"), tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}


@pytest.mark.usefixtures("here")
def test_a_repository_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(tmp_path, STATE).read_bytes()
    files = {PICKLED: content, "config.json": b"{}", "tf_model.h5": b"other", "training_args.bin": b"other"}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub({"org/name": files}) as (address, requests):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        out = convert("org/name", tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    assert equal(out / "model.safetensors", STATE)
    fetched = {request.rpartition("/")[2] for request in requests if request.startswith("GET /org/")}
    assert fetched == {PICKLED, "config.json"}
    again = convert(f"org/name@{COMMIT}", tmp_path / "again", offline=True)
    assert equal(again / "model.safetensors", STATE)
    with pytest.raises(UserError, match=r"org/other: .*not in the cache"):
        convert("org/other", tmp_path / "third", offline=True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["model.safetensors", PICKLED], "has model.safetensors already; give it as it is"),
        (["config.json", "optimizer.pt"], "no pytorch_model.bin and no other pickle of weights"),
        (["epoch1.pth", "epoch2.pth"], r"several pickles \(epoch1.pth, epoch2.pth\); give one of the files"),
    ],
)
def test_what_there_is_to_convert_must_be_plain(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        convert(str(tmp_path), tmp_path / "out")


def test_other_mistakes_are_one_line(tmp_path: Path) -> None:
    pointer = tmp_path / "model.bin"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match="a pointer of Git LFS"):
        convert(str(pointer), tmp_path / "out")
    with pytest.raises(UserError, match="no such file or folder; a model on the hub is written org/name"):
        convert(str(tmp_path / "missing.pt"), tmp_path / "out")
    with pytest.raises(UserError, match="not empty; choose another --out"):
        convert(str(pointer), tmp_path)


def test_a_pytorch_whose_unpickler_is_not_sound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.__version__", TorchVersion("2.9.1+cpu"))
    with pytest.raises(
        UserError, match=r"PyTorch 2\.10 or later only, this is 2\.9\.1.*pip install 'torch>=2\.10'"
    ):
        convert(str(saved(tmp_path, STATE)), tmp_path / "out")


def test_memory_is_bounded(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": torch.zeros(2**24)})
    job = Job({str(file): str(tmp_path / "out")}, None, 2**24, 60)
    done = subprocess.run(
        [sys.executable, "-m", "mergerisk.recipe.unpickling", to_text(job)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == f"{file}: it takes more than 16 MiB to read"
