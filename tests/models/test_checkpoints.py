"""Checkpoints on disk against safetensors' own reader, and files that are not what they should be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergerisk.errors import UserError
from mergerisk.models.on_disk.checkpoints import Alignment, Checkpoint, align


def every_dtype() -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    values = torch.randn(3, 5, generator=draws) * 50
    floating = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    whole = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    return {
        **{f"layer.{dtype}": values.to(dtype) for dtype in (*floating, *whole)},
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
    }


def save_sharded(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    folder.mkdir()
    owners = {}
    for position, name in enumerate(sorted(tensors)):
        owners[name] = f"model-{position % 3 + 1:05}-of-00003.safetensors"
    for shard in set(owners.values()):
        save_file({name: tensors[name] for name in owners if owners[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": owners}))


@pytest.mark.parametrize("layout", ["file", "folder", "shards"])
def test_every_tensor_is_what_safetensors_reads(tmp_path: Path, layout: str) -> None:
    tensors = every_dtype()
    path = tmp_path / "model"
    if layout == "shards":
        save_sharded(path, tensors)
    else:
        path.mkdir()
        save_file(tensors, path / "model.safetensors")
        path = path / "model.safetensors" if layout == "file" else path
    checkpoint = Checkpoint(path)
    assert set(checkpoint) == set(tensors)
    assert len(checkpoint) == len(tensors)
    for name, expected in tensors.items():
        spec = checkpoint.specs[name]
        assert (spec.dtype, spec.shape, spec.nbytes) == (expected.dtype, tuple(expected.shape), expected.nbytes)
        assert torch.equal(checkpoint[name], expected)
        assert checkpoint[name].dtype == expected.dtype
    assert "other" not in checkpoint
    with pytest.raises(KeyError):
        checkpoint["other"]
    assert len(checkpoint.files) == (3 if layout == "shards" else 1)


def test_a_tensor_is_new_memory_at_every_access(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3)}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    checkpoint["weight"].zero_()
    assert torch.equal(checkpoint["weight"], torch.ones(3))
    assert torch.equal(load_file(tmp_path / "model.safetensors")["weight"], torch.ones(3))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_resident_memory_does_not_grow_with_what_was_read(tmp_path: Path) -> None:
    def resident() -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

    size = 4 * 2**20
    save_file({f"weight.{i}": torch.ones(size // 4) for i in range(24)}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    sums = [float(checkpoint["weight.0"].sum())]
    before = resident()
    sums += [float(tensor.sum()) for tensor in checkpoint.values()]
    assert resident() - before < 4 * size
    assert sums == [size / 4] * 25


def test_reading_names_and_shapes_reads_no_values(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(1000)}, file)
    checkpoint = Checkpoint(file)
    header = file.read_bytes()[:-4000]
    file.write_bytes(header)  # the values are gone
    assert checkpoint.specs["weight"].shape == (1000,)
    with pytest.raises(UserError, match=r"model\.safetensors: ends within tensor 'weight'"):
        checkpoint["weight"]
    with pytest.raises(UserError, match="cut short"):
        Checkpoint(file)
    file.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint["weight"]


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(file: Path, header: object, data: bytes = bytes(8), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return file


@pytest.mark.parametrize("dtype", ["F4", "F8_E4M3", "F6_E2M3", "U32"])
def test_a_sound_file_of_quantised_weights_is_not_called_broken(tmp_path: Path, dtype: str) -> None:
    file = written(tmp_path / "model.safetensors", {"a": GOOD | {"dtype": dtype}})
    with pytest.raises(
        UserError, match=rf"^{re.escape(str(file))}: tensor 'a' holds {dtype}: quantised weights are"
    ):
        Checkpoint(file)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "not JSON"),
        (b'{"a": \xff}', "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        ([1], "not a JSON object"),
        ({"a": GOOD | {"dtype": "half"}}, "dtype 'half', which the format does not have"),
        ({"a": GOOD | {"dtype": 7}}, "malformed"),
        ({"a": GOOD | {"shape": [2.0]}}, "malformed"),
        ({"a": GOOD | {"shape": [True]}}, "malformed"),
        ({"a": GOOD | {"shape": [-2]}}, "malformed"),
        ({"a": GOOD | {"shape": 2}}, "malformed"),
        ({"a": GOOD | {"data_offsets": [0]}}, "malformed"),
        ({"a": GOOD | {"data_offsets": [-8, 0]}}, "malformed"),
        ({"a": {"dtype": "F32"}}, "malformed"),
        ({"a": None}, "malformed"),
        ({"a": GOOD | {"shape": [3]}}, "8 bytes, its shape and dtype need 12"),
        ({"a": GOOD | {"shape": [0, 2**62, 2**62]}}, "impossible shape"),
        ({"a": GOOD | {"data_offsets": [8, 16]}}, "cut short"),
        ({"a": GOOD, "b": GOOD}, "overlap"),
        ({"a": GOOD | {"shape": [1], "data_offsets": [4, 8]}}, "leave gaps"),
        ({"a": GOOD | {"shape": [1], "data_offsets": [0, 4]}}, "leave gaps"),
        ({}, "leave gaps"),
    ],
)
def test_a_header_that_does_not_describe_the_file_is_refused(tmp_path: Path, header: Any, message: str) -> None:
    file = written(tmp_path / "model.safetensors", header)
    with pytest.raises(UserError, match=message) as raised:
        Checkpoint(file)
    assert str(raised.value).startswith(f"{file}: not a sound safetensors file")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("length", [2**64 - 1, 200_000_000, 10_000])
def test_a_huge_header_length_is_refused_without_reading_it(tmp_path: Path, length: int) -> None:
    with pytest.raises(UserError, match="header's length"):
        Checkpoint(written(tmp_path / "model.safetensors", {"a": GOOD}, length=length))


@pytest.mark.parametrize("size", [0, 5, 8])
def test_a_stub_of_a_file_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * size)
    with pytest.raises(UserError, match="cut short"):
        Checkpoint(tmp_path)


def test_a_file_without_tensors_is_a_checkpoint_without_tensors(tmp_path: Path) -> None:
    assert not dict(Checkpoint(written(tmp_path / "model.safetensors", {}, data=b"")))


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
def test_pickles_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="can run code"):
        Checkpoint(tmp_path / name)
    with pytest.raises(UserError, match=r"no model\.safetensors; .* can run code"):
        Checkpoint(tmp_path)


def test_what_is_no_checkpoint_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        Checkpoint(tmp_path / "missing")
    with pytest.raises(UserError, match=r"no model\.safetensors and no model\.safetensors\.index\.json"):
        Checkpoint(tmp_path)
    save_file({"weight": torch.ones(1)}, tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match=r"give a file, such as .*encoder\.safetensors"):
        Checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="an adapter, not a model"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must hold a JSON object"),
        ("{}", "weight_map is missing or empty"),
        ('{"weight_map": {"a": "../elsewhere.safetensors"}}', "shards are files of the same folder"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "shards are files of the same folder"),
        ('{"weight_map": {"a": "..\\\\elsewhere"}}', "shards are files of the same folder"),
        ('{"weight_map": {"a": ".."}}', "shards are files of the same folder"),
        ('{"weight_map": {"a": 1}}', "shards are files of the same folder"),
        ('{"weight_map": {"a": "gone.safetensors"}}', r"gone\.safetensors: missing"),
        ('{"weight_map": {"a": "here.safetensors"}}', r"here\.safetensors: holds tensor 'b'"),
        ('{"weight_map": {"a": "here.safetensors", "b": "here.safetensors"}}', "lacks tensor 'a'"),
    ],
)
def test_an_index_that_is_wrong_is_refused(tmp_path: Path, index: str, message: str) -> None:
    save_file({"b": torch.ones(1)}, tmp_path / "here.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=message) as raised:
        Checkpoint(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_shard_that_is_cut_short_is_named(tmp_path: Path) -> None:
    save_sharded(tmp_path / "model", every_dtype())
    shard = tmp_path / "model" / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"model-00002-of-00003\.safetensors: .*cut short"):
        Checkpoint(tmp_path / "model")


INNER = ("embeddings.weight", "layer.0.norm.weight", "layer.1.norm.weight", "norm.weight")


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        (INNER, INNER, Alignment()),
        (INNER, [f"vit.{name}" for name in INNER] + ["classifier.weight"], Alignment(theirs="vit.")),
        ([f"vit.{name}" for name in INNER] + ["classifier.weight"], INNER, Alignment(ours="vit.")),
        # As many fit as they are, so nothing is moved.
        (["a.x", "x"], ["x", "b.x"], Alignment()),
        (["x"], ["y"], Alignment()),
        ([], ["y"], Alignment()),
    ],
)
def test_names_are_aligned_up_to_one_prefix(names: list[str], others: list[str], expected: Alignment) -> None:
    found = align(names, others)
    assert found == expected
    for name in names:
        if found(name) in others:
            assert found.back(found(name)) == name


def test_what_is_outside_the_prefix_has_no_name() -> None:
    assert Alignment(theirs="vit.").back("classifier.weight") is None


def test_two_prefixes_that_fit_alike_are_refused() -> None:
    twins = [f"{tower}.{name}" for tower in ("text", "vision") for name in INNER]
    with pytest.raises(UserError, match=r"several copies of the weights \('text\.', 'vision\.'\)"):
        align(INNER, twins)
