"""What is said while a study runs, where there is a terminal and where there is none."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

from rich.console import Console

import mergerisk as mr
from mergerisk.progress import notebook, study_progress
from mergerisk.progress.study_progress import StudyProgress
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan
from mergerisk.study.executors.attempt import Outcome
from mergerisk.study.executors.events import RunStarted, StageEnded, StageStarted, tell_end

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from mergerisk.study import Plan


def begun(plan: Plan, folder: Path) -> RunStarted:
    return RunStarted(plan.study, folder, plan, Store(folder), "cpu", 1)


def screen(*, terminal: bool, width: int = 100) -> tuple[io.StringIO, Console]:
    file = io.StringIO()
    return file, Console(file=file, force_terminal=terminal, force_jupyter=False, width=width)


def test_a_terminal_shows_a_bar_for_every_kind_done_or_not(tiny_study: Path, tmp_path: Path) -> None:
    plan = make_plan(load_study(tiny_study))
    file, console = screen(terminal=True)
    stage = next(iter(plan.stages.values()))
    with StudyProgress(console) as progress:
        progress(begun(plan, tmp_path))
        progress(StageStarted(stage))
        progress(StageEnded(stage, Outcome("done", 0.1)))
    shown = file.getvalue()
    for words in ("load tasks", "fine-tune experts", "craft", "evaluate", "1/2", "time left not known yet"):
        assert words in shown
    assert "/s" not in re.sub(r"\S+/store", "", shown)


def test_a_kind_that_no_plan_foresaw_gets_a_bar(tiny_study: Path, tmp_path: Path) -> None:
    """As when an artefact of a finished kind turns out damaged and is made again."""
    plan = make_plan(load_study(tiny_study))
    file, console = screen(terminal=True)
    stage = next(iter(plan.stages.values()))
    with StudyProgress(console) as progress:
        progress(StageStarted(stage))
        progress(begun(plan, tmp_path))
        tell_end(progress, stage, Outcome("damaged", detail=stage.key))
        progress(StageEnded(stage, Outcome("done", 0.1)))
    assert "load tasks" in file.getvalue()
    assert f"damaged: what task {stage.label} left; moved aside in the store, and made again" in file.getvalue()


def test_lines_come_by_themselves_where_there_is_no_terminal(
    tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_progress, "FIRST_LINE", 0.01)
    monkeypatch.setattr(study_progress, "LINE_EVERY", 0.01)
    plan = make_plan(load_study(tiny_study))
    file, console = screen(terminal=False)
    stage = next(iter(plan.stages.values()))
    with StudyProgress(console) as progress:
        progress(begun(plan, tmp_path))
        progress(StageStarted(stage))  # a long stage: nothing more is heard of it
        deadline = time.monotonic() + 30
        while file.getvalue().count("[") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    first, second, *rest = file.getvalue().splitlines()
    assert first == "checking the study and what it names …"
    assert second.startswith(
        f"tiny: {plan.study.settings} settings, {len(plan.stages)} stages, 0 of them finished"
    )
    said = f"0/{len(plan.stages)} stages, 0% of the work, time left not known yet; now: load tasks {stage.label}"
    assert any(re.fullmatch(rf"\[\d+ s\] {re.escape(said)}", line) for line in rest)


def test_python_shows_progress_unless_told_not_to(
    tiny_study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mr.run(tiny_study, tmp_path / "run", limit=3)
    assert "checking the study" in capsys.readouterr().err
    mr.run(tiny_study, tmp_path / "run", limit=3, progress=False)
    assert capsys.readouterr().err == ""


def test_the_command_gives_a_sign_of_life_before_it_has_loaded_pytorch(tmp_path: Path) -> None:
    program = (
        "import sys; from mergerisk import api; from mergerisk.progress.study_progress import StudyProgress\n"
        "with StudyProgress(): assert not {'torch', 'scipy.stats'} & {*sys.modules}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stderr == "checking the study and what it names …\n"


def test_a_notebook_shows_one_line_that_changes(
    tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    handle = SimpleNamespace(update=shown.append)
    made: list[bool] = []

    def display(html: str, *, display_id: bool) -> SimpleNamespace:
        made.append(display_id)
        shown.append(html)
        return handle

    stand_in = SimpleNamespace(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=stand_in))
    monkeypatch.setitem(sys.modules, "IPython.display", stand_in)
    monkeypatch.setattr(notebook, "EVERY", 0.0)
    plan = make_plan(load_study(tiny_study))
    stage = next(iter(plan.stages.values()))
    with StudyProgress(Console(file=io.StringIO(), force_jupyter=True)) as progress:
        progress(begun(plan, tmp_path))
        progress(StageStarted(stage))
        progress(StageEnded(stage, Outcome("done", 0.1)))
    assert made == [True]  # everything else changes what is there
    assert f"1/{len(plan.stages)} stages" in shown[-2]
    assert '<progress value="0.0' in shown[-2]
    assert shown[-1].startswith("<div>1 stage done in ")
