"""Stages made in parts: joined, they are what one worker would have made, to the byte."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan
from mergerisk.study.dividing import divided
from mergerisk.study.executors.attempt import attempt
from mergerisk.study.kinds.craft import Craft
from mergerisk.study.kinds.evaluate import Evaluate
from mergerisk.study.running import Options, run_study
from mergerisk.study.workbench import Compute, Workbench
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

BATCH = 4

ATTACKS: list[Any] = [
    "mi_fgsm",
    "pgd",  # starts at random
    "di_fgsm",  # resizes at random
    {"attack": "admix", "targeted": True},  # mixes in images of all, aims at drawn labels
    {"attack": "vmi_fgsm", "neighbours": 2},
    {"attack": "ssa", "spectra": 2},
    {"attack": "bsr", "shuffles": 2},
    "pna_patchout",
    "sgm",
    {"attack": "apgd_ce", "steps": 4},
    {"attack": "square", "queries": 20},
    {"attack": "universal", "file": "added.npy"},
]


@pytest.fixture(scope="module")
def folder(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made at once, of which nothing was split: ten images in batches of four, at two budgets."""
    folder = tmp_path_factory.mktemp("shards")
    np.save(folder / "added.npy", np.random.default_rng(0).uniform(-1, 1, (3, 16, 16)))
    path = write_tiny_study(
        folder,
        tiny_vit,
        tasks=["stripes.npz"],
        experts={"fine_tune": {"epochs": 1}},
        merging=["weight_averaging"],
        attacks=ATTACKS,
        budgets={"epsilon": ["4/255", "8/255"], "steps": 2},
        surrogates=["expert"],
        images_per_task=10,
    )
    run_study(load_study(path), folder / "run", Options(batch_size=BATCH, workers=1))
    return folder


def test_parts_joined_are_the_whole_for_every_family_of_attacks(folder: Path, tmp_path: Path) -> None:
    """What is joined is what was made at once, file by file; of evaluations, whose rows are laid out budget by budget,
    too. Parts are gone then."""
    whole, store = Store(folder / "run" / "store"), Store(tmp_path)
    plan = make_plan(load_study(folder / "study.yaml"))
    for key, stage in plan.stages.items():
        if not isinstance(stage, Craft | Evaluate):
            kept = whole.get(key)
            store.put(key, kept.arrays, recipe=stage.recipe, info=kept.info)
    bench = Workbench(whole, Compute("cpu", BATCH))
    bench.store = store
    tasks = {key for key, stage in plan.stages.items() if stage.kind == "task"}
    for key in tasks:  # kept in rows, which are not copied by `get`
        store.remove(key)
        assert attempt(plan.stages[key], bench, wait=True).status == "done"
    spread = divided(plan, store, 3, BATCH)
    assert [key for key in spread.stages if key in plan.stages] == [*plan.stages], "keys and their order stay"
    for stage in spread.stages.values():
        outcome = attempt(stage, bench, wait=True)
        assert outcome.status == "done", outcome
    split = [stage for stage in spread.stages.values() if isinstance(stage, Craft | Evaluate)]
    assert {len(stage.shards) for stage in split} == {3}, "all of these are joined from parts"
    for stage in split:
        names = {path.name for path in whole.folder(stage.key).iterdir()} - {"manifest.json"}
        for name in names:
            assert (store.folder(stage.key) / name).read_bytes() == (
                whole.folder(stage.key) / name
            ).read_bytes(), (
                stage.label,
                name,
            )
        assert not any(store.has(made.key) for made in stage.shards)


def test_what_was_joined_and_is_lost_is_made_again_at_once(folder: Path) -> None:
    plan, store = make_plan(load_study(folder / "study.yaml")), Store(folder / "run" / "store")
    stage = next(stage for stage in plan.stages.values() if isinstance(stage, Craft))
    joined = replace(stage, shards=stage.divided(2, BATCH)[1].shards)
    found = joined.run(Workbench(store, Compute("cpu", BATCH)))
    for name, array in store.get(stage.key).arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def test_what_others_have_joined_needs_no_parts(folder: Path) -> None:
    plan, store = make_plan(load_study(folder / "study.yaml")), Store(folder / "run" / "store")
    stage = next(stage for stage in plan.stages.values() if isinstance(stage, Craft))
    shards, _ = stage.divided(2, BATCH)
    assert attempt(shards[0], Workbench(store, Compute("cpu", BATCH)), wait=True).seconds == 0.0
    assert not store.has(shards[0].key)
    assert divided(plan, store, 2, BATCH).stages == plan.stages, "nothing is missing, nothing is split"


def test_only_whole_batches_are_split_and_black_boxes_never(folder: Path, tmp_path: Path) -> None:
    plan, store = make_plan(load_study(folder / "study.yaml")), Store(tmp_path)
    assert divided(plan, store, 1, BATCH) is plan
    assert not any(stage.kind == "shard" for stage in divided(plan, store, 9, 128).stages.values())
    spread = divided(plan, store, 2, BATCH).stages.values()
    craft = next(stage for stage in plan.stages.values() if isinstance(stage, Craft))
    parts = [stage for stage in spread if stage.kind == "shard" and getattr(stage, "of", "") == craft.key]
    assert [(part.first, part.last) for part in parts] == [(0, 4), (4, None)]  # type: ignore[attr-defined]
    assert sum(part.cost()["gradient"] for part in parts) == craft.cost()["gradient"]
    evaluate = next(stage for stage in plan.stages.values() if isinstance(stage, Evaluate))
    object.__setattr__(evaluate.target, "answers_by", "query")
    assert evaluate.divided(2, BATCH) == ((), evaluate)


def test_a_number_of_shards_out_of_range_is_a_line(folder: Path, tmp_path: Path) -> None:
    for shards in (0, 1001):
        with pytest.raises(UserError, match=f"--shards must be between 1 and 1000, got {shards}"):
            mr.run(folder / "study.yaml", tmp_path, shards=shards)
