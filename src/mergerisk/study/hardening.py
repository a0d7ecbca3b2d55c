"""What a study's defenses need: checked, and their defaults filled in; and which of them do what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.errors import Place, UserError, did_you_mean, located
from mergerisk.study.fields.surrogates import ADAPTIVE, OUTSIDER
from mergerisk.validation import as_parameters

if TYPE_CHECKING:
    from mergerisk.defenses import HidingDefense, MixingDefense, TrainingDefense
    from mergerisk.study.fields.defenses import DefenseSpec
    from mergerisk.study.fields.surrogates import Reference, SurrogateSpec
    from mergerisk.study.schema import Study

PUBLIC = ("pretrained", "expert")
"""The public models that a defense looks at by default: the base, and the attacked task's own expert."""

PER_TASK = ("all_but_attacked", "attacked")
"""Which ingredients are trained where that is another choice, and another merge, for every attacked task."""

_SEEN = ("pretrained", "expert", "other_expert", "ingredient", OUTSIDER)
"""Kinds of public models."""


def training_of(spec: DefenseSpec) -> type[TrainingDefense] | None:
    """The defense of an entry, if it is one that trains."""
    from mergerisk.defenses import TrainingDefense

    kind = DEFENSES.load(spec.name)
    return kind if issubclass(kind, TrainingDefense) else None


def mixing_of(spec: DefenseSpec) -> type[MixingDefense] | None:
    """The defense of an entry, if it is one that mixes weights."""
    from mergerisk.defenses import MixingDefense

    kind = DEFENSES.load(spec.name)
    return kind if issubclass(kind, MixingDefense) else None


def detects(spec: DefenseSpec) -> bool:
    """Whether the defense of an entry is one that rejects images."""
    from mergerisk.defenses import Detector

    return issubclass(DEFENSES.load(spec.name), Detector)


def hiding_of(spec: DefenseSpec) -> type[HidingDefense] | None:
    """The defense of an entry, if it is one that hides how a merge is made."""
    from mergerisk.defenses import HidingDefense

    kind = DEFENSES.load(spec.name)
    return kind if issubclass(kind, HidingDefense) else None


def spec_of(study: Study, label: str) -> DefenseSpec | None:
    """The entry that a defended model comes from; None of what is not defended."""
    return next((spec for spec in study.defenses if label in spec.labels), None)


def changed_by(study: Study, label: str) -> DefenseSpec | None:
    """The entry of a target whose weights a defense trained, or mixed with what it trained; None of others."""
    spec = spec_of(study, label)
    return spec if spec is not None and (training_of(spec) or mixing_of(spec)) else None


def hidden_by(study: Study, label: str) -> DefenseSpec | None:
    """The entry of a target whose merge is hidden; None of others."""
    spec = spec_of(study, label)
    return None if spec is None or hiding_of(spec) is None else spec


def stands_before(study: Study, label: str) -> bool:
    """Whether a target is another one behind a defense, rather than a model of its own."""
    spec = spec_of(study, label)
    return spec is not None and spec.stands_before


def check_attacker(study: Study, spec: SurrogateSpec) -> None:
    """See that an attacker who goes through what stands before a target has something to go through.

    Raises:
        UserError: nothing stands there.
    """
    kind, label = spec.references[0]
    if kind == ADAPTIVE and label is not None and not stands_before(study, label):
        raise UserError(f"nothing stands before {label}, whose weights are changed; name aware/{label}")


def behind(study: Study, label: str) -> str | None:
    """The trained, mixed or hidden target behind whatever stands before one, which may be itself; None if there
    is none."""
    while stands_before(study, label):
        label = study.defended[label]
    return label if label in study.defended else None


def resolve_defense(spec: DefenseSpec, study: Study, where: Place) -> DefenseSpec:
    """An entry of ``defenses`` with every default filled in.

    Args:
        spec: the entry.
        study: with its experts and merges resolved.
        where: it stands.

    Raises:
        UserError: a hyper-parameter is unknown or out of range, or the defense cannot be where it is put.
    """
    with located(where):
        for of in spec.of:
            behind_it = spec_of(study, of)
            if behind_it is not None and detects(behind_it):
                raise UserError(f"{of} rejects images, which comes last; put {behind_it.name} around the rest")
        if detects(spec):
            return _resolve_detector(spec, study)
        if spec.beside is not None:
            raise UserError(f"beside: {spec.name} compares nothing; leave it out")
        if mixing_of(spec):
            return _resolve_mixing(spec, study)
        if spec.robust is not None:
            raise UserError(f"robust: {spec.name} takes no robust base; leave it out")
        kind = training_of(spec)
        if kind is None:
            _check_unsaid(spec, "trains nothing", "stage", "ingredients", "public", "images")
            made = DEFENSES.create(spec.name, spec.parameters)
            for of in spec.of if hiding_of(spec) else ():
                _check_merge(spec.name, study, of)
                _check_one_encoder(study, of)
            return spec.model_copy(update={"parameters": as_parameters(made)})
        before, of_base = spec.stage == "before_merging", spec.stage == "before_fine_tuning"
        # From the base under labels, an ingredient is trained as every expert is.
        recipe = study.experts.fine_tune if before and kind.needs_labels else {}
        made = DEFENSES.create(spec.name, {**recipe, **spec.parameters})
        if of_base and kind.needs_public:
            raise UserError(f"stage: {spec.name} looks at public models, made from the base that it trains")
        public = (spec.public or PUBLIC) if kind.needs_public else None
        if spec.public is not None and public is None:
            raise UserError(f"public: {spec.name} looks at no public models; leave it out")
        if spec.images == "calibration" and kind.needs_labels:
            raise UserError(f"images: calibration images have no labels, and {spec.name} learns from them")
        changes: dict[str, object] = {
            "parameters": as_parameters(made),
            "stage": spec.stage or "after_merging",
            "public": public,
            "images": spec.images or "training",
        }
        if before:
            changes["ingredients"] = spec.ingredients or "all"
        elif spec.ingredients is not None:
            raise UserError("ingredients: of stage: before_merging alone, where they are trained")
        full = spec.model_copy(update=changes)
        for of in spec.of:
            if before or of_base:
                _check_ingredients(full, study, of)
            if not before:
                _check_one_encoder(study, of)
        for reference in full.references:
            _check_public(reference, study)
    return full


def _resolve_detector(spec: DefenseSpec, study: Study) -> DefenseSpec:
    """An entry that rejects images, with every default filled in.

    Raises:
        UserError: as :func:`resolve_defense`.
    """
    _check_unsaid(spec, "trains nothing", "stage", "ingredients", "public", "images", "robust")
    made = DEFENSES.create(spec.name, spec.parameters)
    full = spec.model_copy(update={"parameters": as_parameters(made), "beside": spec.beside or "expert"})
    for reference in full.references:
        _check_public(reference, study, "beside")
    return full


def _resolve_mixing(spec: DefenseSpec, study: Study) -> DefenseSpec:
    """An entry that mixes weights, with every default filled in.

    Raises:
        UserError: as :func:`resolve_defense`.
    """
    _check_unsaid(spec, "mixes what merging gave", "stage", "ingredients", "public")
    made: MixingDefense = DEFENSES.create(spec.name, spec.parameters)
    if spec.robust is not None and all(member.start != "robust" for member in made.members):
        raise UserError(f"robust: {spec.name} takes no robust base; leave it out")
    learning = [step.made for member in made.trained(robust=spec.robust is not None) for step in member.steps]
    labels = next((step for step in learning if step.needs_labels), None)
    if spec.images == "calibration" and labels is not None:
        raise UserError(f"images: calibration images have no labels, and {type(labels).__name__} learns from them")
    for of in spec.of:
        _check_one_encoder(study, of)
    images = (spec.images or "training") if learning else None
    return spec.model_copy(update={"parameters": as_parameters(made), "images": images})


def _check_unsaid(spec: DefenseSpec, why: str, *keys: str) -> None:
    """Raises:
    UserError: the entry says something that its defense has no use for.
    """
    for key in keys:
        if getattr(spec, key) is not None:
            raise UserError(f"{key}: {spec.name} {why}; leave it out")


def _check_one_encoder(study: Study, label: str) -> None:
    """Whether a model can be trained after merging: one encoder for all tasks, and nothing around it.

    Raises:
        UserError: it cannot.
    """
    from mergerisk.merging import Stacked, create

    spec = spec_of(study, label)
    if spec is not None and hiding_of(spec) is not None:
        if DEFENSES.create(spec.name, spec.parameters).count > 1:
            raise UserError(f"{label} is several merges that answer together; train one")
        return
    if spec is not None:
        if spec.stands_before:
            raise UserError(f"{label} stands behind {spec.name}; train what is behind it, and put it around that")
        if spec.ingredients in PER_TASK:
            raise UserError(f"{label} is another merge for every task; train one of all tasks")
        if spec.stage in {"before_merging", "before_fine_tuning"}:
            _check_one_encoder(study, spec.labels[label])
        return
    merge = next((merge for merge in study.merging if merge.label == label), None)
    if merge is None:
        return  # a model made elsewhere
    if merge.intervention is not None:
        raise UserError(f"{label} is a merge that something is changed about; name one as it is")
    method = create(merge.name, **merge.parameters)
    if isinstance(method, Stacked):
        raise UserError(f"{label} has a correction on top, which belongs to its weights; name the merge alone")
    if method.encoder_per_task:
        raise UserError(f"{label} has an encoder for each task; name a merge that serves all of them")
    if method.changes_architecture:
        raise UserError(f"{label} is of another architecture than the base; name a merge that is not")


def _check_merge(who: str, study: Study, label: str) -> None:
    """Whether a label is a merge's, as it is.

    Raises:
        UserError: it is not.
    """
    merge = next((merge for merge in study.merging if merge.label == label), None)
    if merge is None or merge.intervention is not None:
        raise UserError(f"{who} takes a merge as it is, by its label in merging, not {label!r}")


def _check_ingredients(spec: DefenseSpec, study: Study, label: str) -> None:
    """Whether ingredients, or the base that they are fine-tuned from, can be trained before they are merged.

    Raises:
        UserError: they cannot.
    """
    where = f"stage: {spec.stage}"
    _check_merge(where, study, label)
    for name in study.merged_names:
        if name not in study.with_expert:
            raise UserError(f"{where} trains every ingredient on its task, and {name!r} has none here")
    if spec.ingredients in PER_TASK:
        for task in study.task_names:
            if task not in study.with_expert:
                raise UserError(f"{spec.ingredients}: no ingredient belongs to {task!r}")


def _check_public(reference: Reference, study: Study, field: str = "public") -> None:
    """Whether there is such a public model.

    Raises:
        UserError: there is none.
    """
    kind, name = reference
    if kind not in _SEEN:
        raise UserError(f"{field}: {kind} is no public model; possible: {', '.join(_SEEN)}")
    known = {"expert": study.with_expert, "ingredient": tuple(study.ingredients)}.get(kind, ())
    if name is not None and name not in known:
        raise UserError(f"{field}: no {kind} {name!r}{did_you_mean(name, known)}")
    if kind == "expert" and name is None:
        for task in study.task_names:
            if task not in study.with_expert:
                raise UserError(f"{field}: task {task!r} has no expert; name other public models")
    if kind == "other_expert" and len(study.merged_names) < 2:
        raise UserError(f"{field}: there is no second ingredient")
