"""Models and data that a study names: all are placed when it is read, found by one walk, and changed by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from mergerisk.study import Study, load_study
from mergerisk.study.named_sources import NamedSource, named_sources, renamed
from mergerisk.tasks import TASK_KINDS, TaskArrays, TaskSource
from tests.tiny import arrays

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONTENT = """
backbone: ./base
tasks: [pictures.npz, {task: "listed:lists/all", name: listed}, digits]
heads: {from: checkpoint, files: {digits: ./head}}
experts: {from: files, files: {pictures: ./expert, digits: "org/expert#ema"}}
ingredients: {other: ./other.safetensors}
outsider: {task: foreign.npz, offered: true}
other_architecture: {backbone: "package.module:make@./weights"}
merging: [weight_averaging]
attacks: [fgsm, {attack: universal, file: ./uap.npz}]
surrogates: [expert/digits, other_architecture]
targets:
  - {label: elsewhere, encoder: ./elsewhere}
  - {label: asked, callable: {digits: "package:answer"}}
budgets: {epsilon: [0.1]}
"""


@dataclass(frozen=True)
class Listed(TaskSource):
    """``listed:PATH``."""

    @classmethod
    def takes(cls, spec: str) -> bool:
        return spec.startswith("listed:")

    @classmethod
    def placed(cls, spec: str, folder: Path) -> str:
        return f"listed:{folder / spec.removeprefix('listed:')}"

    def identity(self) -> Mapping[str, Any]:
        return {}

    def arrays(self) -> TaskArrays:
        raise NotImplementedError


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    for name in ("pictures.npz", "foreign.npz"):
        np.savez(tmp_path / name, **arrays("stripes"))
    (tmp_path / "study.yaml").write_text(CONTENT)
    TASK_KINDS.register("listed")(Listed)
    yield load_study(tmp_path / "study.yaml", resolve=False)
    TASK_KINDS.unregister("listed")


def called(one: NamedSource) -> str:
    return one.value if isinstance(one.value, str) else one.value.task


def test_every_name_is_found_where_it_stands_and_its_path_is_placed(study: Study, tmp_path: Path) -> None:
    here = str(tmp_path)
    assert [(str(one.where), one.kind, called(one)) for one in named_sources(study)] == [
        ("backbone", "backbone", f"{here}/base"),
        ("tasks", "data", f"{here}/pictures.npz"),
        ("tasks", "data", f"listed:{here}/lists/all"),
        ("tasks", "data", "digits"),
        ("heads.files.digits", "head", f"{here}/head"),
        ("experts.files.pictures", "model", f"{here}/expert"),
        ("experts.files.digits", "model", "org/expert#ema"),
        ("ingredients.other", "model", f"{here}/other.safetensors"),
        ("outsider.task", "data", f"{here}/foreign.npz"),
        ("other_architecture.backbone", "backbone", f"package.module:make@{here}/weights"),
        ("targets: elsewhere", "model", f"{here}/elsewhere"),
    ]
    assert study.attacks[1].parameters == {"file": f"{here}/uap.npz"}


def test_what_is_published_tells_no_folder(study: Study, tmp_path: Path) -> None:
    published = study.to_yaml(places=False)
    assert str(tmp_path) not in published
    said = yaml.safe_load(published)
    assert said["tasks"] == ["pictures.npz", {"task": "listed:all", "name": "listed"}, "digits"]
    assert said["other_architecture"]["backbone"] == "package.module:make@weights"
    assert said["targets"][1]["callable"] == {"digits": "package:answer"}


def test_names_are_changed_and_nothing_else(study: Study) -> None:
    assert renamed(study, lambda one: one.value) is study
    before = named_sources(study)
    models = renamed(study, lambda one: one.value if one.kind == "data" else f"new/{one.where.path[-1]}")
    assert [called(one) for one in named_sources(models) if one.kind != "data"] == [
        f"new/{one.where.path[-1]}" for one in before if one.kind != "data"
    ]
    back = iter(before)
    assert renamed(models, lambda _: next(back).value) == study
    data = renamed(
        study, lambda one: one.data.model_copy(update={"task": "letters"}) if one.kind == "data" else one.model
    )
    assert [called(one) for one in named_sources(data) if one.kind == "data"] == ["letters"] * 4
    assert [replace(one, value="") for one in named_sources(data)] == [replace(one, value="") for one in before]
