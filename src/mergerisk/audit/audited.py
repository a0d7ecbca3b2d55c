"""What was audited: files by their digests, and when, on what and with what it was computed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mergerisk.attacks.catalogue import BROUGHT
from mergerisk.study.kinds.given_model import GivenModel
from mergerisk.study.kinds.load_task import LoadTask
from mergerisk.study.named_sources import named_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mergerisk.audit.schema import Audit
    from mergerisk.study import Plan, Study
    from mergerisk.study.named_sources import NamedSource

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """A model or an image set that a study names.

    Attributes:
        role: what it is in the audit: ``base``, ``ingredient``, ``merged``, ``head``, ``outsider``,
            ``other_architecture`` or ``images``.
        name: of the ingredient, the model or the task; empty where there is one only.
        spec: path, name or hub id.
        identity: what decides what it computes, or which images it holds, computed from the files as they are now.
    """

    role: str
    name: str
    spec: str
    identity: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class AuditedItem:
    """A model or an image set as it was audited.

    Attributes:
        role: see :class:`Source`.
        name: likewise.
        path: as it was given; of an absolute path the last part, since where it lies is nobody's business.
        sha256: file → its SHA-256; of a folder of images, one digest of the chosen images and their classes.
        identity: what else decides: a hub's commit, options, versions of what renders or decodes.
    """

    role: str
    name: str
    path: str
    sha256: Mapping[str, str]
    identity: Mapping[str, Any]


def title(role: str, name: str) -> str:
    """What a model or an image set is called: ``ingredient street_numbers``."""
    return f"{role} {name}".strip() if name != role else role


@dataclass(frozen=True)
class Audited:
    """What an audit's figures rest on. Nothing here changes when gates are tried again on a finished audit.

    Attributes:
        date: when the last of what it rests on was computed, UTC; None if that was not kept.
        device: where: ``cpu``, ``cuda`` or both.
        seed: of everything random.
        images_per_task: attacked images, at most.
        attacks: label → its ``attack``, number of ``steps`` and other hyper-parameters.
        versions: of the package, Python and libraries that computed it; several where stages differ.
        items: models and images.
    """

    date: str | None
    device: str
    seed: int
    images_per_task: int
    attacks: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    items: tuple[AuditedItem, ...]


def sources_of(study: Study) -> Iterator[Source]:
    """Every model and image set of an audit's study."""
    known = named_sources(study)
    for path, role in _ROLES.items():
        for one in known:
            if one.where.path[: len(path)] == path:
                yield _source(role, one)


_ROLES = {
    ("backbone",): "base",
    ("targets",): "merged",
    ("experts", "files"): "ingredient",
    ("ingredients",): "ingredient",
    ("heads", "files"): "head",
    ("outsider", "file"): "outsider",
    ("other_architecture", "backbone"): "other_architecture",
    ("tasks",): "images",
    ("outsider", "task"): "outsider",
}
"""What the models and data of a study's fields are in an audit, in the order in which they are listed."""


def _source(role: str, one: NamedSource) -> Source:
    from mergerisk.models.sources.experts import expert_identity
    from mergerisk.models.sources.loading import backbone_identity

    if one.kind == "data":
        task = one.data.source
        return Source(role, task.name, task.spec, task.identity)
    identity = backbone_identity if one.kind == "backbone" else expert_identity
    inside = one.where.item or one.where.path[-1]
    return Source(role, "" if role in _ALONE else str(inside), one.model, partial(identity, one.model))


_ALONE = {"base", "outsider", "other_architecture"}
"""There is one model of it."""


def read_items(audit: Audit, study: Study, plan: Plan) -> tuple[AuditedItem, ...]:
    """What a plan is going to audit, by the digests that its stages' keys hold.

    Args:
        audit: what was asked; how things were called there is how they are called here.
        study: the audit's, before what it takes from a hub was fetched.
        plan: of that study.
    """
    asked = {(source.role, source.name): source.spec for source in sources_of(study)}
    files = {stage.file: stage.identity for stage in plan.stages.values() if isinstance(stage, GivenModel)}
    tasks = {stage.label: stage.identity for stage in plan.stages.values() if isinstance(stage, LoadTask)}
    found = []
    for source in sources_of(plan.study):
        known = tasks.get(source.name) if source.role == "images" else files.get(source.spec)
        spec = asked[source.role, source.name]
        found.append(item_of(source, audit.as_given(spec), known if known is not None else source.identity()))
    return tuple(found)


def item_of(source: Source, path: str, identity: Mapping[str, Any]) -> AuditedItem:
    """A model or image set with its identity taken apart into digests and the rest."""
    digests = dict(_digests(identity))
    rest = {name: value for name, value in identity.items() if name not in digests and not _is_digests(value)}
    return AuditedItem(source.role, source.name, path, digests, rest)


def _is_digests(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(_is_digest(part) for part in value.values())


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _digests(identity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Digests of an identity, those of a mapping of several by their own names."""
    for name, value in identity.items():
        if _is_digest(value):
            yield name, value
        elif _is_digests(value):
            yield from value.items()


def describe_work(study: Study, computed: Mapping[str, Any], items: tuple[AuditedItem, ...]) -> Audited:
    """What a finished audit's figures rest on: a rerun that computes nothing finds the same.

    Args:
        study: the audit's, resolved.
        computed: of its run's record: when, where and with what it was computed.
        items: what was audited.
    """
    (seed,) = study.seeds
    return Audited(
        computed["finished"],
        ", ".join(computed["devices"]),
        seed,
        study.images_per_task,
        {spec.label: {"attack": spec.name, **_steps(spec.name, spec.parameters)} for spec in study.attacks},
        {name: ", ".join(several) for name, several in computed["versions"].items()},
        items,
    )


def _steps(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    from mergerisk.attacks import create

    rest = {key: value for key, value in parameters.items() if key not in {"steps", *BROUGHT}}
    return {"steps": create(name, **parameters).iterations, "parameters": rest}
