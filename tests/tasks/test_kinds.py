"""Kinds of tasks that others add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mergerisk as mr
from mergerisk.registry import Entry, Registry
from mergerisk.store import Store
from mergerisk.study.executors.attempt import make_artefact
from mergerisk.study.stages import Stages
from mergerisk.study.workbench import Compute, Workbench
from mergerisk.tasks import TASK_KINDS, Skipped, TaskArrays, TaskSource, catalogue, task_source
from mergerisk.tasks.arrays import TEST, TRAIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ASKED: list[str] = []


@dataclass(frozen=True)
class Shades(TaskSource):
    """``shades:4``: grey images, dark and bright, so many of each for training and for testing."""

    @classmethod
    def takes(cls, spec: str) -> bool:
        ASKED.append(spec)
        return spec.startswith("shades:")

    def identity(self) -> Mapping[str, Any]:
        return {"shades": self.spec}

    def arrays(self) -> TaskArrays:
        count = int(self.spec.partition(":")[2])
        labels = np.arange(4 * count) % 2
        split = np.repeat([TRAIN, TEST], 2 * count)
        images = np.broadcast_to((labels * 200 + 20).astype(np.uint8)[:, None, None, None], (4 * count, 5, 6, 3))
        skipped = (Skipped("shade", "too grey"),)
        return TaskArrays(images, labels, split, ("dark", "bright"), held_out=True, skipped=skipped)


@pytest.fixture
def _shades() -> Iterator[None]:
    ASKED.clear()
    TASK_KINDS.register("shades")(Shades)
    yield
    TASK_KINDS.unregister("shades")


@pytest.mark.usefixtures("_shades")
def test_a_kind_of_task_is_one_class(tmp_path: Path) -> None:
    task = mr.load_task("shades:4", name="grey")
    assert (task.name, task.class_names, len(task.train), len(task.test)) == ("grey", ("dark", "bright"), 8, 8)
    assert task.test.images[:2].mean(dim=(1, 2, 3)).tolist() == pytest.approx([20 / 255, 220 / 255])
    outline = task_source("shades:4").check()
    assert (outline.train, outline.calibration, outline.test) == (8, 0, 8)
    assert (outline.image_bytes, outline.stored_bytes) == (5 * 6 * 3 * 4, 16 * 5 * 6 * 3)
    with pytest.raises(mr.UserError, match=r"task 'shades:4': size: unknown field \(known: name\)"):
        task_source("shades:4", size=3)
    # Kept, as it is: nothing is held out of what says that it held out, and what was skipped is known.
    stages, store = Stages({}), Store(tmp_path / "store")
    made = stages.task(task_source("shades:4"))
    bench = Workbench(store, Compute())
    make_artefact(stages.ordered()[made.key], bench)
    kept = bench.task(made)
    assert (kept.name, len(kept.train), len(kept.calibration)) == ("shades:4", 8, 0)
    assert kept.skipped == (Skipped("shade", "too grey"),)
    assert bool((kept.test.images[:] == task.test.images[:]).all())


@pytest.mark.usefixtures("_shades")
def test_own_kinds_come_first_and_others_are_not_asked(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 3, 3, 3), np.uint8), labels=[0, 1] * 2, split=[0, 0, 1, 1])
    (tmp_path / "shades:2").mkdir()
    for spec in ("digits", "mnist", "hub:org/name", str(tmp_path / "a.npz"), str(tmp_path / "shades:2")):
        assert not isinstance(task_source(spec), Shades)
    assert ASKED == []


def test_a_kind_that_cannot_be_imported_is_said_where_it_might_be_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    builtin = [TASK_KINDS.check(name) for name in ("starter", "hub", "npz", "parquet", "folder")]
    broken: Registry[Any] = Registry("kind of task", "none", [*builtin])
    broken.__dict__["_installed"] = {"idx": Entry("idx", "not_there.idx:Idx", "plugin from x", distribution="x 1")}
    monkeypatch.setattr(catalogue, "TASK_KINDS", broken)
    assert task_source("digits").name == "digits"
    with pytest.raises(
        mr.UserError, match=r"kind of task 'idx' cannot be loaded from 'not_there\.idx:Idx': No mod"
    ):
        task_source("a.idx")
