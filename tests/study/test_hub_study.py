"""The shipped studies ``paper`` and ``paper-cnn`` on a hub on this machine that is laid out as the real one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import yaml

from mergerisk.cli.main import main
from mergerisk.study import load_study
from mergerisk.study.locating import short_list
from mergerisk.study.shipped import shipped_studies
from mergerisk.tasks.hub_datasets import HUB_TASKS
from tests.models.hub_stand_in import COMMIT, hub
from tests.study.real_hub import CLIP, CONVERSION, DATA, EXPERT, RESNET, UNREADABLE, RealHub, real_hub

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[..., Path]

TASKS = tuple(DATA)
PINNED = f"{CLIP}@{CONVERSION}"
ABSENT = "http://127.0.0.1:9"

STEPS = {"adamerging": {"steps": 2, "batch_size": 2}, "surgery": {"surgery": {"steps": 3}}}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealHub:
    return real_hub(tmp_path_factory.mktemp("real"))


def serve(real: RealHub, **options: Any) -> Any:
    return hub(real.repositories, **{"commits": real.commits, "pull_requests": real.pull_requests} | options)


def shipped(name: str, **changes: Any) -> dict[str, Any]:
    """The shipped study with few steps of attacks and of training; nothing else is changed."""
    content = yaml.safe_load(shipped_studies()[name].read_text(encoding="utf-8"))
    content["budgets"]["steps"] = 2
    content["merging"] = [
        {"method": method} | {k: v for part in method.split("+") for k, v in STEPS.get(part, {}).items()}
        for method in content["merging"]
    ]
    if name == "paper-cnn":
        content["experts"]["fine_tune"]["epochs"] = 1
    return content | changes


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str = "paper", **changes: Any) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(shipped(name, **changes)), encoding="utf-8")
        return path

    return write


def command(address: str, cache: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The real command, with a hub and a cache of its own."""
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_CACHE", None)
    words = [sys.executable, "-m", "mergerisk", *map(str, arguments)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The same command in this process: exit code, and what it is at fault with: the last lines, one a fault. What it
    prints besides is in ``printed``."""
    printed: list[str] = []

    def run(address: str, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("time.sleep", lambda _: None)  # the library waits between its attempts
        code = 0
        try:
            main(list(map(str, arguments)))
        except SystemExit as end:
            code = int(end.code or 0)
        # The library's progress bars and warnings go there too.
        captured = capsys.readouterr()
        said = captured.err.splitlines()
        printed.append(captured.out)
        faults = [line for line in said if line.startswith("mergerisk: ")]
        assert faults == (said[-len(faults) :] if code else [])
        return code, "\n".join(faults)

    run.printed = printed  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize("name", ["paper", "paper-cnn"])
def test_the_shipped_studies_resolve(name: str) -> None:
    study = load_study(name)
    assert study.task_names == TASKS
    assert study.settings == 336
    assert load_study(shipped_studies()[name]).to_yaml() == study.to_yaml()
    if name == "paper":
        assert study.experts.files["cars"] == EXPERT.format("stanford-cars")


def test_the_stand_in_has_what_the_package_has_pinned() -> None:
    pins = {
        task: (dataset.name, dataset.revision, dataset.config or "data") for task, dataset in HUB_TASKS.items()
    }
    assert {task: (data.name, data.commit, data.folder) for task, data in DATA.items()} == {
        task: pins[task] for task in DATA
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "paper-cnn"])
def test_the_study_runs_to_the_end_and_offline_again(
    name: str, real: RealHub, write: Write, tmp_path: Path
) -> None:
    fewer = {"attacks": ["fgsm", "di_fgsm"]} if name == "paper-cnn" else {}  # all of them are tried in the other
    path, cache, store = write(name, **fewer), tmp_path / "cache", tmp_path / "store"
    options = ("--store", store, "--limit", 2, "--workers", 2)
    with serve(real) as (address, requests):
        first = command(address, cache, "run", path, "--out", tmp_path / "a", *options)
    assert first.returncode == 0, first.stderr
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    expected = {RESNET: real.commits[RESNET]} if name == "paper-cnn" else experts_and(PINNED, CONVERSION)
    expected |= {f"hub:{data.name}": data.commit for data in DATA.values()}
    assert record["commits"] == expected
    assert record["notes"] == []  # the study pins what it takes
    results = pd.read_parquet(tmp_path / "a" / "results.parquet")
    merges = results[~results["target"].isin(["expert", "pretrained"])]
    assert len(merges) == 8 * 7 * (2 if fewer else 6) * 2 * 3
    assert (results["images"] == 2).all()
    clean = pd.read_parquet(tmp_path / "a" / "clean.parquet")
    assert clean.groupby("task", observed=True).size().min() >= 10
    fetched = {request.partition("/resolve/")[2] for request in requests if request.startswith("GET")}
    read = {file.partition("/")[2] for file in fetched if file}
    unreadable = {file for files in real.repositories.values() for file, it in files.items() if it == UNREADABLE}
    assert not read & unreadable
    assert not any(file.endswith(".bin") for file in read)

    again = command(ABSENT, cache, "run", path, "--out", tmp_path / "b", *options, "--offline")
    assert again.returncode == 0, again.stderr
    counts = json.loads((tmp_path / "b" / "run.json").read_text())["kinds"].values()
    assert all(kind["count"] == kind["cached"] for kind in counts), "offline the same files are found"
    assert (tmp_path / "a" / "clean.parquet").read_bytes() == (tmp_path / "b" / "clean.parquet").read_bytes()


def experts_and(backbone: str, commit: str) -> dict[str, str]:
    """Model → commit, of what ``paper`` takes."""
    endings = ("stanford-cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
    return {backbone: commit} | {EXPERT.format(ending): COMMIT for ending in endings}


def test_without_a_pin_the_conversion_is_taken_and_said_to_be(real: RealHub, write: Write, tmp_path: Path) -> None:
    small = {"tasks": ["mnist"], "merging": ["weight_averaging"], "attacks": ["fgsm"], "surrogates": ["expert"]}
    path = write(backbone=CLIP, budgets={"epsilon": ["4/255"], "steps": 1}, **small)
    note = f"main of {CLIP} has no safetensors; taken from the hub's conversion, refs/pr/66, commit c237dc4"
    with serve(real) as (address, _):
        made = command(address, tmp_path / "cache", "run", path, "--out", tmp_path / "run", "--workers", 1)
    assert made.returncode == 0, made.stderr
    assert f"note: M{note[1:]}" in made.stdout
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["commits"][f"{CLIP}@refs/pr/66"] == CONVERSION
    assert [said.startswith(note) for said in record["notes"]] == [True]
    assert note[1:] in (tmp_path / "run" / "report.html").read_text().replace("&#39;", "'")


def test_validate_and_plan_say_so_too_and_offline(real: RealHub, write: Write, here: Any) -> None:
    path = write(backbone=CLIP, tasks=["mnist"], merging=["weight_averaging"])
    with serve(real) as (address, _):
        here(address, "validate", path)
    for words in (("validate", path, "--offline"), ("plan", path, "--offline"), ("plan", path)):
        assert here(ABSENT, *words) == (0, "")
    says = (
        f"\nnote: main of {CLIP} has no safetensors; taken from the hub's conversion, refs/pr/66, commit c237dc4"
    )
    assert [says in text for text in here.printed] == [True] * 4


def test_offline_one_line_names_all_that_is_missing(tmp_path: Path) -> None:
    made = command(ABSENT, tmp_path / "cache", "run", "paper", "--out", tmp_path / "run", "--offline")
    *_, line = made.stderr.splitlines()
    assert made.returncode == 2
    assert len(line) < 500
    assert line == (
        f"mergerisk: backbone: {PINNED}: no such folder, and not in the cache of downloads; fetch it once without "
        "--offline; also to be fetched: "
        "models tanganke/clip-vit-base-patch32_{dtd,eurosat,gtsrb,mnist,resisc45,stanford-cars,svhn}; "
        "datasets tanganke/{dtd,eurosat,gtsrb,resisc45,stanford_cars}, ufldl-stanford/svhn, ylecun/mnist"
    )


def test_without_a_network_it_is_one_line_too(here: Any, tmp_path: Path) -> None:
    code, line = here(ABSENT, "run", "paper", "--out", tmp_path / "run")
    assert code == 2
    assert "the hub cannot be asked" in line
    assert f"also to be fetched: models {CLIP}, tanganke/clip-vit-base-patch32_{{dtd," in line
    assert len(line) < 500


def test_names_are_listed_briefly() -> None:
    assert short_list(["o/a", "o/a"]) == "o/a"
    assert short_list(["o/net_b", "o/net_a", "p/net_c"]) == "o/net_{a,b}, p/net_c"
    assert short_list(["o/neta", "o/netb"]) == "o/{neta,netb}"
    assert short_list(["o/a", "o/a-b"]) == "o/{a,a-b}"
    assert short_list([f"o/{number:02}" for number in range(13)]).endswith(",08,09} and 3 more")


def test_after_a_transfer_that_breaks_off_the_next_run_fetches_the_rest(
    real: RealHub, write: Write, here: Any, tmp_path: Path
) -> None:
    path = write()
    with serve(real, dropping=("model.safetensors",)) as (address, before):
        code, line = here(address, "run", path, "--out", tmp_path / "run")
        assert code == 2
        assert f"backbone: {PINNED}: no such folder, and it cannot be downloaded" in line
        assert "also to be fetched: models" in line
    with serve(real) as (address, after):
        assert here(address, "validate", path)[0] == 0
    tokenizer, weights = (
        f"GET /{CLIP}/resolve/{CONVERSION}/{file}" for file in ("vocab.json", "model.safetensors")
    )
    assert tokenizer in before
    assert tokenizer not in after
    assert weights in after


def test_every_repository_is_asked_for_before_any_is_downloaded(
    real: RealHub, write: Write, here: Any, tmp_path: Path
) -> None:
    files = {task: EXPERT.format(task) for task in TASKS}  # cars is called otherwise, and there is no x
    path = write(experts={"from": "files", "files": files | {"dtd": "org/x"}})
    with serve(real) as (address, requests):
        code, line = here(address, "run", path, "--out", tmp_path / "run")
    assert code == 2
    assert f"experts.files.cars: {EXPERT.format('cars')}: no such folder, and no such model on the hub" in line
    assert line.endswith("; also at fault: models org/x")
    assert not [request for request in requests if "/resolve/" in request]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"backbone": "org/gated", "experts": {"from": "files", "files": dict.fromkeys(TASKS, RESNET)}},
            "backbone: org/gated: no such folder, and on the hub it is gated; accept its conditions",
        ),
        (
            {"tasks": [{"task": "hub:org/unknown"}], "experts": {"from": "files", "files": {"unknown": RESNET}}},
            "tasks: dataset org/unknown: no such dataset on the hub",
        ),
        (
            {"experts": {"from": "files", "files": dict.fromkeys(TASKS, RESNET)}},
            "experts.files.cars: .* is missing",
        ),
        (
            {"heads": {"from": "zero_shot", "class_names": {"dtd": ["one", "two"]}}},
            "heads.class_names.dtd: 2 names for prompts, the task has 47 classes",
        ),
        (
            {"heads": {"from": "checkpoint", "files": dict.fromkeys(TASKS, RESNET)}},
            "heads: head of .*: no class 'class 0', which task 'cars' has; its 1000 classes are called 'object 0'",
        ),
        (
            {"backbone": RESNET, "tasks": ["mnist"], "experts": {}, "heads": {"from": "zero_shot"}},
            "heads: .*: has no text tower",
        ),
        (
            {"heads": {"from": "linear_probe"}, "tasks": [{"task": "dtd", "size": 32, "limit": {"train": 0}}]},
            "task 'dtd' has no training images, and a linear probe needs some",
        ),
        (
            {"tasks": [{"task": "dtd", "size": 32, "limit": {"calibration": 0}}]},
            "task 'dtd' has no calibration images, and .* reads some",
        ),
    ],
)
def test_what_does_not_fit_is_a_line_each_before_any_stage(
    real: RealHub,
    write: Write,
    here: Any,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    path = write(**changes)
    everything = replace(real, repositories=real.repositories | {"org/gated": real.repositories[RESNET]})
    with serve(everything, gated=("org/gated",)) as (address, _):
        code, line = here(address, "run", path, "--out", tmp_path / "run")
    assert code == 2
    of_each = message.startswith(("experts.files", "heads: head of"))
    assert len(line.splitlines()) == (len(TASKS) if of_each else 1)
    assert re.search(message, line), line
    assert not (tmp_path / "run" / "store").exists()
