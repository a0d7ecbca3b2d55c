"""An attack of a third party, installed as a package, in a study: nothing of ours knows its name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mergerisk.cli.main import main
from tests.tiny import write_tiny_study

SOURCE = Path(__file__).parents[1] / "plugin_package"
ATTACKS = ["coin_toss", "mi_fgsm", {"attack": "mi_fgsm", "inputs": ["both_ways"], "label": "mi_both_ways"}]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds the plugin."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("installed")
    shutil.copytree(SOURCE, source)  # building leaves files beside the source
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path = os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}


def mergerisk(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "mergerisk", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_attack_and_input_run_in_a_study(
    installed: dict[str, str], tiny_vit: Path, tmp_path: Path
) -> None:
    study = write_tiny_study(
        tmp_path, tiny_vit, merging=["weight_averaging"], surrogates=["expert"], attacks=ATTACKS
    )
    mergerisk(installed, "run", str(study), "--out", str(tmp_path / "run"), "--workers", "2")
    outcomes = pd.read_parquet(tmp_path / "run" / "outcomes.parquet")
    # tasks × attacks × (merge + expert + pretrained) × budgets × images
    assert len(outcomes) == 2 * 3 * 3 * 3 * 12
    lengths = outcomes.groupby("attack", observed=True)["l2"].sum()
    assert set(lengths.index) == {"coin_toss", "mi_fgsm", "mi_both_ways"}
    assert lengths["mi_both_ways"] != lengths["mi_fgsm"]
    # Its pixels go all the way, but for those that the box stops.
    signs = outcomes[outcomes["attack"] == "coin_toss"]
    assert (signs["linf"] <= signs["epsilon"]).all()
    assert (signs["linf"] > 0.999 * signs["epsilon"]).all()
    assert (signs["l2"] > 0.8 * signs["epsilon"] * (3 * 16 * 16) ** 0.5).all()


def test_an_installed_attack_and_input_are_listed(installed: dict[str, str]) -> None:
    attacks, inputs = (mergerisk(installed, "list", what).splitlines() for what in ("attacks", "inputs"))
    (attack,) = [line.split() for line in attacks if line.startswith("coin_toss")]
    assert attack == ["coin_toss", "plugin", "from", "mergerisk-example-plugin", "share=1.0"]
    (both_ways,) = [line.split() for line in inputs if line.startswith("both_ways")]
    assert both_ways[:4] == ["both_ways", "plugin", "from", "mergerisk-example-plugin"]


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        (ATTACKS[:1], "attacks[0]: unknown attack 'coin_toss'"),
        (ATTACKS[2:], "attacks[0]: attack 'mi_fgsm': inputs: unknown input transformation 'both_ways'"),
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
