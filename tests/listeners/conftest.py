"""A small finished run, which runs into its folder, or on its store, find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import mergerisk as mr
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    few = {
        "merging": ["weight_averaging"],
        "attacks": ["fgsm"],
        "surrogates": ["pretrained"],
        "images_per_task": 12,
    }
    return write_tiny_study(tmp_path_factory.mktemp("study"), tiny_vit, **few)


@pytest.fixture(scope="session")
def finished(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logged") / "run"
    mr.run(study, folder, workers=2, progress=False)
    return folder
