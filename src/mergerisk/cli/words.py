"""What the command line prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mergerisk.api import StudyResult
    from mergerisk.registry import Entry
    from mergerisk.store import Store
    from mergerisk.study.planning import Plan


def describe_names(what: str) -> str:
    """A table of names and what they stand for."""
    return _table(("name", "what it is", "source"), [(e.name, e.summary, e.paper) for e in _entries(what)])


def _entries(what: str) -> Iterable[Entry]:
    from mergerisk.registry import Entry

    if what == "tasks":
        from mergerisk.tasks.starter import DESCRIPTIONS

        return [Entry(name, "", summary) for name, summary in DESCRIPTIONS.items()]
    if what == "backbones":
        from mergerisk.models.loading import BACKBONES

        return BACKBONES.values()
    if what == "attacks":
        from mergerisk.attacks.catalogue import ATTACKS

        return ATTACKS.entries()
    if what == "merging":
        from mergerisk.merging.catalogue import CORRECTIONS, METHODS

        stacked = [Entry(f"…+{e.name}", e.target, e.summary, e.paper) for e in CORRECTIONS.entries()]
        return [*METHODS.entries(), *stacked]
    from mergerisk.study.shipped import shipped_studies

    return [Entry(name, "", str(path)) for name, path in shipped_studies().items()]


def describe_plan(plan: Plan, store: Store | None) -> str:
    """The graph of stages with counts, what is cached, and the work left."""
    from mergerisk.study.planning import STAGE_VERSIONS, image_counts

    missing = {stage.key for stage in plan.stages.values() if store is None or not store.has(stage.key)}
    kinds = {kind: [stage for stage in plan.stages.values() if stage.kind == kind] for kind in STAGE_VERSIONS}
    needs = {
        kind: sorted({plan.stages[key].kind for stage in stages for key in stage.inputs.values()})
        for kind, stages in kinds.items()
    }
    rows = []
    for kind, stages in kinds.items():
        left = [stage for stage in stages if stage.key in missing]
        counts = image_counts(left)
        work = ", ".join(f"{count:,} {how}" for how, count in sorted(counts.items()))
        rows.append(
            (kind, str(len(stages)), str(len(stages) - len(left)), ", ".join(needs[kind]) or "–", work or "–")
        )
    study = plan.study
    head = (
        f"{study.name}: {len(study.merging)} merging methods × {len(study.tasks)} tasks × "
        f"{len(study.attacks)} attacks = {study.settings} settings,\n"
        f"each from {len(study.surrogates)} surrogates at {len(study.budgets.epsilon)} budgets "
        f"with {len(study.seeds)} seed(s) and up to {study.images_per_task} images a task\n"
    )
    total = sum(plan.stages[key].work for key in missing)
    table = _table(("stage", "count", "cached", "needs", "images left: passes through a model"), rows)
    left_over = f"{len(missing)} stages, about {total / 1e6:.2f} million forward passes of one image"
    return f"{head}\n{table}\n\nleft: {left_over}"


def describe_result(result: StudyResult) -> str:
    """A few lines to end a run with: the methods, and where to look."""
    from mergerisk.report.cells import average_over_seeds, axes_of, default_epsilon

    summary = result.summary
    methods = list(summary.run.methods)
    accuracy = summary.accuracy.groupby("model", observed=True)["accuracy"].mean()
    cells = average_over_seeds(summary.results)
    epsilon = default_epsilon(cells, axes_of(summary))
    at_budget = cells[(cells["epsilon"] == epsilon) & cells["target"].isin(methods)]
    relative = at_budget.groupby("target", observed=True)["relative_asr"].mean()
    asr = at_budget.groupby("target", observed=True)["asr"].mean()
    rows = [(name, f"{accuracy[name]:.1%}", "", "") for name in ("pretrained", "expert")]
    rows += [(m, f"{accuracy[m]:.1%}", f"{asr[m]:.1%}", f"{relative[m]:.3f}") for m in methods]
    title = ("model", "clean accuracy", f"ASR at {epsilon * 255:g}/255", "relative ASR")
    return f"{_table(title, rows)}\n\nreport: {result.folder / 'report.html'}"


def _table(title: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in [title, *rows]) for column in range(len(title))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [title, *rows]
    ]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])
