"""What is printed of a study: before it runs, and once it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.text_tables import text_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.api import StudyResult
    from mergerisk.store import Store
    from mergerisk.study.planning import Plan
    from mergerisk.study.schema import Study
    from mergerisk.study.stage import Stage
    from mergerisk.study.timing import Speeds


@dataclass(frozen=True)
class StagesOfAKind:
    """What a plan has of one kind of stage.

    Attributes:
        kind: of them.
        count: how many.
        cached: of which the store has this many.
        needs: kinds of what they read.
        left: images that are left to pass through models, by how they do.
    """

    kind: str
    count: int
    cached: int
    needs: tuple[str, ...]
    left: Mapping[str, int]


@dataclass(frozen=True)
class Outline:
    """A plan in short.

    Attributes:
        study: its name.
        settings: merge, task and attack, how many of them.
        stages: by kind.
        stages_left: that the store does not have.
        forward_passes_left: what they take, in forward passes of one image.
        seconds_left: the same by this machine's speeds, for one worker; None if these are not known.
        seconds_by_workers: from start to end, by how many there are; likewise.
        workers: how many there are here; likewise.
        device: whose speeds; likewise.
        images_per_second: the speeds; likewise.
        notes: on what the study names.
    """

    study: str
    settings: int
    stages: tuple[StagesOfAKind, ...]
    stages_left: int
    forward_passes_left: float
    seconds_left: float | None
    seconds_by_workers: Mapping[int, float] | None
    workers: int | None
    device: str | None
    images_per_second: Mapping[str, float] | None
    notes: tuple[str, ...]


def outline(plan: Plan, store: Store | None, speeds: Speeds | None = None) -> Outline:
    """The graph of stages with counts, what is cached, and the work left; in time too, if speeds are known."""
    from mergerisk.study.spans import spans
    from mergerisk.study.stage import image_counts

    missing = {stage.key for stage in plan.stages.values() if store is None or not store.has(stage.key)}
    kinds: dict[str, list[Stage]] = {}
    for stage in plan.stages.values():
        kinds.setdefault(stage.kind, []).append(stage)
    found = []
    for kind, stages in kinds.items():
        left = [stage for stage in stages if stage.key in missing]
        needs = sorted({plan.stages[key].kind for stage in stages for key in stage.inputs.values()})
        found.append(
            StagesOfAKind(kind, len(stages), len(stages) - len(left), tuple(needs), dict(image_counts(left)))
        )
    return Outline(
        plan.study.name,
        plan.study.settings,
        tuple(found),
        len(missing),
        sum(plan.stages[key].work for key in missing),
        None if speeds is None else speeds.seconds(plan.stages[key] for key in missing),
        None if speeds is None else spans(plan.stages, missing, speeds, [speeds.workers]),
        None if speeds is None else speeds.workers,
        None if speeds is None else str(speeds.device),
        None if speeds is None else speeds.images,
        plan.notes,
    )


def describe_plan(plan: Plan, found: Outline) -> str:
    """A plan's outline in words."""
    from mergerisk.report.formatting import plural

    rows = [
        (
            one.kind,
            str(one.count),
            str(one.cached),
            ", ".join(one.needs) or "–",
            ", ".join(f"{count:,} {how}" for how, count in sorted(one.left.items())) or "–",
        )
        for one in found.stages
    ]
    study = plan.study
    seeds = f" with {len(study.seeds)} seeds" if len(study.seeds) > 1 else ""
    surrogates = plural(len(study.surrogates), "surrogate")
    budgets = plural(len(study.budgets.epsilon), "budget")
    head = (
        f"{study.name}: {_settings(study)},\n"
        f"each from {surrogates} at {budgets}{seeds} and up to {plural(study.images_per_task, 'image')} a task\n"
        f"{_changed(study)}{_references(study)}{_preprocessing(study)}"
    )
    title = ("stage", "count", "cached", "needs", "images left: passes through a model")
    table = text_table([title, *rows], ruled=True)
    millions = f"{found.forward_passes_left / 1e6:.2f} million forward passes of one image"
    notes = "".join(f"\n{line}" for line in note_lines(found.notes))
    return (
        f"{head}\n{table}\n\nleft: {plural(found.stages_left, 'stage')}, about {millions}{_in_time(found)}{notes}"
    )


def _settings(study: Study) -> str:
    """The number of settings as a product: ``2 merging methods × 7 tasks × 1 attack = 14 settings``."""
    from mergerisk.report.formatting import plural

    plain = len(study.merging) - len(study.changed)
    methods, targets = plural(plain, "merging method"), plural(len(study.targets), "target")
    changed = plural(len(study.changed), "changed merge")
    defended = plural(len(study.defended), "defended model")
    named = ((methods, plain), (changed, study.changed), (targets, study.targets), (defended, study.defended))
    what = [text for text, some in named if some]
    attacks, settings = plural(len(study.attacks), "attack"), plural(study.settings, "setting")
    if len(set(study.tasks_of_targets)) > 1:  # a black box need not answer every task
        pairs = plural(sum(study.tasks_of_targets), "task")
        return f"{' and '.join(what)} on {pairs} together × {attacks} = {settings}"
    models = f"({' + '.join(what)})" if len(what) > 1 else what[0]
    tasks = plural(next(iter(study.tasks_of_targets)), "task")
    return f"{models} × {tasks} × {attacks} = {settings}"


def _changed(study: Study) -> str:
    """A line with the merges that something is changed about."""
    return f"changed merges: {', '.join(study.changed)}\n" if study.changed else ""


def _references(study: Study) -> str:
    """A line with what merges are held against that is no merge."""
    return f"lines of reference: {', '.join(study.references)}\n" if study.references else ""


def note_lines(notes: Iterable[str]) -> list[str]:
    """A line per note on the user's own models and images."""
    return [f"note: {note}" for note in notes]


def _preprocessing(study: Study) -> str:
    """What is done to pixels before a model sees them, a line each, where no file of the model says it."""
    from mergerisk.models.sources.loading import is_factory

    other = study.other_architecture
    said = {
        study.backbone: study.preprocessing,
        **({} if other is None else {other.backbone: other.preprocessing}),
    }
    lines = []
    for name, given in said.items():
        if given is not None:
            words = "as its own" if given == "base" else str(given)
            lines.append(f"pixels of {name} and of what is made from it: {words}\n")
        elif is_factory(name):
            lines.append(f"pixels of {name} and of what is made from it: in [0, 1] as they are, only resized\n")
    return "".join(lines)


def _in_time(found: Outline) -> str:
    if found.seconds_left is None or found.images_per_second is None:
        return ""
    from mergerisk.report.formatting import duration

    took = duration(found.seconds_left)
    rates = ", ".join(f"{rate:,.0f} {how}" for how, rate in found.images_per_second.items())
    return (
        f"\nabout {took} of computing for one worker, reading and writing not counted ({found.device}: {rates} "
        f"images a second)\n{_by_workers(found)}"
    )


def _by_workers(found: Outline) -> str:
    """``from start to end: 8 h with 1 worker, 2 h with 4 (as here); more gain little``."""
    from mergerisk.report.formatting import duration, plural

    assert found.seconds_by_workers is not None, "known with the speeds"
    said = [
        f"{duration(seconds)} with {plural(workers, 'worker')}{' (as here)' if workers == found.workers else ''}"
        for workers, seconds in found.seconds_by_workers.items()
    ]
    return f"from start to end {', '.join(said)}; more gain less than a tenth"


def describe_result(result: StudyResult) -> str:
    """A few lines to end a run with: what leaves little to judge, every model under its worst attacker, which is
    the safest, and where to look."""
    from mergerisk.report.answers import safest_headline, told_apart
    from mergerisk.report.fact_words import said
    from mergerisk.report.formatting import plural
    from mergerisk.report.threat import threat_rows
    from mergerisk.report.view import view_of

    summary = result.summary
    view = view_of(summary)
    axes = view.axes
    tasks, attacks = plural(len(axes.tasks), "task"), plural(len(axes.attacks), "attack")
    text = (
        "The worst attacker holds the surrogate whose attacks fool the model most often. ASR: the mean over "
        f"{tasks} and {attacks},\nof the images that both classify correctly when clean. ε50: the median budget "
        "that fools half of them.\nRelative ASR: that ASR over the surrogate's own. In brackets: 95 % intervals."
    )
    if view.standing is not None and len(view.standing.methods) > 1:
        text += f"\nThe safest: {safest_headline(view.standing)}. {told_apart(view.standing)}"
    if carried := view.carried():
        text += f"\n{carried}"
    if summary.prices is not None:
        from mergerisk.report.price_words import in_a_line

        text += "".join(f"\n{in_a_line(offer, summary.prices)}" for offer in summary.prices.offers)
    remarks = "".join(f"\n{line}" for line in note_lines(summary.run.notes))
    first = "".join(f"doubt: {said(doubt)}\n" for doubt in summary.doubts)
    table = text_table(threat_rows(view), ruled=True)
    return f"{first}{table}\n{text}{remarks}\n\nreport: {result.folder / 'report.html'}"
