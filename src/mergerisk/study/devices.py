"""Where a study computes: from what is written to devices as PyTorch calls them."""

from __future__ import annotations

import re

from mergerisk.errors import UserError

NAMES = "auto, cpu, cuda, cuda:N or mps"


def resolve_device(device: str, option: str = "--device") -> str:
    """A device that is there: ``auto`` becomes ``cuda`` if there is one.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        option: that it was given with, for messages.

    Raises:
        UserError: it is none of these, or there is none.
    """
    number = re.fullmatch(r"cuda:([0-9]{1,4})", device)
    if device not in {"auto", "cpu", "cuda", "mps"} and number is None:
        raise UserError(f"{option} {device}: no such device; use {NAMES}")
    if device == "cpu":
        return device
    import torch

    if device == "mps":
        if not torch.backends.mps.is_available():
            raise UserError(f"{option} mps: PyTorch finds no GPU of Apple's; use {option} cpu")
        return device
    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if not available:
        raise UserError(f"{option} {device}: PyTorch finds no CUDA device; use {option} cpu")
    if number is not None and int(number[1]) >= (count := torch.cuda.device_count()):
        there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UserError(f"{option} {device}: there is no such device; PyTorch finds {there}")
    return device


def resolve_devices(listed: str) -> tuple[str, ...]:
    """Devices of a list such as ``0,1`` (CUDA devices by number), ``cpu,cpu`` or ``cuda:0,cuda:0``: a worker each.

    Raises:
        UserError: one is none, or is not there, or they are not of one kind.
    """
    names = [name.strip() for name in listed.split(",")]
    devices = [f"cuda:{name}" if name.isdecimal() else name for name in names]
    if "auto" in devices:
        raise UserError(
            f"--devices {listed}: auto is no device; name them, as in --devices 0,1, or use --device auto"
        )
    kinds = {kind_of(device): None for device in devices}
    found = tuple(resolve_device(device, "--devices") for device in devices)
    if len(kinds) > 1:
        raise UserError(
            f"--devices {listed}: {' and '.join(kinds)} differ in the last digits of what they compute; name "
            "devices of one kind, so that no result depends on which worker made it"
        )
    return found


def kind_of(device: str) -> str:
    """``cuda`` of ``cuda:1``."""
    return device.partition(":")[0]
