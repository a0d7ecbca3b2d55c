"""Quantised weights, which are neither merged nor attacked: known by what files hold, and said."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

NO_INTEGERS = (
    "quantised weights are not read: give the model in float32, float16 or bfloat16, as it was before or as "
    "model.dequantize() and then save_pretrained make it"
)
"""How messages go on."""

_PACKED = re.compile(r"[FIUC]\d+(_[A-Z0-9]+)?")
"""What safetensors calls dtypes, those of quantised weights such as float8 among them."""

_LAYERS = frozenset({"qweight", "qzeros", "weight_packed", "weight_scale", "weight_scale_inv", "SCB", "absmax"})
"""Last parts of names that only quantised layers have (GPTQ, AWQ, compressed-tensors, bitsandbytes)."""


def check_not_packed(name: str, dtype: str, file: Path) -> None:
    """Raises:
    UserError: a tensor has a dtype of the format that only quantised weights have.
    """
    if _PACKED.fullmatch(dtype):
        raise UserError(f"{file}: tensor {name!r} holds {dtype}: {NO_INTEGERS}")


def check_not_quantised(name: str, dtype: torch.dtype, shape: tuple[int, ...], file: Path) -> None:
    """Raises:
    UserError: a tensor belongs to a quantised layer.
    """
    last = name.rpartition(".")[2]
    packed = last == "weight" and dtype in {torch.int8, torch.uint8} and len(shape) > 1
    if packed or last in _LAYERS:
        raise UserError(f"{file}: tensor {name!r} holds {str(dtype).removeprefix('torch.')}: {NO_INTEGERS}")
