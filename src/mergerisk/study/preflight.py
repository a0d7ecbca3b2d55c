"""What can be found wrong before any expensive work is found wrong here."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.disk import KEPT_FREE, make_folder
from mergerisk.errors import Faults, Place, UserError, located, place
from mergerisk.models.core.stated import of_base
from mergerisk.models.sources.loading import BACKBONES, has_batch_norm
from mergerisk.study.fields.surrogates import AVERAGED, OUTSIDER, UNSEEN
from mergerisk.study.hardening import detects
from mergerisk.study.kinds.clean import Clean
from mergerisk.study.kinds.evaluate import Evaluate
from mergerisk.study.kinds.query import Query
from mergerisk.study.named_sources import named_sources
from mergerisk.study.notes import task_sources
from mergerisk.study.query_budget import shared_queries
from mergerisk.study.variants.black_box import BlackBoxVariant
from mergerisk.tasks.outline import MORE_TRAINING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.defenses import Detector
    from mergerisk.models import Encoder
    from mergerisk.study.fields.targets import TargetSpec
    from mergerisk.study.schema import Study
    from mergerisk.study.stage import Stage
    from mergerisk.tasks.outline import Outline
    from mergerisk.tasks.source import TaskSource


_FINE_TUNED_ANEW = "before_fine_tuning"
"""The stage of a defense after which experts are fine-tuned from another base."""


def check_output(out: Path) -> None:
    """Make the output folder and try to write in it.

    Raises:
        UserError: that fails.
    """
    try:
        make_folder(out)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"{out}: cannot be written to: {error.strerror}; choose another --out") from error


def check_same_study(study: Study, out: Path, kept: Path) -> None:
    """See that a folder does not hold the run of another study: one of another name, on another backbone, or
    without a task in common. A study that was changed otherwise resumes.

    Args:
        study: what is to be run.
        out: the run's folder.
        kept: the study that was run there last, if one was.

    Raises:
        UserError: it does.
    """
    from mergerisk.study.reading import load_study

    try:
        other = load_study(kept, resolve=False, files=False)
    except UserError:
        return  # none, or none that can be told
    differs = (
        f"called {other.name!r}"
        if other.name != study.name
        else f"on {other.backbone}"
        if Path(other.backbone).name != Path(study.backbone).name
        else f"of {', '.join(other.task_names)}"
        if not {*other.task_names} & {*study.task_names}
        else None
    )
    if differs is not None:
        raise UserError(
            f"{out}: holds the run of another study, {differs}; choose another --out, or replace it with --force"
        )


def check_space(folder: Path, needed: int) -> None:
    """See that a disk has room.

    Args:
        folder: on the disk.
        needed: bytes.

    Raises:
        UserError: less than that, and some to spare, is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + KEPT_FREE:
        raise UserError(
            f"{folder}: {free / 2**20:.0f} MiB free, about {(needed + KEPT_FREE) / 2**20:.0f} MiB needed; free "
            "space, choose another --out or --store, or lower --limit"
        )


def check_queries(missing: Iterable[Stage], root: Path, *, apart: bool = False) -> None:
    """See that what is left to ask of every black box fits into its budget.

    Args:
        missing: the stages to run.
        root: the store's folder, where queries are counted.
        apart: whether those who ask see no folder in common, so that nobody counts for all of them.

    Raises:
        UserError: it does not, or could not be held; nothing was asked yet.
    """
    wanted: Counter[str] = Counter()
    budgets: dict[str, TargetSpec] = {}
    for stage in missing:
        if isinstance(stage, Clean | Evaluate | Query) and isinstance(stage.target, BlackBoxVariant):
            spec = stage.target.spec
            wanted[spec.label] += stage.cost()["query"]
            budgets[spec.label] = spec
    for label, count in wanted.items():
        if budgets[label].queries is not None:
            with located(f"target {label}"):
                if apart:
                    raise UserError(
                        "queries: a budget is counted in a folder, and nodes of a Ray cluster whose store is a "
                        "bucket share none; use a folder that every node shares as --store"
                    )
                shared_queries(root, budgets[label]).check(count)


def check_material(study: Study) -> dict[TaskSource, Outline]:
    """Load what the user brought (tasks, attacks' files, black boxes, models, heads) once, to see that it is
    sound.

    Returns:
        What is known of every task of the study, and of the outsider's.

    Raises:
        UserError: it is not; the message names the file and what is wrong.
    """
    from mergerisk.attacks import create

    faults = Faults()
    outlines: dict[TaskSource, Outline] = {}
    for source in task_sources(study):
        with faults.collecting():
            outlines[source] = source.check()
    reading, base = None, None
    with faults.collecting():
        reading = _reading(study)
    for source, outline in outlines.items():
        with faults.collecting():
            _check_splits(study, source, outline, reading)
    for attack in study.attacks:
        with faults.collecting():
            create(attack.name, **attack.parameters).check_files()
    for target in study.targets:
        from mergerisk.study.black_boxes import make_black_box
        from mergerisk.transfer import Queries

        for name in target.places:
            with faults.collecting(), located(f"target {target.label}"):
                # No class name matters before it is asked.
                make_black_box(target, name, ("", ""), Queries(target.queries or 0))
    with faults.collecting():
        base = _check_models(study)
    if outlines:
        with faults.collecting():
            _check_heads(study, outlines, base)
    _check_blocks(study, base, faults)
    faults.settle()
    return outlines


def check_tasks(study: Study) -> None:
    """Look at every task that is on this machine, as :func:`check_material` does; nothing is downloaded.

    Raises:
        UserError: one cannot be made.
    """
    faults = Faults()
    for source in task_sources(study):
        if not source.repository:
            with faults.collecting():
                source.check()
    faults.settle()


def _reading(study: Study) -> str | None:
    """The first merging method that reads images of every ingredient's task, in words; None if none does.

    Raises:
        UserError: one does, since the backbone has BatchNorm, and there is an ingredient without a task.
    """
    from mergerisk.merging.catalogue import METHODS, split_name

    methods = {spec.label: split_name(spec.name) for spec in study.merging}
    for label, (method, correction) in methods.items():
        if correction is not None or METHODS.load(method).needs_calibration:
            return label
    estimated = [label for label, (method, _) in methods.items() if not METHODS.load(method).encoder_per_task]
    if not estimated or not has_batch_norm(study.backbone, image_size=study.image_size):
        return None
    who = f"{estimated[0]}, for the backbone's BatchNorm,"
    file = study.outsider is not None and study.outsider.offered and study.outsider.task is None
    for name in (*study.ingredients, *([OUTSIDER] if file else ())):
        raise UserError(f"{who} reads images of every ingredient's task, and {name!r} has no task")
    return who


def _check_splits(study: Study, source: TaskSource, outline: Outline, reading: str | None) -> None:
    """Whether a task has the images that are trained on, and those that merging reads.

    Raises:
        UserError: it has none.
    """
    task, why = source.name, None
    mine = task in study.task_names
    fine_tuned = mine and (
        (task in study.with_expert and task not in study.experts.files) or _attackers_learn_from_all(study)
    )
    if study.heads.source == "linear_probe" or study.other_architecture is not None:
        why = "a linear probe"
    elif fine_tuned or not mine:
        why = "fine-tuning"
    elif mine:
        learning = [spec for spec in study.defenses if spec.images == "training" or spec.stage == _FINE_TUNED_ANEW]
        why = learning[0].name if learning else None
    if why is not None and not outline.train:
        raise UserError(f"task {task!r} has no training images, and {why} needs some; {MORE_TRAINING}")
    unlabelled = next((spec.name for spec in study.defenses if spec.images == "calibration"), None)
    if mine and unlabelled and not outline.calibration:
        raise UserError(
            f"task {task!r} has no calibration images, and {unlabelled} learns from some; lower test_share, or "
            "raise limit.calibration"
        )
    if mine and study.attacked == "calibration" and not outline.calibration:
        raise UserError(
            f"task {task!r} has no calibration images, and they are attacked; lower test_share, or raise "
            "limit.calibration"
        )
    for spec in study.defenses if mine else ():
        if detects(spec):
            detector: Detector = DEFENSES.create(spec.name, spec.parameters)
            if outline.calibration < detector.fewest:
                raise UserError(
                    f"task {task!r} has {outline.calibration} calibration images, and {spec.name} needs "
                    f"{detector.fewest}; lower test_share, raise limit.calibration, or allow more false_alarms"
                )
    merged = task in study.with_expert if mine else OUTSIDER in study.merged_names
    if reading and merged and study.calibration == "held_out" and not outline.calibration:
        raise UserError(
            f"task {task!r} has no calibration images, and {reading} reads some; lower test_share, raise "
            "limit.calibration, or say calibration: test"
        )


def _attackers_learn_from_all(study: Study) -> bool:
    """Whether an attacker fine-tunes on every attacked task: one whom no defense has seen, or an outsider without
    data or weights of their own."""
    own = study.outsider is not None and (study.outsider.task is not None or study.outsider.file is not None)
    return bool({UNSEEN, AVERAGED} & study.held) or (OUTSIDER in study.held and not own)


def _check_heads(study: Study, outlines: Mapping[TaskSource, Outline], base: Encoder | None) -> None:
    """Whether heads that no image of the study makes fit the tasks, and the backbone.

    Args:
        study: with folders for models of the hub.
        outlines: of its tasks.
        base: the backbone; None if it was not loaded.

    Raises:
        UserError: they do not, or there are none.
    """
    from mergerisk.study.heads import classifier_of, fitting_head, head_of_file, names_for_prompts, prompt_names

    if study.heads.source == "zero_shot":
        from mergerisk.models import zero_shot

        names = {
            source.name: prompt_names(
                source.name, outline.class_names, names_for_prompts(study, source.name, source.spec)
            )
            for source, outline in outlines.items()
        }
        with located(place("heads")):
            zero_shot(study.backbone, next(iter(names.values()))[:1], ["{}"])
    elif study.heads.source != "linear_probe":
        faults = Faults()
        for source, outline in outlines.items():
            task = source.name
            if task not in study.task_names:
                continue  # the outsider's own data get a linear probe
            files = study.heads.source == "files"
            spec = study.heads.files[task] if files else classifier_of(study, task)
            with faults.collecting(), located(place("heads")):
                if files:
                    head = head_of_file(spec, task, outline.class_names)
                else:
                    head = fitting_head(spec, task, outline.class_names, study.backbone)
                if base is not None and head.weight.shape[1] != base.width:
                    raise UserError(
                        f"head of {spec}: for {head.weight.shape[1]} features, the backbone gives {base.width}; "
                        "give a classifier of the backbone's architecture"
                    )
        faults.settle()


def _check_models(study: Study) -> Encoder | None:
    """Load every model that was made elsewhere, one at a time.

    Returns:
        The backbone; None if it ships with the package and nothing else needs it.

    Raises:
        UserError: one cannot be loaded, or is of another architecture; the message says which field names it.
    """
    given = {one.where: one.model for one in named_sources(study) if one.kind == "model"}
    other, faults = study.other_architecture, Faults()
    if other is not None and other.backbone not in BACKBONES:
        from mergerisk.models import load_encoder

        with faults.collecting(), located(place("other_architecture")):
            stated = of_base(other.preprocessing)
            _check_encoder(
                other.backbone, load_encoder(other.backbone, image_size=other.image_size, preprocessing=stated)
            )
    if study.backbone in BACKBONES and not given:
        faults.settle()
        return None

    from mergerisk.models import load_encoder
    from mergerisk.models.sources.siblings import check_one_form, check_projection, read_sibling

    base = None
    with faults.collecting():
        base = load_encoder(
            study.backbone, image_size=study.image_size, preprocessing=of_base(study.preprocessing)
        )
        _check_encoder(study.backbone, base)
    for field, file in given.items() if base is not None else ():
        with faults.collecting(), located(field):
            form = read_sibling(base, file, image_size=study.image_size, preprocessing=study.preprocessing).form
            if _is_merged(study, field):
                check_one_form(form)
            check_projection(base, file)
    faults.settle()
    return base


def _check_blocks(study: Study, base: Encoder | None, faults: Faults) -> None:
    """Whether the backbone has the blocks that merges are changed in, or scaled by.

    Args:
        study: with folders for models of the hub.
        base: the backbone; None if it was not loaded.
        faults: where what is wrong goes.
    """
    if base is None and study.backbone not in BACKBONES:
        return  # it cannot be loaded, which has been said
    from mergerisk.merging import ShuffledBlock, create
    from mergerisk.merging.states import StateMerging, merged_names
    from mergerisk.models import load_encoder

    for spec in study.merging:
        shuffled = spec.intervention is not None and spec.intervention.kind == "shuffled_blocks"
        layers = any(isinstance(spec.parameters.get(name), dict) for name in ("scaling", "of"))
        if not shuffled and not layers:
            continue
        with faults.collecting(), located(place("merging", item=spec.label)):
            base = base or load_encoder(study.backbone, image_size=study.image_size)
            method = create(spec.name, **spec.parameters)
            method = getattr(method, "method", method)  # of one with a correction on it
            if isinstance(method, StateMerging):
                method.check_names(merged_names(base.state()))
            if spec.intervention is not None and shuffled:
                ShuffledBlock(block=spec.intervention.value).reaches(base)


def _check_encoder(name: str, encoder: Encoder) -> None:
    """See that an encoder that other code makes says the same of the same image; transformers' own all do.

    Raises:
        UserError: it does not; see :func:`mergerisk.models.core.behaviour.check_behaviour`.
    """
    if ":" not in name:
        return
    from mergerisk.models.core.behaviour import check_behaviour

    check_behaviour(encoder, (encoder.image_size, encoder.image_size), name, what="features")


def _is_merged(study: Study, field: Place) -> bool:
    """Whether the model that a field names is an ingredient of every merge."""
    offered = study.outsider is not None and study.outsider.offered
    return bool(study.merging) and (
        field.path[0] in {"experts", "ingredients"} or (field == place("outsider", "file") and offered)
    )
