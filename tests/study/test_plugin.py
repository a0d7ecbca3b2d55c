"""What a third party adds, installed as a package, in a study: nothing of ours knows its names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image

import mergerisk as mr
from mergerisk.cli.main import main
from mergerisk.report import summary_schema
from mergerisk.study import load_run
from tests.tiny import arrays, write_tiny_study

SOURCE = Path(__file__).parents[1] / "plugin_package"
ATTACKS = [
    "coin_toss",
    "mi_fgsm",
    {"attack": "mi_fgsm", "inputs": ["both_ways"], "label": "mi_both_ways"},
    {"attack": "mi_fgsm", "gradient": ["loudest"], "label": "mi_loudest"},
]
MERGING = ["weight_averaging", "median", "weight_averaging+shift", "median+surgery"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plugin is installed."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("installed")
    shutil.copytree(SOURCE, source)  # building leaves files beside the source
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def installed(folder: Path) -> dict[str, str]:
    """The environment of a process that finds the plugin."""
    return finding(folder)


def finding(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}


def mergerisk(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "mergerisk", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_installed_runs_in_a_study(installed: dict[str, str], tiny_vit: Path, tmp_path: Path) -> None:
    tasks = ["stripes.npz", {"task": "blobs.csv", "name": "blobs", "label": "class"}]
    changes = {"merging": MERGING, "surrogates": ["expert"], "attacks": ATTACKS, "tasks": tasks}
    study = write_tiny_study(tmp_path, tiny_vit, **changes)
    write_csv(tmp_path, "blobs")
    diary = tmp_path / "diary.txt"
    run = ("run", str(study), "--out", str(tmp_path / "run"), "--workers", "2", "--listener", "diary")
    mergerisk(installed | {"DIARY": str(diary)}, *run)
    events = diary.read_text().split()
    assert (events[0], events[-1]) == ("RunStarted", "RunFinished")
    assert events.count("StageStarted") == events.count("StageEnded") > 20
    outcomes = pd.read_parquet(tmp_path / "run" / "outcomes.parquet")
    # tasks × attacks × (merges + expert + pretrained) × budgets × images
    assert len(outcomes) == 2 * 4 * 6 * 3 * 12
    assert set(MERGING) < set(outcomes["target"])
    lengths = outcomes.groupby("attack", observed=True)["l2"].sum()
    assert set(lengths.index) == {"coin_toss", "mi_fgsm", "mi_both_ways", "mi_loudest"}
    assert len({lengths[name] for name in ("mi_fgsm", "mi_both_ways", "mi_loudest")}) == 3
    assert load_run(tmp_path / "run").study.task_names == ("stripes", "blobs")  # without the plugin
    # Its pixels go all the way, but for those that the box stops.
    signs = outcomes[outcomes["attack"] == "coin_toss"]
    assert (signs["linf"] <= signs["epsilon"]).all()
    assert (signs["linf"] > 0.999 * signs["epsilon"]).all()
    assert (signs["l2"] > 0.8 * signs["epsilon"] * (3 * 16 * 16) ** 0.5).all()


@pytest.mark.slow
def test_a_table_with_its_own_stages_and_defenses_need_no_line_of_ours(
    installed: dict[str, str], tiny_vit: Path, tmp_path: Path
) -> None:
    """Planned, run by workers, resumed, collected, exported and shown, with a hyper-parameter each."""
    together = {"ensemble": ["expert", "pretrained"], "algorithm": "evenly", "label": "both"}
    study = write_tiny_study(
        tmp_path,
        tiny_vit,
        merging=["weight_averaging"],
        surrogates=["expert", "merged/weight_averaging+both_sides", together],
        attacks=["fgsm"],
        defenses=[
            {"defense": "both_sides", "of": "weight_averaging", "share": 0.25},
            {"defense": "stay_close", "of": "weight_averaging", "weight": 2.0, "label": "close"},
        ],
        tables=[
            {"table": "confidence", "images": 4},
            {"table": "queries", "searches": ["coin_tosses"], "queries": 3, "at": [3]},
        ],
        causes=["lead"],
    )
    run = tmp_path / "run"
    plan = mergerisk(installed, "plan", str(study))
    assert re.search(r"^confidence +6 +0 ", plan, re.MULTILINE), plan
    mergerisk(installed, "run", str(study), "--out", str(run), "--workers", "2")
    table = pd.read_parquet(run / "confidence.parquet")
    assert [*table] == ["task", "surrogate", "seed", "image", "confidence"]
    assert len(table) == 2 * 3 * 4  # tasks × surrogates × images
    assert table["confidence"].between(1 / 3, 1).all()
    outcomes = pd.read_parquet(run / "outcomes.parquet")
    assert "both" in set(outcomes["surrogate"])
    queries = pd.read_parquet(run / "queries.parquet")
    assert set(queries["search"]) == {"coin_tosses"}
    assert queries["queries"].dropna().between(1, 3).all()
    assert (pd.read_parquet(run / "causes.parquet")["lead"].dropna() >= 0).all()
    defended = "weight_averaging+both_sides"
    assert {"weight_averaging", defended, "close"} < set(outcomes["target"])
    assert re.search(r"^train +1 +0 ", plan, re.MULTILINE), plan
    own = outcomes[(outcomes["surrogate"] == defended) & (outcomes["target"] == defended)]
    assert (own["surrogate_adversarial"] == own["target_adversarial"]).all()
    # Resumed: nothing is done again, and what is written is the same.
    again = mergerisk(installed, "plan", str(study), "--out", str(run))
    assert re.search(r"^confidence +6 +6 ", again, re.MULTILINE), again
    before = (run / "confidence.parquet").read_bytes()
    mergerisk(installed, "run", str(study), "--out", str(run))
    assert (run / "confidence.parquet").read_bytes() == before
    # Shown and exported, and that without the plugin too.
    record = json.loads((run / "run.json").read_text())
    assert record["kinds"]["confidence"]["cached"] == 6
    main(["report", str(run), "--export", str(tmp_path / "export")])
    page = (run / "report.html").read_text()
    assert "One row per image and surrogate; all 24 are in <code>confidence.parquet</code>" in page
    assert "largest probability of a class, in [0, 1]" in page
    exported = pd.read_csv(tmp_path / "export" / "data" / "confidence.csv")
    assert exported["confidence"].to_numpy() == pytest.approx(table["confidence"].to_numpy())
    document = json.loads((run / "summary.json").read_text())
    assert list(Draft202012Validator(summary_schema()).iter_errors(document)) == []
    assert document["further"]["confidence"]["rows"] == 24


def write_csv(folder: Path, kind: str) -> None:
    """A tiny task as the images and the list that the plugin reads."""
    content = arrays(kind)
    lines = ["file,class,split"]
    for number, (image, label, code) in enumerate(
        zip(content["images"], content["labels"], content["split"], strict=True)
    ):
        Image.fromarray(image).save(folder / f"{kind}-{number}.png")
        lines.append(f"{kind}-{number}.png,{label},{('train', 'test')[code]}")
    (folder / f"{kind}.csv").write_text("\n".join(lines))


def test_a_kind_of_task_reads_what_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(SOURCE))
    from mergerisk_example_plugin.reading import CsvOptions, CsvSource

    write_csv(tmp_path, "blobs")
    np.savez(tmp_path / "blobs.npz", **arrays("blobs"))
    task = CsvSource("blobs", str(tmp_path / "blobs.csv"), CsvOptions(label="class")).load()
    expected = mr.load_task(str(tmp_path / "blobs.npz"))
    assert task.class_names == expected.class_names
    for split in ("train", "calibration", "test"):
        assert torch.equal(getattr(task, split).images[:], getattr(expected, split).images[:])
        assert torch.equal(getattr(task, split).labels, getattr(expected, split).labels)
    with pytest.raises(mr.UserError, match=r"blobs\.csv: no column 'label'; say file, split and the class"):
        CsvSource("blobs", str(tmp_path / "blobs.csv"), CsvOptions()).check()


PLANNED = """
import json, sys
from mergerisk.study import load_study, make_plan
print(json.dumps({"task " * (stage.kind == "task") + stage.label: [key, list(stage.plugins)]
                  for key, stage in make_plan(load_study(sys.argv[1])).stages.items()}))
"""


def test_another_version_of_a_plugin_is_another_artefact(folder: Path, tiny_vit: Path, tmp_path: Path) -> None:
    """What is kept of 1.0 must not be taken for what 2.0 makes."""
    study = write_tiny_study(
        tmp_path,
        tiny_vit,
        merging=MERGING,
        surrogates=[
            "expert",
            "outsider",
            {"ensemble": ["expert", "pretrained"], "algorithm": "evenly", "label": "both"},
        ],
        attacks=ATTACKS,
        causes=["lead"],
        tables=[{"table": "queries", "searches": ["coin_tosses", "square"], "targets": ["weight_averaging"]}],
        outsider={"task": {"task": "blobs.csv", "name": "mine", "label": "class"}},
    )
    write_csv(tmp_path, "blobs")
    newer = tmp_path / "newer"
    shutil.copytree(folder, newer)
    (metadata,) = newer.glob("*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("\nVersion: 1.0\n", "\nVersion: 2.0\n"))
    before, after = (planned(finding(place), study) for place in (folder, newer))
    assert before.keys() == after.keys()
    changed = {label for label in before if before[label] != after[label]}
    kept = before.keys() - changed
    assert {"median, seed 0", "weight_averaging+shift, seed 0", "median+surgery, seed 0"} < changed
    for attack in ("coin_toss", "mi_both_ways", "mi_loudest"):
        assert f"{attack} on stripes from expert, ε = 2/255, seed 0" in changed
    assert "mi_fgsm on stripes from both, ε = 2/255, seed 0" in changed
    assert any(
        label.startswith("weight_averaging by coin_tosses, mi_fgsm on stripes from expert") for label in changed
    )
    assert any(label.startswith("weight_averaging by square, mi_fgsm on stripes from expert") for label in kept)
    assert any(label.startswith("lead") for label in changed)
    assert {"task mine", "mi_fgsm on stripes from outsider, ε = 2/255, seed 0"} < changed
    assert {"weight_averaging, seed 0", "stripes, seed 0", "task stripes"} < kept
    assert "mi_fgsm on stripes from expert, ε = 2/255, seed 0" in kept
    # Only what the plugin computes itself names it.
    assert before["median, seed 0"][1] == ["mergerisk-example-plugin 1.0"]
    assert after["weight_averaging+shift, seed 0"][1] == ["mergerisk-example-plugin 2.0"]
    assert before["task mine"][1] == ["mergerisk-example-plugin 1.0"]
    assert before["median+surgery, seed 0"][1] == []
    assert all(before[label][1] == [] for label in kept)


def planned(environment: dict[str, str], study: Path) -> dict[str, list[object]]:
    """Label → key of a study's stage, and the plugins that it names."""
    command = [sys.executable, "-c", PLANNED, str(study)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stages: dict[str, list[object]] = json.loads(done.stdout)
    return stages


def test_every_kind_is_shown_and_what_is_installed_is_listed(installed: dict[str, str]) -> None:
    """The page and the example have the groups that the source has, and lists what the page says they do."""
    root = SOURCE.parents[1]
    code = "".join(file.read_text() for file in (root / "src").rglob("*.py"))
    groups = set(re.findall(r"= Registry\(\s*\"[a-z -]+\",\s*\"(mergerisk\.\w+)\"", code))
    assert "mergerisk.query_searches" in groups
    rows = re.findall(r"^\| .* \| `(mergerisk\.\w+)` \| .* \| `(?:mergerisk )?list (\w+)` \|$",
                      (root / "docs" / "plugins.md").read_text(), re.MULTILINE)  # fmt: skip
    assert {group for group, _ in rows} == groups
    points = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]["entry-points"]
    assert points.keys() == groups
    program = (
        "import sys\nfrom mergerisk.cli.list_words import describe_names\n"
        "for what in sys.argv[1:]: print('==', what); print(describe_names(what))"
    )
    lists = sorted({what for _, what in rows})
    done = subprocess.run(
        [sys.executable, "-c", program, *lists], env=installed, capture_output=True, text=True, check=True
    )
    told = dict(zip(lists, re.split(r"^== .*\n", done.stdout, flags=re.MULTILINE)[1:], strict=True))
    for group, what in rows:
        for name in points[group]:
            found = [line for line in told[what].splitlines() if line.removeprefix("…+").startswith(f"{name} ")]
            assert ["plugin from mergerisk-example-plugin" in line for line in found] == [True], (what, name)
    (attack,) = [line.split() for line in told["attacks"].splitlines() if line.startswith("coin_toss")]
    assert attack == ["coin_toss", "plugin", "from", "mergerisk-example-plugin", "share=1.0"]


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        (ATTACKS[:1], "attacks[0]: unknown attack 'coin_toss'"),
        (ATTACKS[2:3], "attacks[0]: attack 'mi_fgsm': inputs: unknown input transformation 'both_ways'"),
        (ATTACKS[3:], "attacks[0]: attack 'mi_fgsm': gradient: unknown gradient filter 'loudest'"),
    ],
)
def test_a_missing_plugin_is_said_in_one_line(
    attacks: list[object], message: str, tiny_vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_tiny_study(tmp_path, tiny_vit, attacks=attacks)
    with pytest.raises(SystemExit) as end:
        main(["run", str(study), "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mergerisk: {study}: {message}")
