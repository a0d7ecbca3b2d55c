"""The log in a run's folder, the logger beside it, and listeners that fail."""

from __future__ import annotations

import logging
import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

import mergerisk as mr
from mergerisk.listeners import RunFailed, RunFinished, RunStarted, SearchStarted, Warned
from mergerisk.listeners.told import listening
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan
from mergerisk.study.kinds.merge import Merge
from mergerisk.transfer.redaction import secrets_of_environment
from tests.cli.test_cli import call

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.listeners import Event

LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (INFO|WARNING|ERROR) (.*)")
SECRET = "hf_Zq81-and-nobody-elses"


def said(folder: Path) -> list[str]:
    """What the log says, without times and levels; every line has both."""
    lines = [LINE.fullmatch(line) for line in (folder / "run.log").read_text().splitlines()]
    assert all(lines)
    times = [line[1] for line in lines if line]
    assert times == sorted(times)
    return [line[3] for line in lines if line]


def test_the_log_has_every_stage_with_its_seconds_memory_and_place(finished: Path, study: Path) -> None:
    lines = said(finished)
    assert re.match(rf"mergerisk {re.escape(mr.__version__)}, python 3\.\d+\.\d+, torch 2", lines[0])
    assert "device cpu, 2 workers" in lines
    workers = set()
    for stage in make_plan(load_study(study)).stages.values():
        begun = lines.index(f"{stage.noun} {stage.label}: started")
        taken = re.compile(
            rf"{re.escape(f'{stage.noun} {stage.label}')}: done in \d+\.\d\d s on cpu, at most [\d,]+\.\d MiB, by "
            rf"{re.escape(socket.gethostname())}/(\d+)"
        )
        (ended,) = [(place, found[1]) for place, line in enumerate(lines) if (found := taken.fullmatch(line))]
        assert ended[0] > begun
        workers.add(ended[1])
    assert len(workers) == 2
    assert re.fullmatch(r"finished, after .* s; the report is .*report\.html", lines[-1])


def test_a_run_that_goes_on_appends_and_tells_its_listeners_how_it_went(
    finished: Path, study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (finished / "run.log").read_text()
    digest = (finished / "outcomes.parquet").read_bytes()
    heard: list[Event] = []
    result = mr.run(study, finished, progress=False, listeners=[heard.append])
    after = (finished / "run.log").read_text()
    assert after.startswith(before)
    assert len(after) > len(before)
    assert (finished / "outcomes.parquet").read_bytes() == digest
    started, ended = heard
    assert isinstance(started, RunStarted)
    assert isinstance(ended, RunFinished)
    assert started.study.to_yaml() == (finished / "study.yaml").read_text()
    assert (started.folder, ended.folder, ended.summary) == (finished, finished, result.summary)
    assert caplog.text == ""  # nobody asked for it, at the level that Python has by itself


def test_whoever_configures_logging_gets_the_lines_and_nothing_is_configured_for_them(
    finished: Path, study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("mergerisk")
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    with caplog.at_level(logging.INFO, "mergerisk"):
        mr.run(study, tmp_path / "run", store=finished / "store", progress=False)
    lines = said(tmp_path / "run")
    assert {record.name for record in caplog.records} == {"mergerisk.run"}
    assert [record.getMessage() for record in caplog.records][1:] == lines
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    assert logger.level == logging.NOTSET


def test_a_listener_that_fails_is_told_no_more_and_no_secret_is_said(
    study: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    calls: list[Event] = []
    heard: list[Event] = []

    def fails(event: Event) -> None:
        calls.append(event)
        raise RuntimeError(f"http://somebody:hushhush@host/ takes no {SECRET}\nand more of it")

    result = mr.run(study, tmp_path / "run", store=finished / "store", listeners=[fails, heard.append])
    assert len(result.rates)
    assert [type(event) for event in calls] == [RunStarted]
    assert isinstance(heard[-1], RunFinished)
    (warned,) = [event.text for event in heard if isinstance(event, Warned)]
    named = "test_a_listener_that_fails_is_told_no_more_and_no_secret_is_said.<locals>.fails"
    assert warned == (
        f"listener {named} failed, and is told no more; the run goes on: RuntimeError: http://***@host/ takes no "
        "*** and more of it"
    )
    assert warned in said(tmp_path / "run")
    shown = capsys.readouterr().err
    assert shown.count(warned) == 1
    for text in (shown, (tmp_path / "run" / "run.log").read_text()):
        assert SECRET not in text
        assert "hushhush" not in text


def test_a_line_is_not_withheld_for_where_a_secret_lies_or_for_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "tiny: 2 settings; artefacts in /home/somebody/.cache/runs, http://host:80/ answers"
    for name, value in (
        ("HF_TOKEN_PATH", "/home/somebody/.cache/huggingface/token"),
        ("TOKEN_URL", "http://host:80/login"),
        ("DB_PASSWORD", "tiny"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        monkeypatch.setenv(name, value)
        assert secrets_of_environment().hidden(line) == line
    monkeypatch.setenv("NAMED", "host:80")
    assert "host" not in secrets_of_environment(["NAMED"]).hidden(line)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "/Zq81+in+Base64")
    assert secrets_of_environment().hidden("with /Zq81+in+Base64") == "with ***"


def test_the_log_is_no_reason_to_end_a_run(study: Path, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "run.log").mkdir(parents=True)
    heard: list[Event] = []
    mr.run(study, tmp_path / "run", store=finished / "store", progress=False, listeners=[heard.append])
    (warned,) = [event.text for event in heard if isinstance(event, Warned)]
    assert re.match(r"listener run\.log failed, .*: IsADirectoryError: ", warned)


def test_the_log_says_what_ended_a_run(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ArithmeticError(f"{SECRET} divided")

    monkeypatch.setenv("SOME_TOKEN", SECRET)
    monkeypatch.setattr(Merge, "run", broken)
    heard: list[Event] = []
    with pytest.raises(ArithmeticError):
        mr.run(study, tmp_path / "run", progress=False, listeners=[heard.append])
    text = (tmp_path / "run" / "run.log").read_text()
    assert re.search(r"Z ERROR ended, after .* s: ArithmeticError: \*\*\* divided\nTraceback", text)
    assert text.endswith("ArithmeticError: *** divided\n")
    (error,) = [event.error for event in heard if isinstance(event, RunFailed)]
    assert isinstance(error, ArithmeticError)


def test_a_command_says_nothing_or_every_stage(
    finished: Path, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("run", study, "--workers", "1", "--out")
    code, usual, err = call(capsys, *run, finished)
    assert code == 0
    assert "stages" in err
    code, words, err = call(capsys, *run, finished, "--quiet")
    assert (code, err) == (0, "")
    assert words == usual
    code, words, err = call(capsys, *run, tmp_path / "b", "--verbose")
    assert code == 0
    assert words == usual.replace(str(finished), str(tmp_path / "b"))
    first, *rest = err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d checking the study and what it names …", first)
    assert [line[9:] for line in rest] == said(tmp_path / "b")
    for stage in make_plan(load_study(study)).stages.values():
        assert f" {stage.noun} {stage.label}: done in " in err
    code, _, err = call(capsys, *run, tmp_path / "b", "--verbose", "--quiet")
    assert (code, err) == (2, "mergerisk: --quiet and --verbose exclude each other: leave one out\n")
    assert logging.getLogger("mergerisk").level == logging.NOTSET
    code, words, err = call(capsys, "report", finished, "--quiet")
    assert (code, words, err) == (0, f"{finished / 'report.html'}\n", "")


def test_what_ends_a_run_within_a_search_is_in_both_logs_each_with_its_own_time(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = load_study(study)
    inner = tmp_path / "run"
    inner.mkdir()
    now = 0.0
    monkeypatch.setattr("mergerisk.listeners.run_log.time.monotonic", lambda: now)
    with suppress(KeyboardInterrupt), listening() as told:
        told(SearchStarted(asked, tmp_path, 0, None, 8))
        now = 50.0
        told(RunStarted(asked, inner, make_plan(asked), Store(tmp_path / "store"), "cpu", 1))
        now = 57.0
        raise KeyboardInterrupt
    for folder, seconds in ((tmp_path, 57), (inner, 7)):
        assert said(folder)[-1] == f"ended, after {seconds} s: KeyboardInterrupt"
    assert "device cpu, 1 worker" in said(inner)
    assert "device cpu, 1 worker" not in said(tmp_path)
