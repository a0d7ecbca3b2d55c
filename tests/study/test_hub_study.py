"""The shipped studies ``paper`` and ``paper-cnn`` on a hub on this machine, whose models and pictures are tiny."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import transformers
import yaml
from PIL import Image

from mergerisk.cli.main import main
from mergerisk.models.templates import CLASS_NAMES
from mergerisk.study import load_study
from mergerisk.study.locating import short_list
from mergerisk.study.shipped import shipped_studies
from mergerisk.tasks.hub_datasets import HUB_TASKS
from tests.models.hub_stand_in import COMMIT, Repositories, hub
from tests.models.material import drawn, save_classifier, save_clip
from tests.tasks.material import table, to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[..., Path]

TASKS = ("cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
CLIP, RESNET = "openai/clip-vit-base-patch32", "microsoft/resnet-50"
EXPERT = "tanganke/clip-vit-base-patch32_{}"
ABSENT = "http://127.0.0.1:9"

SMALL: dict[str, Any] = {
    "attacks": ["fgsm", "mi_fgsm"],
    "images_per_task": 6,
    "budgets": {"epsilon": ["4/255", "16/255"], "steps": 2},
}
SIZES = {"size": 32, "limit": {"train": 24, "calibration": 8, "test": 20}}
"""Of a task; pictures are of 20 to 40 pixels."""


def picture(number: int, label: int) -> bytes:
    """A noisy picture in the colour of its class: PNG or JPEG, grey or coloured, of its own size."""
    random = np.random.default_rng(number)
    height, width = random.integers(20, 40, 2).tolist()
    tint = np.array([label * 37 % 256, label * 91 % 256, label * 153 % 256])
    pixels = (0.6 * tint + 0.4 * random.integers(0, 256, (height, width, 3))).astype(np.uint8)
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert("L") if number % 5 == 0 else image).save(buffer, ("PNG", "JPEG")[number % 2])
    return buffer.getvalue()


def dataset(task: str) -> dict[str, bytes]:
    """The files of a task's dataset, where its configuration puts them."""
    names = CLASS_NAMES.get(task, ("red", "green", "blue", "grey"))
    folder = HUB_TASKS[task].config or "data"
    files = {}
    for first, split, per_class in ((0, "train", 5), (1000, "test", 3)):
        labels = [*range(len(names))] * per_class
        pictures = [picture(first + i, label) for i, label in enumerate(labels)]
        made = table(labels, pictures, names=tuple(names))
        files[f"{folder}/{split}-00000-of-00001.parquet"] = to_bytes(made, rows=50)
    return files


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Repositories:
    """All that both studies ask of the hub, under its own names."""
    root = tmp_path_factory.mktemp("repositories")
    found = {HUB_TASKS[task].name: dataset(task) for task in TASKS}
    clip = save_clip(root / "clip", context=77)
    found[CLIP] = files_in(clip)
    for number, task in enumerate(TASKS):
        expert = transformers.CLIPVisionModel.from_pretrained(clip)
        folder = root / task
        drawn(expert, seed=number + 1, width=0.02).save_pretrained(folder)
        name = EXPERT.format({"cars": "stanford-cars"}.get(task, task))
        found[name] = files_in(folder)
    found[RESNET] = files_in(save_classifier(root / "resnet", "resnet"))
    return found


def commits() -> dict[str, str]:
    """What the package has pinned, shortened ones completed."""
    pinned = {dataset.name: dataset.revision for dataset in HUB_TASKS.values()}
    return {name: revision.ljust(40, "0") for name, revision in pinned.items() if revision}


serve = partial(hub, commits=commits())


def shipped(name: str, **changes: Any) -> dict[str, Any]:
    """The shipped study with fewer and smaller images, and few steps; nothing else is changed."""
    content = yaml.safe_load(shipped_studies()[name].read_text(encoding="utf-8")) | SMALL
    content["tasks"] = [task | SIZES for task in content["tasks"]]
    steps = {"adamerging": {"steps": 2, "batch_size": 4}, "surgery": {"surgery": {"steps": 3}}}
    content["merging"] = [
        {"method": method} | {k: v for part in method.split("+") for k, v in steps.get(part, {}).items()}
        for method in content["merging"]
    ]
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
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The same command in this process: exit code, and what it is at fault with: one line, the last."""

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
        said = capsys.readouterr().err.splitlines()
        faults = [line for line in said if line.startswith("mergerisk: ")]
        assert faults == (said[-1:] if code else [])
        return code, "".join(faults)

    return run


@pytest.mark.parametrize("name", ["paper", "paper-cnn"])
def test_the_shipped_studies_resolve(name: str) -> None:
    study = load_study(name)
    assert study.task_names == TASKS
    assert study.settings == 336
    assert load_study(shipped_studies()[name]).to_yaml() == study.to_yaml()
    if name == "paper":
        assert study.experts.files["cars"] == EXPERT.format("stanford-cars")


@pytest.mark.slow
def test_the_paper_runs_and_offline_it_runs_again(
    repositories: Repositories, write: Write, tmp_path: Path
) -> None:
    path, cache = write(), tmp_path / "cache"
    with serve(repositories) as (address, _):
        first = command(address, cache, "run", path, "--out", tmp_path / "a", "--workers", 2)
    assert first.returncode == 0, first.stderr
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    models = [CLIP, *(name for name in repositories if "vit-base-patch32_" in name)]
    expected = dict.fromkeys(models, COMMIT)
    expected |= {f"hub:{HUB_TASKS[task].name}": commits().get(HUB_TASKS[task].name, COMMIT) for task in TASKS}
    assert record["commits"] == expected
    results = pd.read_parquet(tmp_path / "a" / "results.parquet")
    merges = results[~results["target"].isin(["expert", "pretrained"])]
    assert len(merges) == 8 * 7 * 2 * 2 * 2
    assert (results["images"] == 6).all()
    outcomes = pd.read_parquet(tmp_path / "a" / "outcomes.parquet")
    assert outcomes.groupby("target", observed=True)["target_clean"].nunique().min() > 5, (
        "heads tell classes apart"
    )
    again = command(ABSENT, cache, "run", path, "--out", tmp_path / "b", "--workers", 1, "--offline")
    assert again.returncode == 0, again.stderr
    for name in ("outcomes.parquet", "clean.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
def test_the_study_of_a_convolutional_network_runs(
    repositories: Repositories, write: Write, tmp_path: Path
) -> None:
    tasks = [task for task in shipped("paper-cnn")["tasks"] if task["task"] in {"eurosat", "mnist", "dtd"}]
    experts = {"fine_tune": {"epochs": 1, "learning_rate": 0.001, "batch_size": 8}}
    path = write("paper-cnn", tasks=tasks, experts=experts)
    with serve(repositories) as (address, _):
        made = command(address, tmp_path / "cache", "run", path, "--out", tmp_path / "run", "--workers", 2)
    assert made.returncode == 0, made.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["commits"][RESNET] == COMMIT
    results = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert len(results[~results["target"].isin(["expert", "pretrained"])]) == 8 * 3 * 2 * 2 * 2


def test_offline_one_line_names_all_that_is_missing(tmp_path: Path) -> None:
    made = command(ABSENT, tmp_path / "cache", "run", "paper", "--out", tmp_path / "run", "--offline")
    (line,) = made.stderr.splitlines()
    assert made.returncode == 2
    assert len(line) < 500
    assert line == (
        f"mergerisk: backbone: {CLIP}: no such folder, and not in the cache of downloads; fetch it once without "
        "--offline; also to be fetched: "
        "models tanganke/clip-vit-base-patch32_{dtd,eurosat,gtsrb,mnist,resisc45,stanford-cars,svhn}; "
        "datasets tanganke/{dtd,eurosat,gtsrb,resisc45,stanford_cars}, ufldl-stanford/svhn, ylecun/mnist"
    )


def test_without_a_network_it_is_one_line_too(here: Any, tmp_path: Path) -> None:
    code, line = here(ABSENT, "run", "paper", "--out", tmp_path / "run")
    assert code == 2
    assert "the hub cannot be asked" in line
    assert "also to be fetched: models tanganke/clip-vit-base-patch32_{dtd," in line
    assert len(line) < 500


def test_names_are_listed_briefly() -> None:
    assert short_list(["o/a", "o/a"]) == "o/a"
    assert short_list(["o/net_b", "o/net_a", "p/net_c"]) == "o/net_{a,b}, p/net_c"
    assert short_list(["o/neta", "o/netb"]) == "o/{neta,netb}"
    assert short_list(["o/a", "o/a-b"]) == "o/{a,a-b}"
    assert short_list([f"o/{number:02}" for number in range(13)]).endswith(",08,09} and 3 more")


def test_after_a_transfer_that_breaks_off_the_next_run_fetches_the_rest(
    repositories: Repositories, write: Write, here: Any, tmp_path: Path
) -> None:
    path = write()
    with serve(repositories, dropping=("model.safetensors",)) as (address, before):
        code, line = here(address, "run", path, "--out", tmp_path / "run")
        assert code == 2
        assert f"backbone: {CLIP}: no such folder, and it cannot be downloaded" in line
        assert "also to be fetched: models" in line
    with serve(repositories) as (address, after):
        assert here(address, "validate", path)[0] == 0
    tokenizer, weights = (f"GET /{CLIP}/resolve/{COMMIT}/{file}" for file in ("vocab.json", "model.safetensors"))
    assert tokenizer in before
    assert tokenizer not in after
    assert weights in after


def test_every_repository_is_asked_for_before_any_is_downloaded(
    repositories: Repositories, write: Write, here: Any, tmp_path: Path
) -> None:
    files = {task: EXPERT.format(task) for task in TASKS}  # cars is called otherwise, and there is no x
    path = write(experts={"from": "files", "files": files | {"dtd": "org/x"}})
    with serve(repositories) as (address, requests):
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
            "heads.class_names.dtd: 2 names for prompts, the task has 4 classes",
        ),
        (
            {"heads": {"from": "checkpoint", "files": dict.fromkeys(TASKS, RESNET)}},
            "heads: head of .*: no class 'red', which task 'cars' has; its 3 classes are called 'cat', 'dog'",
        ),
        (
            {"backbone": RESNET, "experts": {}, "heads": {"from": "zero_shot"}},
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
def test_what_does_not_fit_is_one_line_before_any_stage(
    repositories: Repositories,
    write: Write,
    here: Any,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    path = write(**changes)
    everything = repositories | {"org/gated": repositories[CLIP]}
    with serve(everything, gated=("org/gated",)) as (address, _):
        code, line = here(address, "run", path, "--out", tmp_path / "run")
    assert code == 2
    assert re.search(message, line), line
    assert not (tmp_path / "run" / "store").exists()
