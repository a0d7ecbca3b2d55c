"""Files that are written tensor by tensor are those that the safetensors library writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from mergerisk.models.on_disk.checkpoints import DTYPES, tensor_specs
from mergerisk.recipe.writing import SafetensorsWriter
from mergerisk.safetensors_files import read_header

if TYPE_CHECKING:
    from pathlib import Path


def test_every_dtype_lies_where_the_library_puts_it(tmp_path: Path) -> None:
    tensors = {
        f"{name}/{dtype}".replace("torch.", ""): torch.arange(1, 4).reshape(3, 1).to(dtype)
        for dtype in DTYPES.values()
        for name in ("é", "b", "A")
    } | {"scalar": torch.tensor(2.0), "none": torch.zeros(0, 2)}
    with SafetensorsWriter(tmp_path / "own", tensor_specs(tensors), {}) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    content = save(tensors, {"format": "pt"})
    assert (tmp_path / "own").read_bytes() == content
    entries, metadata = read_header(tmp_path / "own")
    assert metadata == {"format": "pt"}
    assert {name: content[entry.start : entry.end] for name, entry in entries.items()} == {
        name: bytes(tensor.reshape(-1).view(torch.uint8).tolist()) for name, tensor in tensors.items()
    }
