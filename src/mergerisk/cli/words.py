"""What the command line prints."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING, Any

from mergerisk.text_tables import table_of, table_width, text_table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from mergerisk.api import StudyResult
    from mergerisk.registry import Entry, Registry
    from mergerisk.signatures import Signature
    from mergerisk.store import Store
    from mergerisk.study.planning import Plan
    from mergerisk.study.schema import Study
    from mergerisk.study.stage import Stage
    from mergerisk.study.timing import Speeds
    from mergerisk.tasks.hub_datasets import HubDataset


def describe_names(what: str, width: int | None = None) -> str:
    """A table of names, what they stand for and, of methods and attacks, the hyper-parameters with defaults.

    Args:
        what: tasks, backbones, surrogates, merging, attacks, causes, defenses, inputs, filters or studies.
        width: columns of the terminal that long cells are wrapped to fit. None for one line per name, however
            long, so that ``grep`` finds a name with everything that belongs to it.
    """
    rows, below = _attacks() if what == "attacks" else (_names(what), [])
    if width is not None:
        rows = _fold(rows, width)
        below = [fill(line, width=width, subsequent_indent="  ", break_on_hyphens=False) for line in below]
    table = table_of(rows)
    return "\n".join([table, *(["", *below] if below else [])])


def describe_kinds(kinds: Mapping[str, str]) -> str:
    """What can be listed, with the command that lists it."""
    return table_of([{"command": f"mergerisk list {name}", "what it lists": text} for name, text in kinds.items()])


def _names(what: str) -> list[dict[str, str]]:
    """Of every name, title of the column → cell."""
    if what == "tasks":
        from mergerisk.tasks.catalogue import TASK_KINDS
        from mergerisk.tasks.hub_datasets import HUB_TASKS
        from mergerisk.tasks.starter import DESCRIPTIONS

        return [
            *_two_columns(DESCRIPTIONS),
            *({"name": name, "what it is": _dataset(dataset)} for name, dataset in HUB_TASKS.items()),
            *_two_columns({entry.name: entry.summary for entry in TASK_KINDS.entries() if entry.distribution}),
        ]
    if what == "backbones":
        from mergerisk.models.sources.loading import BACKBONES, FORMS

        return _two_columns({entry.name: entry.summary for entry in BACKBONES.values()}) + _two_columns(FORMS)
    if what == "surrogates":
        from mergerisk.study.fields.surrogates import SURROGATES

        forms = {"never": "", "may be": "[/NAME]", "always": "/NAME"}
        return _two_columns({f"{kind}{forms[named]}": summary for kind, (named, summary) in SURROGATES.items()})
    if what in {"inputs", "filters"}:
        from mergerisk.attacks.parts import FILTERS, INPUTS

        return _rows(INPUTS if what == "inputs" else FILTERS)
    if what == "causes":
        from mergerisk.causes.catalogue import CAUSES

        return _rows(CAUSES)
    if what == "defenses":
        from mergerisk.defenses.catalogue import DEFENSES

        return _rows(DEFENSES)
    if what == "merging":
        return _merging()
    from mergerisk.study.shipped import shipped_studies
    from mergerisk.yaml_files import read_mapping

    found = {name: (read_mapping(path, "a study"), path) for name, path in shipped_studies().items()}
    return _two_columns(
        {name: f"{' '.join(study['description'].split())} File: {path}" for name, (study, path) in found.items()}
    )


def _two_columns(summaries: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "what it is": summary} for name, summary in summaries.items()]


def _dataset(dataset: HubDataset) -> str:
    """Where on the hub a task is, and at which commit."""
    config = f", config {dataset.config}" if dataset.config else ""
    return f"hub:{dataset.name}@{dataset.revision}{config}"


def _attacks() -> tuple[list[dict[str, str]], list[str]]:
    """The attacks with the hyper-parameters of their own, and lines on those that most of them share."""
    from mergerisk.attacks.catalogue import ATTACKS
    from mergerisk.signatures import signatures

    found = signatures(ATTACKS)
    known = {name: signature for name, signature in found.items() if signature is not None}
    counts = Counter(pair for signature in known.values() for pair in signature.parameters.items())
    shared = {name: value for (name, value), count in counts.items() if value and 2 * count > len(known)}
    lacking: defaultdict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name, value in shared.items():
        lacking[tuple(other for other, it in known.items() if name not in it.parameters)][name] = value
    rows = []
    for entry in ATTACKS.entries():
        signature = known.get(entry.name)
        if signature is not None:
            own = {name: value for name, value in signature.parameters.items() if shared.get(name, ...) != value}
            signature = replace(signature, parameters=own)
        rows.append(_row(entry, signature, none="(those below)"))
    below = []
    for others, pairs in lacking.items():
        which = f"all but {', '.join(others)}" if others else "all"
        below.append(f"{which}, if not given another value above: {_given(pairs)}")
    return rows, [*below, "what inputs and gradient can name: mergerisk list inputs, mergerisk list filters"]


def _rows(registry: Registry[Any]) -> list[dict[str, str]]:
    from mergerisk.signatures import signatures

    found = signatures(registry)
    return [_row(entry, found[entry.name]) for entry in registry.entries()]


def _merging() -> list[dict[str, str]]:
    from mergerisk.merging.catalogue import CORRECTIONS, METHODS
    from mergerisk.signatures import signatures

    rows = []
    methods, corrections = signatures(METHODS), signatures(CORRECTIONS)
    for entry in METHODS.entries():
        found = methods[entry.name]
        data = _flag(found, "needs_calibration", "images", "none")
        encoder = _flag(found, "encoder_per_task", "per task", "one")
        rows.append(_row(entry, found, data=data, encoder=encoder))
    for entry in CORRECTIONS.entries():
        found = corrections[entry.name]
        encoder = _flag(found, "changes_encoder", "per task", "unchanged")
        rows.append(_row(replace(entry, name=f"…+{entry.name}"), found, data="images", encoder=encoder))
    return rows


def _row(entry: Entry, signature: Signature | None, *, none: str = "(none)", **facts: str) -> dict[str, str]:
    given = "(unknown: no source found)" if signature is None else _given(signature.parameters)
    return {
        "name": entry.name,
        **facts,
        "source": entry.paper,
        "what it is": " ".join(entry.summary.split()),  # a docstring of several lines, it may be
        "hyper-parameters": given or none,
    }


def _given(parameters: Mapping[str, str | None]) -> str:
    return ", ".join(
        f"{name} (required)" if value is None else f"{name}={value}" for name, value in parameters.items()
    )


def _flag(signature: Signature | None, name: str, yes: str, no: str) -> str:
    value = signature.flags.get(name) if signature else None
    return "?" if value is None else yes if value else no


def _fold(rows: list[dict[str, str]], width: int) -> list[dict[str, str]]:
    """The same with each source below the name, and the hyper-parameters below what it is, in a last column that
    is wrapped to what the others leave of ``width``."""
    texts = "what it is", "hyper-parameters"
    left = [
        {title: cell for title, cell in row.items() if title not in {"source", *texts}}
        | {"name": f"{row['name']}\n  {row.get('source', '')}".rstrip()}
        for row in rows
    ]
    used = table_width([tuple(left[0]), *(tuple(row.values()) for row in left)])
    wrap = partial(fill, width=max(28, width - used - 2), break_long_words=False, break_on_hyphens=False)
    last = ", ".join(text for text in texts if text in rows[0])
    right = [
        f"{wrap(row[texts[0]])}\n{wrap(row.get(texts[1], ''), initial_indent='  ', subsequent_indent='  ')}"
        for row in rows
    ]
    return [cells | {last: text} for cells, text in zip(left, right, strict=True)]


def describe_plan(plan: Plan, store: Store | None, speeds: Speeds | None = None) -> str:
    """The graph of stages with counts, what is cached, and the work left; in time too, if speeds are known."""
    from mergerisk.report.formatting import plural
    from mergerisk.study.stage import image_counts

    missing = {stage.key for stage in plan.stages.values() if store is None or not store.has(stage.key)}
    kinds: dict[str, list[Stage]] = {}
    for stage in plan.stages.values():
        kinds.setdefault(stage.kind, []).append(stage)
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
    seeds = f" with {len(study.seeds)} seeds" if len(study.seeds) > 1 else ""
    surrogates = plural(len(study.surrogates), "surrogate")
    budgets = plural(len(study.budgets.epsilon), "budget")
    head = (
        f"{study.name}: {_settings(study)},\n"
        f"each from {surrogates} at {budgets}{seeds} and up to {plural(study.images_per_task, 'image')} a task\n"
        f"{_changed(study)}{_preprocessing(study)}"
    )
    total = sum(plan.stages[key].work for key in missing)
    title = ("stage", "count", "cached", "needs", "images left: passes through a model")
    table = text_table([title, *rows], ruled=True)
    left_over = f"{plural(len(missing), 'stage')}, about {total / 1e6:.2f} million forward passes of one image"
    notes = "".join(f"\n{line}" for line in note_lines(plan.notes))
    return f"{head}\n{table}\n\nleft: {left_over}{_in_time(plan, missing, speeds)}{notes}"


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


def _in_time(plan: Plan, missing: Collection[str], speeds: Speeds | None) -> str:
    if speeds is None:
        return ""
    from mergerisk.report.formatting import duration

    took = duration(speeds.seconds(plan.stages[key] for key in missing))
    rates = ", ".join(f"{rate:,.0f} {how}" for how, rate in speeds.images.items())
    return (
        f"\nabout {took} of computing for one worker, reading and writing not counted ({speeds.device}: {rates} "
        "images a second)"
    )


def describe_result(result: StudyResult) -> str:
    """A few lines to end a run with: what leaves little to judge, every model under its worst attacker, which is
    the safest, and where to look."""
    from mergerisk.report.answers import safest_headline, told_apart
    from mergerisk.report.fact_words import said
    from mergerisk.report.formatting import budget, plural
    from mergerisk.report.threat import mean_text, threat_cells
    from mergerisk.report.view import view_of

    summary = result.summary
    view = view_of(summary)
    axes, found = view.axes, view.worst
    references = [name for name in axes.targets if name not in axes.methods]
    rows = [
        (name, *threat_cells(found.get(name), axes.epsilons), mean_text(view.accuracies[name]))
        for name in (*references, *axes.methods)
    ]
    title = ("model", f"ASR at {budget(view.epsilon)}", "ε50", "relative ASR", "worst attacker", "clean accuracy")
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
    remarks = "".join(f"\n{line}" for line in note_lines(summary.run.notes))
    first = "".join(f"doubt: {said(doubt)}\n" for doubt in summary.doubts)
    table = text_table([title, *rows], ruled=True)
    return f"{first}{table}\n{text}{remarks}\n\nreport: {result.folder / 'report.html'}"


def describe_attack(folder: Path, summary: Mapping[str, Any]) -> str:
    """What an attack on a folder of images did, in a table and a few lines.

    Args:
        folder: where the adversarial images are.
        summary: what ``attack.json`` holds.
    """
    unlabelled = summary["labels"] == "clean predictions"
    first = summary["model"]
    targeted = summary["attack"].get("targeted", False)
    rows = []
    for rates in summary["rates"]:
        attacked, both = rates["model"] == first, rates["images_both_correct"]
        cells = {
            "model": f"{rates['model']} (attacked)" if attacked else rates["model"],
            # What the attacked model says was taken for the truth.
            "clean agreement" if unlabelled else "clean accuracy": _percent(
                None if unlabelled and attacked else rates["clean_accuracy"]
            ),
            "ASR (95 %) of": _with_interval(rates, "asr", both),
            "asr_all (95 %) of": _with_interval(rates, "asr_all", rates["images"]),
            "relative ASR": "–" if attacked or rates["relative_asr"] is None else f"{rates['relative_asr']:.3f}",
        }
        if targeted:
            cells["targeted success (95 %) of"] = _with_interval(rates, "targeted_success", both)
        rows.append(cells)
    table = table_of(rows)
    return "\n".join([table, "", *_remarks(summary), f"adversarial images, attack.csv, attack.json: {folder}"])


def _remarks(summary: Mapping[str, Any]) -> list[str]:
    """What one must know to read the table."""
    lines = list(summary["remarks"])
    if summary["labels"] == "clean predictions":
        lines.append(
            f"no labels given: what {summary['model']} says of the clean images was attacked, right or wrong"
        )
    changed, attacked = summary["saving"], summary["attacked"]
    lines.append(
        f"counted is what was saved: rounding to 8 bits changed {changed['predictions_changed']} of {attacked} "
        f"predictions ({changed['wrong_before']} wrong before, {changed['wrong_after']} after)"
    )
    stuck = summary["zero_gradient_images"]
    if stuck:
        lines.append(f"{stuck} of {attacked} images met gradients of exactly zero: try --set loss=margin")
    by_reason = defaultdict(list)
    for item in summary["skipped"]:
        by_reason[item["reason"]].append(item["file"])
    for reason, files in by_reason.items():
        more = f" and {len(files) - _EXAMPLES} more" if files[_EXAMPLES:] else ""
        lines.append(f"left out ({reason}): {', '.join(files[:_EXAMPLES])}{more}")
    return lines


_EXAMPLES = 3
"""Files named one by one, of those left out for one reason."""


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _with_interval(rates: Mapping[str, Any], rate: str, of: int) -> str:
    if rates[rate] is None:
        return "–"
    low, high = (f"{100 * rates[f'{rate}_{end}']:.1f}" for end in ("low", "high"))
    return f"{rates[rate]:.1%} ({low} to {high}) of {of}"
