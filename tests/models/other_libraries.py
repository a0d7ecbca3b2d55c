"""timm and OpenCLIP themselves.

Both depend on torchvision, whose wheels on PyPI do not import beside a CPU torch, and with one that is installed but
does not import, transformers fails too. So where the two are not installed they are fetched from PyPI into a folder
of the test run's, without what they depend on, and the few names of torchvision that they import, but never call to
make a model, are stood in for while they are imported. Nothing of this is seen by other tests.
"""

from __future__ import annotations

import enum
import importlib
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from torch import nn
from transformers.utils import is_timm_available, is_torchvision_available

if TYPE_CHECKING:
    from collections.abc import Iterator

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
PACKAGES = ("timm", "open_clip_torch", "ftfy", "wcwidth")
"""The libraries, and what they need beyond transformers' own requirements."""

_OURS = ("timm", "open_clip", "torchvision", "ftfy", "wcwidth")


class _InterpolationMode(enum.Enum):
    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _FrozenBatchNorm2d(nn.Module):
    """Asked for by ``isinstance`` only."""


_STOOD_IN_FOR: dict[str, dict[str, Any]] = {
    "torchvision": {},
    "torchvision.datasets": dict.fromkeys(
        ("CIFAR100", "CIFAR10", "MNIST", "KMNIST", "FashionMNIST", "ImageFolder"), object
    ),
    "torchvision.ops": {},
    "torchvision.ops.misc": {"FrozenBatchNorm2d": _FrozenBatchNorm2d},
    "torchvision.transforms": {"InterpolationMode": _InterpolationMode}
    | dict.fromkeys(
        (
            "CenterCrop",
            "ColorJitter",
            "Compose",
            "Grayscale",
            "Normalize",
            "RandomResizedCrop",
            "Resize",
            "ToTensor",
        ),
        object,
    ),
    "torchvision.transforms.functional": {"InterpolationMode": _InterpolationMode},
}
"""Every name of torchvision that the two import, by its module."""


def _stand_in() -> dict[str, ModuleType]:
    made: dict[str, ModuleType] = {}
    for name, content in _STOOD_IN_FOR.items():
        module = ModuleType(name)
        module.__path__ = []  # so that it may have modules inside
        vars(module).update(content)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(made[parent], last, module)
        made[name] = module
    return made


def _installed() -> bool:
    """Whether the environment has both, and a torchvision that imports."""
    try:
        for name in ("torchvision", "timm", "open_clip"):
            importlib.import_module(name)
    except Exception:  # whatever torchvision's compiled part raises
        return False
    return True


def _fetch(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--quiet"]
    pip += ["--disable-pip-version-check", "-c", str(CONSTRAINTS), "--target", str(folder), *PACKAGES]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(
            f"{', '.join(PACKAGES)} could not be fetched from PyPI: {done.stderr.strip().splitlines()[-1:]}; run "
            "the tests where it can be reached, or leave these out: -m 'not pypi'"
        )


@pytest.fixture(scope="session")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path | None, dict[str, ModuleType]]:
    """The folder with the libraries, if there is one, and their modules."""
    # Asked for once per process: what is imported here must not change what transformers does elsewhere.
    assert is_torchvision_available() in {True, False}
    assert is_timm_available() in {True, False}
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in _OURS}
    path = list(sys.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = None
        if not _installed():
            root = tmp_path_factory.getbasetemp()
            root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root  # one for all workers
            folder = root / "other_libraries"
            with FileLock(root / "other_libraries.lock"):
                if not (folder / "open_clip").is_dir():
                    _fetch(folder)
            for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
                del sys.modules[name]
            sys.modules.update(_stand_in())
            sys.path.insert(0, str(folder))
            for name in ("timm", "open_clip"):
                importlib.import_module(name)
    found = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in _OURS}
    for name in found:
        del sys.modules[name]
    sys.modules.update(kept)
    sys.path[:] = path
    return folder, found


@pytest.fixture
def other_libraries(
    fetched: tuple[Path | None, dict[str, ModuleType]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """timm and OpenCLIP can be imported."""
    folder, modules = fetched
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    if folder is not None:
        monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    with warnings.catch_warnings():
        # What they say when a model is made is theirs.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"(timm|open_clip)\.")
        yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in _OURS:  # imported on the way
            modules[name] = sys.modules.pop(name)
