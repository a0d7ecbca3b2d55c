"""Hyper-parameters of a study: checked, and their defaults filled in."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mergerisk.causes.catalogue import CAUSES
from mergerisk.errors import Fault, Faults, Place, UserError, located, place
from mergerisk.study.fields.surrogates import AVERAGED, OTHER_ARCHITECTURE, OUTSIDER, OWN_MERGE, OWN_METHOD
from mergerisk.study.further import TABLES
from mergerisk.study.hardening import check_attacker, resolve_defense
from mergerisk.study.hub_experts import hub_experts
from mergerisk.validation import as_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.merging import MergingMethod
    from mergerisk.study.fields.interventions import Intervention
    from mergerisk.study.fields.named import AttackSpec, CauseSpec, MethodSpec, TableSpec
    from mergerisk.study.fields.surrogates import SurrogateSpec
    from mergerisk.study.schema import Study


def resolve(study: Study) -> Study:
    """A study with every hyper-parameter's default filled in, all of them checked.

    Raises:
        UserError: an unknown hyper-parameter, or a value out of range.
    """
    from mergerisk.finetuning.averaged import Collecting
    from mergerisk.finetuning.descent import FineTuning
    from mergerisk.validation import construct

    faults, experts = Faults(), study.experts
    with faults.collecting():
        fine_tune = construct(FineTuning, experts.fine_tune, place("experts", "fine_tune"))
        experts = experts.model_copy(update={"fine_tune": dataclasses.asdict(fine_tune)})
    own = ((OUTSIDER, study.outsider), (AVERAGED, study.averaged), (OTHER_ARCHITECTURE, study.other_architecture))
    for field, changes in own:
        if changes is not None:
            with faults.collecting():
                construct(FineTuning, changes.fine_tune, place(field, "fine_tune"))
    if study.averaged is not None:
        with faults.collecting():
            construct(Collecting, study.averaged.collect, place(AVERAGED, "collect"))
    if experts.source == "hub":
        with faults.collecting():
            found = hub_experts(study.backbone, study.task_names)
            experts = experts.model_copy(update={"files": found | experts.files})
    attacks, merging = [], []
    for i, attack in enumerate(study.attacks):
        with faults.collecting():
            attacks.append(_resolve_attack(attack, study.budgets.steps, place("attacks", i)))
    if len(attacks) == len(study.attacks):
        with faults.collecting():
            _check_after(study.budgets.after, tuple(attacks))
    for i, method in enumerate(study.merging):
        where = place("merging", i) if method.intervention is None else place("merging", item=method.label)
        with faults.collecting():
            merging.append(_resolve_method(method, study, where))
    if len(merging) == len(study.merging):
        with faults.collecting():
            _check_compared(merging)
    resolved, defenses = study.model_copy(update={"merging": tuple(merging), "experts": experts}), []
    for i, defense in enumerate(study.defenses):
        with faults.collecting():
            defenses.append(resolve_defense(defense, resolved, place("defenses", i)))
    surrogates = []
    for surrogate in study.surrogates:
        with faults.collecting(), located(place("surrogates", item=surrogate.label)):
            check_attacker(study, surrogate)
            surrogates.append(_resolve_surrogate(surrogate, attacks))
    causes = []
    for i, cause in enumerate(study.causes):
        with faults.collecting():
            causes.append(_filled_in(cause, place("causes", i)))
    for i, table in enumerate(study.tables):
        with faults.collecting():
            _check_table(table, place("tables", i))
    if len(merging) == len(study.merging):
        _check_own_merges(study.model_copy(update={"merging": tuple(merging)}), faults)
    faults.settle()
    settled: dict[str, object] = {
        "merging": tuple(merging),
        "attacks": tuple(attacks),
        "surrogates": tuple(surrogates),
        "defenses": tuple(defenses),
        "causes": tuple(causes),
    }
    return study.model_copy(update={**settled, "experts": experts})


def _resolve_method(spec: MethodSpec, study: Study, where: Place) -> MethodSpec:
    """A merging method with every hyper-parameter, seen to fit the study's ingredients and tasks.

    Raises:
        UserError: it does not, or a hyper-parameter is unknown or out of range.
    """
    import torch

    from mergerisk.merging import Stacked, create
    from mergerisk.merging.catalogue import split_name
    from mergerisk.merging.checks import check_range
    from mergerisk.models.on_disk.checkpoints import TensorSpec

    with located(where):
        method = create(spec.name, **spec.parameters)
        for part in (method.method, method.correction) if isinstance(method, Stacked) else (method,):
            check_range(part, {"": TensorSpec(torch.float32, ())})
        if not study.merged_names:
            raise UserError("there is nothing to merge: give experts.files or ingredients")
        method.check_count(len(study.merged_names))
        if spec.intervention is not None:
            _check_intervention(spec.intervention, method, study)
        _check_data(spec.name, study, reads_images=method.needs_calibration, per_task=method.encoder_per_task)
    _, correction = split_name(spec.name)
    if correction is not None and isinstance(method, Stacked):
        parameters = as_parameters(method.method)
        parameters[correction] = as_parameters(method.correction)
    else:
        parameters = as_parameters(method)
    return spec.model_copy(update={"parameters": parameters})


def _check_data(method: str, study: Study, *, reads_images: bool, per_task: bool) -> None:
    """A method that reads images of every ingredient's task needs tasks for ingredients; one that serves every
    task with parts of its own, ingredients for tasks."""
    without = [*study.ingredients]
    if study.outsider is not None and study.outsider.offered and study.outsider.task is None:
        without.append(OUTSIDER)
    if reads_images and without:
        raise UserError(f"{method} reads images of every ingredient's task, and {without[0]!r} has no task")
    if per_task or "+" in method:
        for task in study.task_names:
            if task not in study.with_expert:
                raise UserError(f"{method} has parts for single tasks, and {task!r} has no expert")


def _check_compared(merging: Sequence[MethodSpec]) -> None:
    """See that every merge that something is changed about has one to be compared with.

    Raises:
        UserError: one has none.
    """
    for spec in merging:
        change = spec.intervention
        alike = [other for other in merging if (other.name, other.parameters) == (spec.name, spec.parameters)]
        whole = any(other.intervention is None for other in alike)
        if change is not None and change.kind != "path" and not whole:
            lacks = (
                "is compared with the same merge as it is, which the study lacks; add "
                f"{spec.name} with the same hyper-parameters"
            )
            raise UserError(Fault(lacks, place("merging", item=spec.label)))


def _check_intervention(change: Intervention, method: MergingMethod, study: Study) -> None:
    """See that a merge can be changed so; whether the backbone has such a block is seen when it is loaded.

    Raises:
        UserError: it cannot.
    """
    from mergerisk.merging import Stacked

    if isinstance(method, Stacked):
        raise UserError(
            f"{change.kind} changes a merge that no correction is stacked on; name the method alone (a correction "
            "is compared with the same merge without it as it is)"
        )
    if method.encoder_per_task:
        raise UserError(f"{change.kind} changes one merge of all tasks, and the method gives each task its own")
    if change.kind == "path" and method.changes_architecture:
        raise UserError(
            "path: there is none, since what the method gives is of another architecture than the base"
        )
    if change.kind == "ingredients":
        for task in study.task_names:
            if task not in study.with_expert:
                raise UserError(f"{change.value}: no ingredient belongs to {task!r}; give it under experts.files")
        left = len(study.merged_names) - 1
        if left < 2:
            raise UserError(f"{change.value}: leaves {left} of the ingredients, and a merge takes two; add one")
        method.check_count(left)


def _check_own_merges(study: Study, faults: Faults) -> None:
    """See that attackers can merge the ingredients in the way that the study says.

    Args:
        study: with its merges resolved.
        faults: where what is wrong goes.
    """
    from mergerisk.merging import create
    from mergerisk.study.planning.merges import own_method

    for spec in study.surrogates:
        for kind, name in spec.references:
            if kind != OWN_MERGE:
                continue
            with faults.collecting(), located(place("surrogates", item=spec.label)):
                if not study.merged_names:
                    raise UserError("there is nothing to merge: give experts.files or ingredients")
                if "+" in (name or ""):
                    raise UserError("no correction is stacked on an attacker's own merge; name the method alone")
                method, parameters = own_method(study, name or OWN_METHOD)
                made = create(method, **parameters)
                made.check_count(len(study.merged_names))
                if made.needs_calibration:
                    raise UserError(f"{method} reads images of every ingredient's task; name one that reads none")
                _check_data(method, study, reads_images=False, per_task=made.encoder_per_task)


def _resolve_attack(spec: AttackSpec, steps: int, where: Place) -> AttackSpec:
    """An attack with every hyper-parameter; ``steps`` are the study's where it takes some and says none."""
    from mergerisk.attacks import create, describe

    with located(where):
        attack = create(spec.name, **spec.parameters)
        if hasattr(attack, "steps") and "steps" not in spec.parameters:
            attack = create(spec.name, **spec.parameters, steps=steps)
    return spec.model_copy(update={"parameters": describe(attack)})


def _resolve_surrogate(spec: SurrogateSpec, attacks: Sequence[AttackSpec]) -> SurrogateSpec:
    """A surrogate with every hyper-parameter of its algorithm, if it has one, which every attack can follow.

    Raises:
        UserError: a hyper-parameter is unknown or out of range, or an attack cannot follow it.
    """
    if spec.algorithm is None:
        return spec
    from mergerisk.attacks import create, create_algorithm, unfit

    made = create_algorithm(spec.algorithm.name, **spec.algorithm.parameters)
    for attack in attacks:
        reason = unfit(create(attack.name, **attack.parameters), made)
        if reason is not None:
            raise UserError(f"{spec.algorithm.name} under {attack.label}: {reason}")
    algorithm = spec.algorithm.model_copy(update={"parameters": as_parameters(made)})
    return spec.model_copy(update={"algorithm": algorithm})


def _check_after(after: tuple[int, ...], attacks: tuple[AttackSpec, ...]) -> None:
    """See that some attack of the study takes more steps than the last at which iterates are asked for."""
    from mergerisk.attacks import create

    most = max(create(spec.name, **spec.parameters).iterations for spec in attacks)
    if after and after[-1] >= most:
        raise UserError(f"budgets.after: {after[-1]} steps: no attack of the study takes more than {most}")


def _filled_in(spec: CauseSpec, where: Place) -> CauseSpec:
    """A diagnostic, with every hyper-parameter.

    Raises:
        UserError: one is unknown, or out of range.
    """
    with located(where):
        made = CAUSES.create(spec.name, spec.parameters)
    return spec.model_copy(update={"parameters": dataclasses.asdict(made)})


def _check_table(spec: TableSpec, where: Place) -> None:
    """See that a table can be made.

    Raises:
        UserError: it is unknown, or has no such hyper-parameters.
    """
    with located(where):
        TABLES.create(spec.name, spec.parameters)
