"""A study's models as folders of this machine: what comes from a hub is fetched, once, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.models.hub import commit_of, fetch, is_hub_id
from mergerisk.tasks.loading import task_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.study.schema import Study
    from mergerisk.study.specs import TaskSpec


def locate(study: Study, *, offline: bool = False) -> tuple[Study, dict[str, str]]:
    """The study with the hub's models replaced by their folders, so that nothing after this needs the network.

    Args:
        study: a resolved study.
        offline: take them from the cache only.

    Returns:
        The study to plan and run, and the commit of every model of the hub.

    Raises:
        UserError: a model cannot be had; the message says in which field it is named. Of several that are missing
            offline, all are named.
    """
    commits: dict[str, str] = {}
    faults: list[str] = []

    def place(field: str, spec: str) -> str:
        if not is_hub_id(spec):
            return spec
        try:
            folder = fetch(spec, offline=offline)
        except UserError as error:
            faults.append(f"{field}: {error}")
            return spec
        commits[spec] = commit_of(folder) or ""
        return str(folder)

    def places(field: str, specs: Mapping[str, str]) -> dict[str, str]:
        return {name: place(f"{field}.{name}", spec) for name, spec in specs.items()}

    def task(spec: TaskSpec) -> TaskSpec:
        if not offline or spec.source.kind != "hub":
            return spec
        return spec.model_copy(update={"options": {**spec.options, "offline": True}})

    changes: dict[str, object] = {
        "tasks": tuple(task(spec) for spec in study.tasks),
        "backbone": place("backbone", study.backbone),
        "ingredients": places("ingredients", study.ingredients),
        "experts": study.experts.model_copy(update={"files": places("experts.files", study.experts.files)}),
        "heads": study.heads.model_copy(update={"files": places("heads.files", study.heads.files)}),
        "targets": tuple(
            target.model_copy(update={"encoder": place(f"targets: {target.label}", target.encoder)})
            if target.encoder
            else target
            for target in study.targets
        ),
    }
    if study.outsider is not None:
        file, data = study.outsider.file, study.outsider.task
        outsider = {
            "file": None if file is None else place("outsider.file", file),
            "task": None if data is None else task(data),
        }
        changes["outsider"] = study.outsider.model_copy(update=outsider)
    if study.other_architecture is not None:
        other = {"backbone": place("other_architecture.backbone", study.other_architecture.backbone)}
        changes["other_architecture"] = study.other_architecture.model_copy(update=other)
    faults += _missing_datasets(study) if offline else []
    if faults:
        raise UserError("; ".join(faults))
    return study.model_copy(update=changes), commits


def _missing_datasets(study: Study) -> list[str]:
    """What the cache lacks of the hub's datasets, one message each."""
    data = [] if study.outsider is None or study.outsider.task is None else [study.outsider.task]
    found = []
    for spec in (*study.tasks, *data):
        if spec.source.kind == "hub":
            try:
                task_source(spec.task, **{**spec.options, "offline": True}).check()
            except UserError as error:
                found.append(f"tasks: {error}")
    return found
