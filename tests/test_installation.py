"""What ``mergerisk doctor`` finds and says, of machines that are not this one too."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mergerisk.cli.doctor_words import describe_installation
from mergerisk.installation import Disk, Gpu, Installation, Package, devices, look, troubles
from tests.cli.test_cli import call

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """This machine, with nothing imported but what is loaded already."""
    return look(tmp_path_factory.mktemp("here"), lambda name: sys.modules.get(name))


@pytest.fixture
def sound(here: Installation) -> Installation:
    """A machine on which nothing is wrong, whatever this one is."""
    package = Package("torch", ">=2.6", None, "2.13.0+cpu", "2.13.0", "works")
    return replace(
        here,
        packages=(package,),
        devices=replace(here.devices, built_for=None, driver=False, gpus=(), threads=2),
        memory=4 * GIB,
        disk=Disk("/runs", 9 * GIB, None),
        hub=None,
    )


def said(found: Installation) -> list[tuple[str, bool]]:
    return [(f"{trouble.what}; {trouble.remedy}", trouble.stops) for trouble in troubles(found)]


def rows(found: Installation) -> dict[str, str]:
    """Of the table: title → text."""
    lines = describe_installation(found, ()).partition("\n\na study can run here")[0].splitlines()
    return dict(re.split(r"  +", line, maxsplit=1) for line in lines if line)


def test_what_is_found_here_is_so(here: Installation) -> None:
    versions = {package.name.lower(): package.installed for package in here.packages}
    assert versions["torch"] == importlib.metadata.version("torch")
    assert versions["pyyaml"] == importlib.metadata.version("pyyaml")
    assert {"timm", "open-clip"} <= set(here.extras)
    assert not {"test", "dev"} & set(here.extras)
    assert {package.name for package in here.packages if package.extra == "timm"} == {"timm"}
    assert {package.extra for package in here.packages if package.name in {"torch", "pyyaml", "numpy"}} == {None}
    assert here.devices.cores == len(os.sched_getaffinity(0))
    assert 0 < here.disk.free < 2**60


def test_every_library_is_imported_by_its_own_name_and_one_that_fails_is_a_finding(tmp_path: Path) -> None:
    asked = []

    def importing(name: str) -> Any:
        asked.append(name)
        if name in {"torch", "sklearn"}:
            raise OSError("libgomp.so.1: cannot open shared object file")

    found = look(tmp_path, importing)
    assert {"torch", "PIL", "yaml", "sklearn", "huggingface_hub.constants"} - set(asked) <= {
        "huggingface_hub.constants"
    }
    assert {package.name for package in found.packages if package.state == "broken"} == {"torch", "scikit-learn"}
    stops = [text for text, stop in said(found) if stop]
    assert len(stops) == 2
    assert "cannot be imported: OSError: libgomp.so.1" in stops[1]
    assert "pip install --force-reinstall 'torch>=2.6'" in stops[1]
    assert rows(found)["threads"] == "PyTorch does not say"


def test_nothing_is_said_where_nothing_is_wrong(sound: Installation) -> None:
    assert said(sound) == []
    assert describe_installation(sound, ()).endswith("a study can run here: mergerisk run starter")
    shown = rows(sound)
    assert (shown["torch"], shown["memory"]) == ("2.13.0+cpu", "4.0 GiB free")


@pytest.mark.parametrize(
    ("package", "words", "stops"),
    [
        (
            Package("torch", ">=2.6", None, None, "2.13.0", "missing"),
            "not installed; pip install 'torch>=2.6'",
            True,
        ),
        (Package("torch", ">=2.6", None, "2.4.1", "2.13.0", "unfit"), "2.4.1 does not do: it must be >=2.6", True),
        (Package("torch", ">=2.6", None, "2.14.0+cu130", "2.13.0", "works"), "newer than 2.13.0", False),
        (Package("torch", ">=2.6", None, "2.9.0", "2.13.0", "works"), "older than 2.13.0", False),
        (Package("timm", ">=1.0", "timm", "0.9", None, "unfit"), "pip install 'mergerisk[timm]' --upgrade", False),
        (Package("timm", ">=1.0", "timm", "1.0", None, "broken", "x"), "torch and torchvision that match", False),
        (Package("optuna", ">=4.0", "recommend", "5.0", None, "broken", "x"), "--force-reinstall", False),
    ],
)
def test_versions(sound: Installation, package: Package, words: str, stops: bool) -> None:
    ((text, stop),) = said(replace(sound, packages=(package,)))
    assert words in text
    assert stop is stops


def test_an_extra_that_lacks_is_no_trouble(sound: Installation) -> None:
    lacks = replace(sound, extras=("timm",), packages=(Package("timm", ">=1.0", "timm", None, None, "missing"),))
    assert said(lacks) == []
    assert rows(lacks)["extra timm"] == "not installed: pip install 'mergerisk[timm]'"


@pytest.mark.parametrize(
    ("memory", "free", "stops"),
    [
        (2 * GIB, GIB, []),
        (2 * GIB - 1, 9 * GIB, [False]),
        (GIB // 4, GIB - 1, [True, False]),
        (None, 2**25, [True]),
    ],
)
def test_room(sound: Installation, memory: int | None, free: int, stops: list[bool]) -> None:
    found = said(replace(sound, memory=memory, disk=Disk("/runs", free, None)))
    assert [stop for _, stop in found] == stops
    assert any("fewer --workers" in text for text, _ in found) == (memory == 2 * GIB - 1)


def test_a_folder_that_takes_no_files_stops_a_study(sound: Installation) -> None:
    found = replace(sound, disk=Disk("/runs", 9 * GIB, "Read-only file system"))
    assert said(found) == [("/runs: cannot be written to: Read-only file system; choose another folder", True)]


def pytorch(cuda: str | None, count: int, warning: str = "") -> Any:
    """A stand-in for the module: its first device is in use by somebody who shares nothing."""

    def available() -> bool:
        if warning:
            warnings.warn(warning, stacklevel=1)
        return count > 0

    def free(number: int) -> tuple[int, int]:
        if number == 0:
            raise RuntimeError("all CUDA-capable devices are busy or unavailable")
        return GIB, 80 * GIB

    about = SimpleNamespace(name="Giant", total_memory=80 * GIB)
    return SimpleNamespace(
        version=SimpleNamespace(cuda=cuda, hip=None),
        get_num_threads=lambda: 3,
        cuda=SimpleNamespace(
            is_available=available,
            device_count=lambda: count,
            get_device_properties=lambda number: about,  # noqa: ARG005
            mem_get_info=free,
        ),
    )


def test_gpus_are_named_with_their_memory(sound: Installation) -> None:
    found = replace(sound, devices=replace(devices(pytorch("12.8", 2)), driver=False))
    assert found.devices.gpus == (Gpu("Giant", 80 * GIB, None), Gpu("Giant", 80 * GIB, GIB))
    assert said(found) == [("cuda:1 has 1.0 GiB free; end what else is on it, or use --device cpu", False)]
    assert rows(found)["cuda:1"] == "Giant, 80.0 GiB, 1.0 GiB free"


def test_a_build_for_gpus_that_finds_none(sound: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    alone = replace(devices(pytorch("12.8", 0, "The NVIDIA driver is too old")), driver=False)
    ((text, stop),) = said(replace(sound, devices=alone))
    assert "built for CUDA 12.8 and finds no device (The NVIDIA driver is too old): studies run on the CPU" in text
    assert not stop
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hidden = replace(sound, devices=replace(devices(pytorch("12.8", 0)), driver=True))
    assert "unset CUDA_VISIBLE_DEVICES" in said(hidden)[0][0]
    slow = replace(sound, devices=replace(devices(pytorch(None, 0)), driver=True))
    assert "built for CPUs only" in said(slow)[0][0]


def test_this_pytorch_is_asked_as_it_is() -> None:
    found = devices(torch)
    assert found.threads == torch.get_num_threads()
    assert len(found.gpus) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_it_answers_where_no_other_library_loads(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'numpy', 'pandas', 'rich', 'yaml', 'huggingface_hub', 'threadpoolctl', 'pydantic',\n"
        "             'matplotlib', 'pyarrow', 'scipy', 'sklearn', 'PIL', 'timm', 'open_clip', 'statsmodels', 'httpx2'):\n"
        "    sys.modules[name] = None\n"
        "from mergerisk.cli.main import main\n"
        f"main(['doctor', {str(tmp_path)!r}, '--json', {str(tmp_path / 'doctor.json')!r}])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.returncode, result.stderr) == (3, "")
    assert result.stdout.endswith("no study can run here\n")
    written = json.loads((tmp_path / "doctor.json").read_text())
    assert written["can_run"] is False
    broken = {package["name"] for package in written["packages"] if package["state"] == "broken"}
    assert {"torch", "numpy", "rich", "scikit-learn", "pyyaml"} <= broken
    assert written["disk"]["folder"] == str(tmp_path.resolve())


def test_a_folder_that_is_not_there_is_a_mistake(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = call(capsys, "doctor", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "no such folder" in err
