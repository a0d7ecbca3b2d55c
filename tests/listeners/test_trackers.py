"""Trackers, read back from what the real libraries stored, offline."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml

import mergerisk as mr
from mergerisk.listeners import Outcome, RunFailed, RunStarted, SearchStarted, StageEnded, Tracker
from mergerisk.listeners.tracked import LONGEST, MOST_PARAMETERS, metrics_of, parameters_of, search_parameters
from mergerisk.study import load_study
from tests.cli.test_cli import call
from tests.report.synthetic import summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mergerisk import StudyResult

# What MLflow asks of SQLAlchemy, and either of pydantic, is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def tracked(mlflow: Any) -> Any:
    """The one run that the test's experiment has."""
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    (run,) = client.search_runs([found.experiment_id])
    return run


def expected(result: StudyResult) -> dict[str, float]:
    """Figures of the run, worked out here: there is one attack, from one surrogate, and two budgets."""
    rates, accuracy = result.rates, result.summary.accuracy
    rates = rates[(rates["target"] == "weight_averaging") & (rates["surrogate"] == "pretrained")]
    shares = {epsilon: each["asr"].mean() for epsilon, each in rates.groupby("epsilon")}
    record = json.loads((result.folder / "run.json").read_text())
    clean = accuracy[accuracy["model"] == "weight_averaging"].groupby("task", observed=True)["accuracy"].mean()
    return {
        **{f"asr at {epsilon:.6f}": share for epsilon, share in shares.items()},
        "clean_accuracy/weight_averaging": clean.mean(),
        "seconds": record["seconds"],
        "seconds/craft": record["kinds"]["craft"]["seconds"],
    }


def compared(found: dict[str, float], result: StudyResult) -> None:
    wanted = expected(result)
    at = f"asr at {found['epsilon']:.6f}"
    assert found["asr/weight_averaging"] == pytest.approx(wanted[at])
    assert found["asr/weight_averaging/low"] <= found["asr/weight_averaging"] < found["asr/weight_averaging/high"]
    for name in wanted:
        if not name.startswith("asr at"):
            assert found[name] == pytest.approx(wanted[name]), name
    assert all(np.isfinite(value) for value in found.values())


def same_rates(found: pd.DataFrame, result: StudyResult) -> None:
    assert {*found.columns} == {*result.rates.columns}
    for column in ("epsilon", "asr", "asr_low", "asr_high", "relative_asr"):
        np.testing.assert_allclose(found[column].astype(float), result.rates[column], atol=1e-9)
    assert found["target"].tolist() == result.rates["target"].tolist()


def test_mlflow_has_parameters_figures_tables_and_files(study: Path, finished: Path, mlflow: Any) -> None:
    result = mr.run(study, finished, progress=False, listeners=["mlflow"])
    run = tracked(mlflow)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tiny")
    asked = yaml.safe_load((finished / "study.yaml").read_text())
    assert run.data.params["images_per_task"] == "12"
    assert run.data.params["merging.0.method"] == asked["merging"][0]["method"] == "weight_averaging"
    assert run.data.params["budgets.epsilon"].split(", ") == [str(each) for each in asked["budgets"]["epsilon"]]
    assert run.data.tags["mergerisk.mergerisk"] == mr.__version__
    assert run.data.tags["mergerisk.torch"]
    assert not any(str(study.parent) in value for value in run.data.params.values())
    compared(run.data.metrics, result)
    client = mlflow.MlflowClient()
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {
        "results.csv", "summary.json", "report.html", "rates.json", "epsilon50.json", "clean_accuracy.json",
    }  # fmt: skip
    for name in ("results.csv", "summary.json", "report.html"):
        stored = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{name}")
        assert stored == (finished / name).read_text()
    table = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/rates.json"))
    same_rates(pd.DataFrame(**table), result)


def test_a_run_of_mlflow_that_is_under_way_is_written_to_and_left_open(
    study: Path, finished: Path, mlflow: Any
) -> None:
    mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
    with mlflow.start_run() as mine:
        mr.run(study, finished, progress=False, listeners=["mlflow"])
        run = tracked(mlflow)
        assert (run.info.run_id, run.info.status) == (mine.info.run_id, "RUNNING")
    assert "clean_accuracy/expert" in run.data.metrics


def test_what_ends_a_run_is_recorded(study: Path, finished: Path, mlflow: Any) -> None:
    def stop(event: object) -> None:
        if isinstance(event, RunStarted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mr.run(study, finished, progress=False, listeners=["mlflow", stop])
    assert tracked(mlflow).info.status == "KILLED"


def test_a_tracker_that_fails_loses_no_run_and_says_so_once(
    study: Path, finished: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError("no room for artifacts")

    with monkeypatch.context() as during:
        during.setattr(mlflow.MlflowClient, "log_artifact", full)
        code, _, err = call(capsys, "run", study, "--out", finished, "--listener", "mlflow")
    said = "listener mlflow failed, and is told no more; the run goes on: OSError: no room for artifacts"
    assert code == 0
    assert err.count(said) == 1
    assert said in (finished / "run.log").read_text()
    assert tracked(mlflow).info.status == "FAILED"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://here")
    code, out, err = call(capsys, "run", study, "--out", finished, "--listener", "mlflow")
    assert (code, err.count("listener mlflow failed")) == (0, 1)
    assert "report.html" in out


class Noting(Tracker):
    """Keeps what it is told; a run of the study called ``refused`` begins, and then fails to."""

    name = "noting"

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[object] = []

    def begin(self, study: str, parameters: Mapping[str, str], facts: Mapping[str, str]) -> None:
        del parameters, facts
        self.noted.append(study)
        if study == "refused":
            raise OSError("too many parameters")

    def progress(self, step: int, figures: Mapping[str, float]) -> None:
        assert figures == {"stages_done": step}
        self.noted.append(step)

    def measure(self, metrics: Mapping[str, float]) -> None:
        raise NotImplementedError

    def table(self, name: str, table: pd.DataFrame) -> None:
        raise NotImplementedError

    def keep(self, files: list[Path]) -> None:
        raise NotImplementedError

    def conclude(self, headline: str) -> None:
        raise NotImplementedError

    def end(self, how: str) -> None:
        self.noted.append(how)


def test_a_run_that_fails_to_begin_is_not_left_open_and_each_is_counted_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mergerisk.listeners.tracked.EVERY", 0.0)
    tracker, study = Noting(), load_study("starter")
    started = [
        RunStarted(study.model_copy(update={"name": name}), Path(), *(None,) * 2, "cpu", 1)  # type: ignore[arg-type]
        for name in ("one", "other", "refused")
    ]
    done = StageEnded(None, Outcome("done"))  # type: ignore[arg-type]
    for event in (started[0], done, done, RunFailed(KeyboardInterrupt()), started[1], done):
        tracker(event)
    assert tracker.noted == ["one", 1, 2, "stopped", "other", 1]
    with pytest.raises(OSError, match="too many parameters"):
        tracker(started[2])
    assert tracker.noted[6:] == ["refused", "failed"]


def test_a_missing_extra_and_a_wrong_name_are_refused_before_any_work(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = ("run", study, "--out", tmp_path / "run", "--listener")
    code, _, err = call(capsys, *run, "wandb")
    assert code == 2
    assert err.startswith("mergerisk: listener wandb: Weights & Biases cannot be imported (")
    assert err.endswith("): pip install 'mergerisk[wandb]'\n")
    code, _, err = call(capsys, *run, "mlfow")
    assert (code, err) == (2, "mergerisk: unknown listener 'mlfow' (did you mean 'mlflow'?)\n")
    with pytest.raises(mr.UserError, match="3 cannot be called"):
        mr.run(study, tmp_path / "run", listeners=[3])  # type: ignore[list-item]
    assert not (tmp_path / "run").exists()


def test_figures_are_those_under_the_worst_attacker() -> None:
    methods = ("ties", "ties+surgery")
    made = summary(tasks=("digits", "letters"), attacks=("fgsm", "mi_fgsm"), methods=methods, examples=0)
    found = metrics_of(made)
    at = made.results[made.results["epsilon"] == found["epsilon"]]
    for method, name in zip(methods, ("ties", "ties_surgery"), strict=True):
        rates = at[at["target"] == method].groupby("surrogate", observed=True)["asr"].mean()
        worst = rates.drop(index=method, errors="ignore").idxmax()
        assert found[f"asr/{name}"] == pytest.approx(rates[worst])
        assert found[f"asr/{name}/low"] < found[f"asr/{name}"] < found[f"asr/{name}/high"]
        curves = made.epsilon50[(made.epsilon50["target"] == method) & (made.epsilon50["surrogate"] == worst)]
        below, above = sorted(curves["epsilon50"].where(curves["status"] == "measured", np.inf))[1:3]  # of four
        half = (below + above) / 2 if np.isfinite(above) else below
        assert found[f"epsilon50/{name}"] == pytest.approx(half)
        accuracy = made.accuracy[made.accuracy["model"] == method]["accuracy"].mean()
        assert found[f"clean_accuracy/{name}"] == pytest.approx(accuracy)


def test_parameters_are_bounded_and_their_names_taken_everywhere() -> None:
    found = parameters_of(load_study("starter"))
    assert len(found) <= MOST_PARAMETERS
    assert all(len(value) <= LONGEST for value in found.values())
    many = load_study("starter").model_copy(update={"name": "x" * 1000, "seeds": tuple(range(1000))})
    bounded = parameters_of(many)
    assert bounded["name"] == "x" * (LONGEST - 1) + "…"
    assert len(bounded["seeds"]) == LONGEST
    merging = load_study("starter").merging * 100
    some = parameters_of(many.model_copy(update={"merging": merging}))
    assert len(some) == MOST_PARAMETERS
    assert some["more"] == "further parameters are in report.html"


def logged(data: bytes) -> Iterator[bytes]:
    """The records of a file of Weights & Biases: after 7 bytes, a log as LevelDB writes it, in blocks of 32 KiB, where
    every part of a record has a checksum (4 bytes), a length (2) and a kind (whole, first, middle, last)."""
    place, record = 7, b""
    while place + 7 < len(data):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:
            yield record
            record = b""


def test_weights_and_biases_has_parameters_figures_tables_and_files(
    study: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    for name in ("DIR", "CACHE_DIR", "DATA_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    result = mr.run(study, finished, progress=False, listeners=["wandb"])
    wandb.teardown()  # ends the process that writes the file
    (stored,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = [Record.FromString(data) for data in logged(stored.read_bytes())]
    (begun,) = [record.run for record in records if record.HasField("run")]
    assert (begun.project, begun.display_name) == ("mergerisk", "tiny")
    config = {
        update.key: json.loads(update.value_json)
        for record in records
        if record.HasField("config")
        for update in record.config.update
    }
    assert config["images_per_task"] == "12"
    assert config["versions"]["mergerisk"] == mr.__version__
    figures = {
        ".".join(update.nested_key) or update.key: json.loads(update.value_json)
        for record in records
        if record.HasField("summary")
        for update in record.summary.update
    }
    compared({name: value for name, value in figures.items() if isinstance(value, float | int)}, result)
    (exit_code,) = [record.exit.exit_code for record in records if record.HasField("exit")]
    assert exit_code == 0
    artifacts = [record.artifact for record in records if record.HasField("artifact")]
    (kept,) = [artifact for artifact in artifacts if artifact.type == "results"]
    files = {entry.path: Path(entry.local_path) for entry in kept.manifest.contents}
    assert set(files) == {"results.csv", "summary.json", "report.html"}
    for name, copy in files.items():
        assert copy.read_bytes() == (finished / name).read_bytes()
    tables = {path.name.partition("_")[0]: path for path in stored.parent.glob("files/media/table/*.json")}
    table = json.loads(tables["rates"].read_text())
    same_rates(pd.DataFrame(table["data"], columns=table["columns"]), result)


def test_what_a_search_may_do_is_told_to_the_last_digit() -> None:
    started = SearchStarted(load_study("starter"), Path("search"), 2**32 - 1, 900.0, 12_345_678)
    assert search_parameters(started) == {
        "searching.seed": "4294967295", "searching.seconds": "900", "searching.trials": "12345678",
    }  # fmt: skip
