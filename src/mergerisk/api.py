"""Whole studies in one call: run, then write everything a run's folder holds."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mergerisk.errors import Faults, UserError
from mergerisk.listeners.catalogue import listeners_of
from mergerisk.listeners.events import RunFinished
from mergerisk.listeners.told import listening
from mergerisk.report.export import summary_to_json
from mergerisk.report.exports import FORMATS, write_exports
from mergerisk.report.page import render_html
from mergerisk.store import Store, bucket_named, open_store
from mergerisk.study.files import write_bytes, write_csv, write_parquet
from mergerisk.study.finished import load_run as read_run
from mergerisk.study.locating import locate
from mergerisk.study.notes import notes_of
from mergerisk.study.planning import make_plan
from mergerisk.study.preflight import check_material, check_tasks
from mergerisk.study.reading import load_study
from mergerisk.study.resolving import resolve
from mergerisk.study.running import Options, run_study, store_folder
from mergerisk.study.schema import Study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

    from mergerisk.listeners.told import Told
    from mergerisk.report.comparison import Comparison
    from mergerisk.report.exports.writing import Format
    from mergerisk.report.kept_explanations import Found
    from mergerisk.report.prices import PriceList
    from mergerisk.report.summary import Summary
    from mergerisk.statistics import Claim, ClaimVerdict
    from mergerisk.statistics.explaining import Explanations, Moves
    from mergerisk.study.executors.events import Listener
    from mergerisk.study.executors.hiring import Executor
    from mergerisk.study.finished import FinishedRun
    from mergerisk.study.planning import Plan
    from mergerisk.study.timing import Speeds

MOST_SHARDS = 1000
"""Of a stage: names of parts have three digits."""


@dataclass(frozen=True)
class StudyResult:
    """A finished study.

    Attributes:
        folder: where everything is.
        outcomes: one row per image, surrogate, attack, budget, seed and target.
        summary: what the report shows.
    """

    folder: Path
    outcomes: pd.DataFrame
    summary: Summary

    def __repr__(self) -> str:
        return f"StudyResult({str(self.folder)!r}: {len(self.rates)} settings, {len(self.outcomes)} outcomes)"

    def _repr_html_(self) -> str:
        from mergerisk.report.in_notebooks import summary_html

        return str(summary_html(self.summary, self.folder))

    @property
    def rates(self) -> pd.DataFrame:
        """One row per setting: both ASRs with intervals, relative ASR, ΔASR, clean accuracies."""
        return self.summary.results


def adjust(study: Study, *, seed: int | None = None, limit: int | None = None) -> Study:
    """A study with another seed, or fewer images per task.

    Raises:
        UserError: a value out of range.
    """
    changes: dict[str, object] = {}
    if seed is not None:
        if not 0 <= seed < 2**32:
            raise UserError(f"--seed must be 0 or more, and below 2**32, got {seed}")
        changes["seeds"] = (seed,)
    if limit is not None:
        if limit < 1:
            raise UserError(f"--limit must be 1 or more, got {limit}")
        changes["images_per_task"] = min(limit, study.images_per_task)
    return study.model_copy(update=changes)


def run(
    study: str | Path | Study,
    out: str | Path | None = None,
    *,
    seed: int | None = None,
    limit: int | None = None,
    device: str = "auto",
    devices: str | None = None,
    workers: int | None = 1,
    executor: Executor = "local",
    address: str | None = None,
    shards: int = 1,
    store: str | Path | None = None,
    data: str | Path | None = None,
    offline: bool = False,
    force: bool = False,
    progress: bool = True,
    prepared: Callable[[Plan, Store], None] = lambda *_: None,
    listeners: Sequence[str | Listener] = (),
) -> StudyResult:
    """Run a study, or what is left of it, and write its results and report.

    Args:
        study: a shipped study's name (``"starter"``), the path of a study file, or a :class:`Study`.
        out: the run's folder; ``runs/NAME`` by default. Running into the same folder resumes.
        seed: replaces the study's seeds.
        limit: attacked images per task, at most.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        devices: one worker on each, as ``0,1``; instead of ``device`` and ``workers``.
        workers: processes; 1 computes in this one, where methods and attacks registered by a decorator are
            known; None chooses by the machine. On a cluster, stages at once; None for as many as it has room for.
        executor: ``local``, or ``ray`` for a cluster; see ``docs/scale.md``.
        address: of the cluster; by default one of this machine's own.
        shards: parts in which crafting and evaluation of many images is spread over workers, at most one per batch
            of 128 images; results are the same to the byte.
        store: folder of artefacts, or ``s3://bucket/prefix``, to share between studies; ``OUT/store`` by default.
        data: what relative paths in the study are relative to; by default the study file's folder.
        offline: take what comes from a hub from the cache of downloads only.
        force: replace the run of another study, if the folder holds one.
        progress: show on standard error how far it is.
        prepared: called once everything is checked, before the first stage; what it raises ends the run.
        listeners: who is told what happens, besides ``run.log`` in the run's folder: ``"mlflow"``, ``"wandb"``, or
            whatever can be called; see ``docs/trackers.md``. One that fails is told no more, and the run goes on.

    Raises:
        UserError: the study, a file or an option is at fault; raised before any training where it can be known.
    """
    heard = listeners_of(listeners)
    if not 1 <= shards <= MOST_SHARDS:
        raise UserError(f"--shards must be between 1 and {MOST_SHARDS}, got {shards}")
    adjusted = adjust(_resolved(study, data), seed=seed, limit=limit)
    folder = _folder(adjusted, out)
    options = Options(
        Path(store) if store is not None else None,
        device,
        devices,
        workers,
        executor,
        address,
        shards,
        offline=offline,
        force=force,
    )
    with listening(heard) as told:
        return run_told(adjusted, folder, options, told, prepared=prepared, progress=progress)


def run_told(
    study: Study,
    folder: Path,
    options: Options,
    told: Told,
    *,
    prepared: Callable[[Plan, Store], None] = lambda *_: None,
    progress: bool = True,
) -> StudyResult:
    """Run a resolved study as a part of what some are told already; see :func:`run`."""
    with told.showing(progress):
        finished = run_study(study, folder, options, prepared=prepared, listener=told)
    result = _write(finished, folder, progress=progress)
    told(RunFinished(folder, result.summary))
    return result


def plan(
    study: str | Path | Study,
    out: str | Path | None = None,
    *,
    seed: int | None = None,
    limit: int | None = None,
    store: str | Path | None = None,
    data: str | Path | None = None,
    offline: bool = False,
) -> tuple[Plan, Store | None]:
    """What :func:`run` with the same arguments would do, and the store it would use, if that exists.

    Raises:
        UserError: the study or a file it names is at fault.
    """
    adjusted = adjust(_resolved(study, data), seed=seed, limit=limit)
    located = locate(adjusted, offline=offline)
    named = Path(store) if store is not None else None
    folder, bucket = store_folder(_folder(adjusted, out), named), bucket_named(named)
    made = make_plan(located.study, (*located.notes, *notes_of(located.study)))
    return made, open_store(folder, bucket) if bucket or folder.is_dir() else None


def measure(
    made: Plan,
    device: str = "auto",
    *,
    devices: str | None = None,
    workers: int | None = None,
    executor: Executor = "local",
    address: str | None = None,
) -> Speeds:
    """Time the plan's backbone, a few seconds, to tell how long what is left will take those who would compute.

    Args:
        made: a plan.
        device: as of :func:`run`; and so are the others.
        devices: likewise.
        workers: likewise; None chooses by the machine.
        executor: likewise.
        address: likewise.

    Raises:
        UserError: there is no such device, or no cluster.
    """
    from mergerisk.study.executors.hiring import workforce

    with workforce(executor=executor, address=address, device=device, devices=devices, workers=workers) as crew:
        return crew.measure(made.study)


def validate(study: str | Path | Study, *, data: str | Path | None = None, offline: bool = False) -> Plan:
    """The plan of a study whose every file was loaded and checked.

    Raises:
        UserError: the study or a file it names is at fault.
    """
    faults = Faults()
    with faults.collecting():
        resolved = _resolved(study, data)
    if faults:
        with faults.collecting():  # tasks can be looked at whatever hyper-parameters are wrong
            check_tasks(study if isinstance(study, Study) else load_study(study, resolve=False, data=data))
    faults.settle()
    located = locate(resolved, offline=offline)
    outlines = check_material(located.study)
    return make_plan(located.study, (*located.notes, *notes_of(located.study, outlines)), outlines)


def write_report(folder: str | Path, *, progress: bool = False) -> StudyResult:
    """Write the results and the report of a finished run anew, without computing anything again.

    Args:
        folder: of the run.
        progress: show on standard error how far it is, where what explains who is fooled has to be found anew.

    Raises:
        UserError: the folder holds no finished run.
    """
    return _write(read_run(Path(folder)), Path(folder), progress=progress)


def load_run(folder: str | Path) -> StudyResult:
    """A finished run as :func:`run` returned it; nothing is computed again, nothing is written.

    Raises:
        UserError: the folder holds no finished run.
    """
    finished = read_run(Path(folder))
    return StudyResult(Path(folder), finished.outcomes, _judged(finished, Path(folder), write=False))


def claims(
    source: str | Path,
    stated: str | Path | Sequence[Claim] | None = None,
    *,
    correction: Literal["holm", "bh"] = "holm",
    seed: int = 0,
) -> tuple[ClaimVerdict, ...]:
    """Judge claims: supported, contradicted or inconclusive, with the tests behind it.

    Args:
        source: a finished run's folder, a table of rates (CSV, Parquet), or ``"poster"`` for the published one.
        stated: a YAML file of claims, or claims; by default those of the published study, and of a run with
            ``causes`` those on them.
        correction: for the number of claims: against any false finding, or too large a share of them.
        seed: of the bootstrap.

    Raises:
        UserError: source or claims cannot be read, or do not fit each other.
    """
    from mergerisk.statistics import judge_claims, load_claims, read_tables

    if isinstance(stated, str | Path):
        stated = load_claims(Path(stated))
    return judge_claims(read_tables(source), stated, correction=correction, seed=seed)


def explain(folder: str | Path, *, seed: int = 0, progress: bool = False) -> Explanations:
    """What explains who is fooled in a finished run whose study asked for ``causes``: every diagnostic held
    against its outcomes. What goes with an outcome need not cause it.

    Args:
        folder: of the run.
        seed: of whatever is drawn.
        progress: show on standard error how far it is.

    Raises:
        UserError: the folder holds no finished run, or the run no diagnostics.
    """
    found = explained(folder, seed=seed, progress=progress).explanations
    assert found is not None
    return found


def moves(folder: str | Path, *, seed: int = 0, progress: bool = False) -> Moves | None:
    """What moves with who is fooled when one thing about a merge is changed on purpose, in a finished run whose
    study asked for ``causes``; None where it changes nothing. Arguments and errors are those of
    :func:`explain`."""
    return explained(folder, seed=seed, progress=progress).moves


def explained(folder: str | Path, *, seed: int = 0, progress: bool = False) -> Found:
    """Both of them, found once and kept in the run's folder."""
    from mergerisk.report.assembling import summarize
    from mergerisk.report.explaining import has_causes
    from mergerisk.report.kept_explanations import explained_once

    finished = read_run(Path(folder))
    if not has_causes(finished):
        raise UserError(
            f"{folder}: the study asked for no diagnostics; add causes: [gradient_alignment, representation_bias] "
            "(or causes: all) to it and run it again, finished stages are kept"
        )
    with _explaining(progress) as listen:
        return explained_once(finished, summarize(finished), Path(folder), "causes", seed=seed, listen=listen)


def prices(folder: str | Path, *, seed: int = 0) -> PriceList:
    """What defenses gain and what they cost in a finished run: every defended model beside the same without the
    defense, on the same images, attacker by attacker; and whether it may be said to defend.

    Args:
        folder: of the run.
        seed: of the bootstrap.

    Raises:
        UserError: the folder holds no finished run, or nothing in it is defended.
    """
    from mergerisk.report.prices import price_list

    found = price_list(read_run(Path(folder)), seed=seed)
    if found is None:
        raise UserError(
            f"{folder}: nothing in the study is defended; add defenses: [{{defense: jpeg, of: MERGE}}] and the "
            "surrogate aware to it and run it again, finished stages are kept"
        )
    return found


@contextmanager
def _explaining(progress: bool) -> Iterator[Callable[[int, int], None]]:
    """What is told how much of explaining is done; on standard error, if anybody is to see it."""
    if not progress:
        yield lambda _done, _total: None
        return
    from rich.progress import TextColumn

    from mergerisk.progress.bar import Bar

    with Bar("explaining", TextColumn("{task.completed}/{task.total} measures")) as bar:
        yield bar.listen


def export_report(folder: str | Path, out: str | Path, formats: Sequence[Format] = FORMATS) -> tuple[Path, ...]:
    """Write what the report of a finished run shows for other programs and for papers; returns the files.

    Args:
        folder: of the run.
        out: folder to write into.
        formats: of :data:`mergerisk.report.exports.FORMATS`.

    Raises:
        UserError: the folder holds no finished run, or cannot be written to.
    """
    return write_exports(_judged(read_run(Path(folder)), Path(folder)), Path(out), formats)


def compare(a: str | Path, b: str | Path, out: str | Path | None = None) -> Comparison:
    """Two finished runs side by side, setting by setting.

    Args:
        a: folder of the one run.
        b: folder of the other; differences are b − a.
        out: folder for ``compare.html`` and ``compare.csv``; nothing is written without.

    Raises:
        UserError: a folder holds no finished run, or ``out`` cannot be written to.
    """
    from mergerisk.report.comparison import compare_runs, write_comparison

    found = compare_runs(read_run(Path(a)), read_run(Path(b)), names=(str(a), str(b)))
    if out is not None:
        write_comparison(found, Path(out))
    return found


def _resolved(study: str | Path | Study, data: str | Path | None) -> Study:
    return resolve(study) if isinstance(study, Study) else load_study(study, data=data)


def _folder(study: Study, out: str | Path | None) -> Path:
    return Path(out) if out is not None else Path("runs") / study.name


def _judged(finished: FinishedRun, folder: Path, *, write: bool = True, progress: bool = False) -> Summary:
    """What a run's folder says, what was explained of it kept there for the next time."""
    # loads SciPy's statistics, which `run` begins without
    from mergerisk.report.kept_explanations import explained_once
    from mergerisk.report.run_summary import judged_summary

    with _explaining(progress) as listen:
        return judged_summary(
            finished, lambda run, summary: explained_once(run, summary, folder, write=write, listen=listen)
        )


def _write(finished: FinishedRun, folder: Path, *, progress: bool) -> StudyResult:
    summary = _judged(finished, folder, progress=progress)
    write_parquet(summary.results, folder / "results.parquet")
    write_csv(summary.results, folder / "results.csv")
    if len(summary.by_step):
        write_csv(summary.by_step, folder / "results_by_step.csv")
    write_bytes(folder / "summary.json", summary_to_json(summary).encode())
    write_bytes(folder / "report.html", render_html(summary).encode())
    return StudyResult(folder, finished.outcomes, summary)
