"""Whole tiny studies: equal results however they are run, and nothing lost however they are stopped."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.free_memory import forget_peak
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan
from mergerisk.study.kinds.correct import Correct
from mergerisk.study.kinds.merge import Merge
from mergerisk.study.workbench import Compute, Workbench
from tests.heard import of_stages
from tests.tiny import write_tiny_study

OUTCOMES = ("outcomes.parquet", "clean.parquet")


@pytest.fixture(scope="module")
def finished(tiny_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made in this process."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    mr.run(tiny_study, folder)
    return folder


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in OUTCOMES]


def test_a_runs_folder_holds_what_is_promised(finished: Path) -> None:
    results = pd.read_parquet(finished / "results.parquet")
    promised = [
        "task",
        "attack",
        "surrogate",
        "target",
        "epsilon",
        "seed",
        "images",
        "images_both_correct",
        "clean_accuracy_surrogate",
        "clean_accuracy_target",
        "asr",
        "asr_low",
        "asr_high",
        "asr_all",
        "surrogate_asr",
        "relative_asr",
        "delta_asr",
    ]
    assert set(promised) <= set(results.columns)
    # tasks × attacks × surrogates × (merges + expert + pretrained) × budgets
    assert len(results) == 2 * 3 * 2 * 7 * 3
    pd.testing.assert_frame_equal(pd.read_csv(finished / "results.csv"), results, check_dtype=False)
    outcomes = pd.read_parquet(finished / "outcomes.parquet")
    assert len(outcomes) == len(results) * 12
    assert (outcomes["linf"] <= outcomes["epsilon"]).all()
    assert "<html" in (finished / "report.html").read_text()
    assert json.loads((finished / "summary.json").read_text())["schema_version"] == 2
    record = json.loads((finished / "run.json").read_text())
    assert record["kinds"]["craft"]["seconds"] > 0
    if forget_peak():  # the system lets peaks be measured
        peaks = [stage["peak_bytes"] for stage in record["stages"] if stage["kind"] == "craft"]
        assert record["kinds"]["craft"]["peak_bytes"] == max(peaks)
        assert min(peaks) > 2**24  # PyTorch alone takes more
    assert load_study(finished / "study.yaml") == load_study(finished / "study.yaml", resolve=False)


def test_outcomes_can_be_recomputed_from_the_library(finished: Path) -> None:
    """One curve by hand: the store's experts and heads, the public attack, the public forward pass."""
    study = load_study(finished / "study.yaml")
    plan, store = make_plan(study), Store(finished / "store")
    stages = plan.stages.values()
    expert = store.get(next(s.key for s in stages if s.kind == "expert" and s.label.startswith("blobs"))).arrays
    head = store.get(next(s.key for s in stages if s.kind == "head" and s.label == "blobs")).arrays
    base = mr.load_encoder(study.backbone)
    surrogate = mr.Classifier(
        base.with_state({name: torch.from_numpy(array) for name, array in expert.items()}),
        mr.models.Head(torch.from_numpy(head["weight"]), torch.from_numpy(head["bias"])),
    )
    outcomes = pd.read_parquet(finished / "outcomes.parquet")
    chosen = outcomes[
        (outcomes["task"] == "blobs")
        & (outcomes["attack"] == "mi_fgsm")
        & (outcomes["surrogate"] == "expert")
        & (outcomes["target"] == "expert")
        & (outcomes["epsilon"] == 8 / 255)
    ]
    test = study.tasks[1].source.load().test
    picked = test[torch.tensor(chosen["image"].tolist())]
    attack = mr.attacks.create("mi_fgsm", steps=3)
    adversarial = attack(surrogate, picked.images, picked.labels, epsilon=8 / 255)
    assert mr.transfer.predict(surrogate, adversarial).tolist() == chosen["target_adversarial"].tolist()
    assert mr.transfer.predict(surrogate, picked.images).tolist() == chosen["target_clean"].tolist()
    np.testing.assert_allclose(
        (adversarial - picked.images).flatten(1).norm(dim=1).numpy(), chosen["l2"].to_numpy(), rtol=1e-5
    )


def test_workers_and_a_shared_store_change_nothing(finished: Path, tiny_study: Path, tmp_path: Path) -> None:
    mr.run(tiny_study, tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == contents(finished)
    # A second study on the same store finds everything there.
    events = []
    mr.run(
        tiny_study,
        tmp_path / "again",
        store=tmp_path / "two" / "store",
        listeners=[of_stages(lambda stage, event: events.append((stage, event)))],
    )
    assert events == []
    assert contents(tmp_path / "again") == contents(finished)


def test_two_runs_at_once_share_the_work(finished: Path, tiny_study: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-m", "mergerisk", "run", str(tiny_study), "--store", str(store), "--workers", "1"]
    runs = [
        subprocess.Popen([*command, "--out", str(tmp_path / name)], stderr=subprocess.PIPE) for name in ("a", "b")
    ]
    for run in runs:
        assert run.wait(timeout=300) == 0
        assert run.stderr is not None
        run.stderr.close()
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(finished)
    assert not list((store / "temporary").iterdir())


def test_fewer_images_are_a_subset(finished: Path, tiny_study: Path, tmp_path: Path) -> None:
    fewer = mr.run(tiny_study, tmp_path / "run", limit=6, store=finished / "store").outcomes
    more = pd.read_parquet(finished / "outcomes.parquet")
    keys = ["task", "attack", "surrogate", "target", "epsilon", "seed", "image"]
    assert len(fewer) == len(more) / 2
    both = fewer.astype(dict.fromkeys(keys[:4], str)).merge(more.astype(dict.fromkeys(keys[:4], str)), on=keys)
    assert len(both) == len(fewer)
    # Another batch size may flip signs of near-zero gradients, so a few outcomes may differ.
    assert (both["target_adversarial_x"] == both["target_adversarial_y"]).mean() > 0.97
    assert (both["target_clean_x"] == both["target_clean_y"]).all()


def test_another_seed_gives_other_experts_on_the_same_images(
    finished: Path, tiny_study: Path, tmp_path: Path
) -> None:
    other = mr.run(tiny_study, tmp_path / "run", seed=1, store=finished / "store").outcomes
    first = pd.read_parquet(finished / "outcomes.parquet")
    assert other["image"].tolist() == first["image"].tolist()
    assert set(other["seed"]) == {1}
    assert other["l2"].tolist() != first["l2"].tolist()


def test_damage_is_repaired(finished: Path, tiny_study: Path, tmp_path: Path) -> None:
    mr.run(tiny_study, tmp_path / "run")
    store = Store(tmp_path / "run" / "store")
    plan = make_plan(load_study(tiny_study))
    for kind in ("expert", "craft", "evaluate"):
        key = next(key for key, stage in plan.stages.items() if stage.kind == kind)
        for file in (store.root / "objects" / key[:2] / key).glob("*.*t*"):
            if file.suffix != ".json":
                file.write_bytes(file.read_bytes()[:-1] + b"\x00\x01")
    # Something that needs the damaged expert has to be made, so that the damage is met.
    needy = next(stage for stage in plan.stages.values() if stage.kind == "merge")
    store.set_aside(needy.key)
    mr.run(tiny_study, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(finished)
    assert len(list((store.root / "damaged").iterdir())) >= 3


def test_the_report_is_written_anew_without_the_store(finished: Path, tiny_study: Path, tmp_path: Path) -> None:
    mr.run(tiny_study, tmp_path / "run", store=finished / "store")
    page = (tmp_path / "run" / "report.html").read_bytes()
    (tmp_path / "run" / "report.html").unlink()
    result = mr.write_report(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").read_bytes() == page
    assert len(result.rates) == 2 * 3 * 2 * 7 * 3
    with pytest.raises(UserError, match="this is no finished run"):
        mr.write_report(tmp_path)


def test_given_experts_are_used(finished: Path, tmp_path: Path, tiny_vit: Path) -> None:
    plan, store = make_plan(load_study(finished / "study.yaml")), Store(finished / "store")
    key = next(k for k, s in plan.stages.items() if s.kind == "expert" and s.label.startswith("blobs"))
    from safetensors.numpy import save_file

    save_file(store.get(key).arrays, tmp_path / "blobs.safetensors")
    experts = {"fine_tune": {"epochs": 2, "learning_rate": 0.003, "batch_size": 16}}
    path = write_tiny_study(tmp_path, tiny_vit, experts=experts | {"files": {"blobs": "blobs.safetensors"}})
    mr.run(path, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(finished)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONUNBUFFERED": "1"}


@pytest.mark.slow
def test_killed_at_a_dozen_random_moments_nothing_is_lost(
    finished: Path, tiny_study: Path, tmp_path: Path
) -> None:
    out, moments = tmp_path / "run", random.Random(0)
    command = [sys.executable, "-m", "mergerisk", "run", str(tiny_study), "--out", str(out), "--workers", "1"]
    kills, progress = 0, [0]
    while kills < 12:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment())
        assert process.stderr is not None
        for _ in range(2):
            process.stderr.readline()  # everything is checked, stages start now
        time.sleep(moments.uniform(0.0, 4.0))
        killed = process.poll() is None
        process.kill()
        process.wait()
        process.stderr.close()
        kills += killed
        made = len(list((out / "store" / "objects").glob("*/*/manifest.json")))
        if not killed:
            # It finished before the moment came: start over, so that every kill interrupts something.
            out.rename(tmp_path / f"finished-{kills}-{len(progress)}")
            progress.append(0)
            continue
        assert made >= progress[-1], "a kill lost finished stages"
        progress.append(made)
    subprocess.run(command, check=True, capture_output=True, env=environment())
    assert contents(out) == contents(finished)
    store = Store(out / "store")
    for key in make_plan(load_study(tiny_study)).stages:
        store.get(key)  # every checksum holds


def test_workers_end_with_the_process_that_feeds_them(tiny_study: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mergerisk", "run", str(tiny_study), "--out", str(tmp_path), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment())
    assert process.stderr is not None
    for _ in range(2):
        process.stderr.readline()
    deadline = time.monotonic() + 60
    while len(workers := [pid for child in children(process.pid) for pid in (child, *children(child))]) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    process.stderr.close()
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "workers outlived their run"
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def test_a_failing_stage_stops_the_run_with_its_reason(
    tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(Merge, "run", broken)
    with pytest.raises(RuntimeError, match="boom"):
        mr.run(tiny_study, tmp_path / "run")
    monkeypatch.undo()
    made = len(list((tmp_path / "run" / "store" / "objects").glob("*/*/manifest.json")))
    assert made >= 6  # tasks, heads and experts are kept


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_listener_ends_the_run_instead_of_hanging_it(
    tiny_study: Path, tmp_path: Path, workers: int
) -> None:
    def listener(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mr.run(tiny_study, tmp_path / "run", workers=workers, listeners=[listener])


def test_every_kind_of_merge_comes_back_from_the_store_as_it_was(tiny_vit: Path, tmp_path: Path) -> None:
    """One encoder, one per task, adapters on features, adapters inside, mixtures: predictions equal those of the
    same calls without any store."""
    few = {"steps": 3}
    merging = [
        "dare",
        "emr",
        {"method": "emr+surgery", "surgery": few},
        {"method": "we_moe", "steps": 2},
        {"method": "weight_averaging+surgery_v2", "surgery_v2": few},
    ]
    path = write_tiny_study(tmp_path, tiny_vit, merging=merging, attacks=["fgsm"])
    mr.run(path, tmp_path / "run")
    study = load_study(path)
    plan = make_plan(study)
    bench = Workbench(Store(tmp_path / "run" / "store"), Compute())
    corrections = [stage for stage in plan.stages.values() if isinstance(stage, Correct)]
    data = corrections[0].calibration
    experts = bench.experts(corrections[0].backbone, corrections[0].ingredients)
    calibration = bench.calibration(data)
    kept = pd.read_parquet(tmp_path / "run" / "clean.parquet")
    for spec in study.merging:
        merged = mr.merging.create(spec.name, **spec.parameters).merge(
            bench.base(corrections[0].backbone), experts, calibration=calibration
        )
        for run in plan.task_runs:
            test, head = bench.task(data.tasks[run.task]).test, bench.head(data.heads[run.task])
            predicted = merged.classifier(run.task, head)(test.images).argmax(dim=1)
            rows = kept[(kept["task"] == run.task) & (kept["model"] == spec.label)].sort_values("image")
            assert rows["prediction"].tolist() == predicted.tolist(), (spec.label, run.task)
