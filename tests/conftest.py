"""One thread per process, as in a worker: the suite runs in several processes already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.tiny import save_tiny_vit, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test or a fixture draws without a seed, such as the weights of a new module, is the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ViT of a few thousand parameters, as transformers saves it."""
    return save_tiny_vit(tmp_path_factory.mktemp("backbone") / "tiny-vit")


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    """A study file over two tiny tasks, which runs in seconds."""
    return write_tiny_study(tmp_path_factory.mktemp("study"), tiny_vit)


@pytest.fixture(scope="session")
def tracked_runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all tests: to make it takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def mlflow(tracked_runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow, with an experiment for the test; artifacts lie in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked_runs)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    return pytest.importorskip("mlflow")
