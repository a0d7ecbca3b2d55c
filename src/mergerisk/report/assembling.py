"""From a finished run to the summary that every rendering starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mergerisk.report.fact_words import said
from mergerisk.report.formatting import listing, percent, plural
from mergerisk.report.summary import (
    SCHEMA_VERSION,
    Example,
    GradientExample,
    RunRecord,
    StageTime,
    Summary,
)
from mergerisk.statistics import accuracy_table, curve_tables, doubts, rate_table, with_intervals
from mergerisk.study.paths import without_places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from mergerisk.study import FinishedRun
    from mergerisk.study.examples import Picture
    from mergerisk.study.gradient_pictures import GradientPicture
    from mergerisk.transfer import Counted

_CAVEATS = {
    "starter-vit": (
        "The starter suite is for learning the tool and comparing methods on equal terms; its figures say nothing "
        "about deployed models."
    ),
    "held_out": (
        "Data-driven merging was given unlabelled calibration images, none of which is attacked; the papers use "
        "the test images themselves."
    ),
    "test": (
        "Data-driven merging was given the unlabelled test images, as in the papers: those merges have seen what "
        "is attacked."
    ),
}


def summarize(
    run: FinishedRun,
    *,
    claims: Sequence[Mapping[str, Any]] = (),
    counted: Counted | None = None,
) -> Summary:
    """Every table of the report, recomputed from the outcomes.

    Args:
        run: what was run.
        claims: what was tested on it, for whoever tests it; see :mod:`mergerisk.report.run_summary`.
        counted: :func:`mergerisk.transfer.count` of the outcomes, where somebody has them already.
    """
    epsilon50, flags = curve_tables(run.outcomes, run.record["single_step_attacks"], counted)
    results = rate_table(run.outcomes) if counted is None else with_intervals(counted.rates)
    return Summary(
        schema_version=SCHEMA_VERSION,
        run=_record(run),
        results=results,
        by_step=rate_table(run.by_step),
        accuracy=accuracy_table(run.clean),
        epsilon50=epsilon50,
        flags=flags.assign(reason=flags["reason"].map(said)),
        examples=tuple(_example(picture) for picture in run.pictures),
        claims=tuple(claims),
        doubts=doubts(run.clean, results, run.study.ranked, run.record.get("steps_per_epoch")),
        further=run.further,
        gradients=tuple(_gradients(picture) for picture in run.gradients),
    )


def _record(run: FinishedRun) -> RunRecord:
    study, record = run.study, run.record
    notes = (*map(_sentence, record.get("notes", ())), *_skipped_caveats(record.get("skipped", {})))
    return RunRecord(
        study=study.name,
        description=study.description,
        backbone=without_places(study.backbone),
        tasks=tuple(run.clean["task"].unique()),
        methods=study.ranked,
        changed=study.changed,
        references=study.references,
        attacks=tuple(spec.label for spec in study.attacks),
        surrogates=tuple(spec.label for spec in study.surrogates),
        epsilons=study.budgets.epsilon,
        norm=study.budgets.norm,
        seeds=study.seeds,
        images_per_task=study.images_per_task,
        settings=study.settings,
        calibration=study.calibration,
        versions=record["versions"],
        device=record["device"],
        workers=record["workers"],
        git_revision=record["git_revision"],
        started=record["started"],
        seconds=record["seconds"],
        stages=tuple(
            StageTime(kind, int(took["count"]), int(took["cached"]), took["seconds"])
            for kind, took in record["kinds"].items()
        ),
        counts={"outcomes": len(run.outcomes), **record["counts"]},
        caveats=(
            *(_CAVEATS[reason] for reason in (study.backbone, study.calibration) if reason in _CAVEATS),
            *_zero_gradient_caveat(run.outcomes),
            *_form_caveats(record.get("own_forms", {})),
            *notes,
        ),
        study_yaml=study.to_yaml(places=False),
        notes=notes,
    )


def _form_caveats(forms: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Which models do not compute as the base does."""
    return tuple(
        f"{label} is measured in its own configuration and with its own preprocessing: {'; '.join(differences)}."
        for label, differences in forms.items()
    )


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


def _skipped_caveats(skipped: Mapping[str, list[dict[str, str]]]) -> tuple[str, ...]:
    """Files that could not be read, counted and named, a sentence per task."""
    sentences = []
    for task, files in skipped.items():
        named = listing([f"{item['file']} ({item['reason']})" for item in files])
        sentences.append(
            f"{task}: {plural(len(files), 'file')} could not be read and {_was(len(files))} left out: {named}."
        )
    return tuple(sentences)


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _zero_gradient_caveat(outcomes: pd.DataFrame) -> tuple[str, ...]:
    """What crafting met where a softmax is saturated, if it did."""
    target = outcomes["target"].iloc[0]  # every target is shown the same images
    met = (
        outcomes[outcomes["target"] == target]
        .groupby("attack", observed=True)["zero_gradients"]
        .agg(lambda steps: float((steps > 0).mean()))
    )
    met = met[met > 0].sort_values(ascending=False)
    if met.empty:
        return ()
    shares = listing([f"{name} ({percent(share, 1)})" for name, share in met.items()])
    sentence = (
        f"Crafting met gradients that were exactly zero on some images: {shares}. Where they vanish in a "
        "saturated softmax, loss: margin avoids that."
    )
    return (sentence,)


def _gradients(picture: GradientPicture) -> GradientExample:
    return GradientExample(
        **picture.facts,
        clean=np.rint(picture.clean * 255).astype(np.uint8),
        surrogate_gradient=picture.surrogate,
        target_gradient=picture.target,
    )


def _example(picture: Picture) -> Example:
    return Example(
        **picture.facts,
        clean=np.rint(picture.clean * 255).astype(np.uint8),
        adversarial=np.rint(picture.adversarial * 255).astype(np.uint8),
        perturbation=picture.adversarial - picture.clean,
    )
