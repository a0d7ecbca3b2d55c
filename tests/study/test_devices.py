"""Devices by name, and a worker for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from mergerisk.errors import UserError
from mergerisk.study.devices import resolve_device, resolve_devices
from mergerisk.study.executors import local
from mergerisk.study.executors.hiring import workforce

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_devices_that_are_there_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [resolve_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda",
        "cuda",
        "cuda:1",
        "cpu",
    ]
    assert resolve_devices("0,1") == resolve_devices("cuda:0, cuda:1") == ("cuda:0", "cuda:1")
    assert resolve_devices("0,0") == ("cuda:0", "cuda:0")
    assert resolve_devices("cpu,cpu") == ("cpu", "cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps") == "mps"


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ("2", "--devices cuda:2: there is no such device; PyTorch finds cuda:0 to cuda:1"),
        ("0,cpu", "--devices 0,cpu: cuda and cpu differ in the last digits"),
        ("0,auto", "--devices 0,auto: auto is no device"),
        ("0,", "--devices : no such device; use auto, cpu, cuda, cuda:N or mps"),
        ("0,tpu", "--devices tpu: no such device"),
        ("mps", "--devices mps: PyTorch finds no GPU of Apple's; use --devices cpu"),
    ],
)
def test_devices_that_are_not_there_are_a_line(listed: str, why: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_devices(listed)
    assert str(error.value).startswith(why)


def test_without_a_gpu_a_device_of_it_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match=f"--device {name}: PyTorch finds no CUDA device; use --device cpu"):
            resolve_device(name)


@pytest.mark.usefixtures("two_gpus")
def test_every_device_has_a_worker_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    class Group:
        def __init__(self, *arguments: Any) -> None:
            started.append(arguments)
            self.workers: list[Any] = []

        def close(self) -> None:
            started.append("closed")

    monkeypatch.setattr(local, "_WorkerGroup", Group)
    store: Any = tmp_path
    with workforce(devices="1,0,1", batch_size=4) as crew:
        assert (crew.device, crew.workers) == ("cuda:1, cuda:0", 3)
        with crew.hire(store, 2):  # no more than there is to do
            assert started == [(store, ["cuda:1"], 4), (store, ["cuda:0"], 4)]
    assert started[2:] == ["closed", "closed"]
    for options in ({"device": "cuda:0"}, {"workers": 2}):
        with pytest.raises(UserError, match="leave out --device and --workers"), workforce(devices="0", **options):
            pass  # pragma: no cover
