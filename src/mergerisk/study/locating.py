"""What a study takes from a hub: asked for before anything is downloaded, its models then fetched, once;
and what its tables need of the internet."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import TYPE_CHECKING

from mergerisk.errors import Fault, Place, UserError, located, place
from mergerisk.hub_downloads import UnavailableError
from mergerisk.models.on_disk.copies import split_copy, with_copy
from mergerisk.models.sources.hub import ask, commit_of, fetch, is_hub_id, remark, revision_of
from mergerisk.study.named_sources import named_sources, renamed
from mergerisk.study.tables.catalogue import further_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from mergerisk.study.fields.models import TaskSpec
    from mergerisk.study.named_sources import NamedSource
    from mergerisk.study.schema import Study
    from mergerisk.tasks.source import TaskSource

_LISTED = 10
"""Models, and datasets, that one message lists."""


@dataclass(frozen=True)
class Located:
    """A study that needs the network no more, but for the datasets.

    Attributes:
        study: with folders for the hub's models.
        commits: of every model of the hub, by the study's name for it; with the reference of the conversion, where
            one was taken.
        notes: what a reader must know of where they come from.
    """

    study: Study
    commits: Mapping[str, str]
    notes: tuple[str, ...]


def locate(study: Study, *, offline: bool = False) -> Located:
    """The study with the hub's models replaced by their folders, so that nothing after this needs the network but
    the datasets.

    Args:
        study: a resolved study.
        offline: take them from the cache only.

    Raises:
        UserError: a model or dataset cannot be had: the message says of the first in which field it is named and
            what is wrong, and lists the others. Or what a table needs cannot.
    """
    known = named_sources(study)
    sources = ((one.where, split_copy(one.model)[0]) for one in known if one.kind != "data")
    models = [_Wanted(field, source) for field, source in sources if is_hub_id(source)]
    data = ((one.where, one.data.source) for one in known if one.kind == "data")
    wanted = [*models, *(_Wanted(field, source) for field, source in data if source.repository)]
    folders: dict[str, Path] = {}

    def find(what: _Wanted, *, cached: bool) -> None:
        if not isinstance(what.source, str):
            what.source.offline().fetch()
        elif what.source not in folders:
            folders[what.source] = fetch(what.source, offline=cached)

    faults: dict[_Wanted, UserError] = {}
    if not offline:
        faults = _faults(wanted, _ask, last=UnavailableError)
        refused = {what: error for what, error in faults.items() if not isinstance(error, UnavailableError)}
        if refused:
            raise UserError(_one_line(refused, "at fault"))
        faults = faults or _faults(models, lambda model: find(model, cached=False), last=UserError)
    if offline or faults:  # what else is missing is worth knowing now
        left = [what for what in wanted if what not in faults]
        absent = _faults(left, lambda what: find(what, cached=True))
        faults |= {what: error for what, error in absent.items() if isinstance(error, UnavailableError)}
    if faults:
        raise UserError(_one_line(faults, "to be fetched"))
    for further in further_tables(study):
        with located(place("tables")):
            further.table.fetch(offline=offline)
    return Located(
        _placed(study, {spec: str(folder) for spec, folder in folders.items()}, offline=offline),
        {revision_of(spec, folder): commit_of(folder) or "" for spec, folder in folders.items()},
        tuple(filter(None, (remark(spec, folder) for spec, folder in folders.items()))),
    )


@dataclass(frozen=True)
class _Wanted:
    """Something of the hub.

    Attributes:
        field: of the study, which names it first.
        source: ``org/name[@revision]`` of a model, or the dataset.
    """

    field: Place
    source: str | TaskSource

    @property
    def name(self) -> str:
        """``org/name``."""
        return self.source.partition("@")[0] if isinstance(self.source, str) else self.source.repository


def _placed(study: Study, folders: Mapping[str, str], *, offline: bool) -> Study:
    """The study with folders for models of the hub, and datasets that are not downloaded if it is offline."""

    def located(one: NamedSource) -> str | TaskSpec:
        if one.kind == "data":
            spec = one.data
            away = offline and spec.source.repository
            return spec.model_copy(update={"options": {**spec.options, "offline": True}}) if away else spec
        source, prefix = split_copy(one.model)
        return with_copy(folders[source], prefix) if source in folders else one.model

    return renamed(study, located)


def _faults(
    wanted: Iterable[_Wanted], find: Callable[[_Wanted], object], last: type[UserError] | tuple[()] = ()
) -> dict[_Wanted, UserError]:
    """What cannot be found, and why; after a fault of the class ``last`` nothing more is looked for."""
    found: dict[_Wanted, UserError] = {}
    for what in wanted:
        try:
            find(what)
        except UserError as error:
            found[what] = error
            if isinstance(error, last):
                break
    return found


def _ask(what: _Wanted) -> str:
    """The commit, for which nothing is downloaded."""
    return ask(what.source) if isinstance(what.source, str) else str(what.source.identity()["commit"])


def _one_line(faults: Mapping[_Wanted, UserError], are: str) -> Fault:
    """The first fault in full, and the names of the others."""
    (first, error), *others = faults.items()
    listed = []
    for kind, test in (("models", True), ("datasets", False)):
        names = [what.name for what, _ in others if isinstance(what.source, str) is test]
        listed += [f"{kind} {short_list(names)}"] if names else []
    return Fault(f"{error}{f'; also {are}: ' if listed else ''}{'; '.join(listed)}", first.field)


def short_list(names: Iterable[str]) -> str:
    """``org/{a,b}, other/c``: every name once, what the names of one owner begin with once for all of them."""
    known = sorted(set(names))
    shown, said = known[:_LISTED], []
    for owner, group in groupby(shown, lambda name: name.partition("/")[0]):
        inside = [name.removeprefix(f"{owner}/") for name in group]
        alike = list(takewhile(lambda letters: len(set(letters)) == 1, zip(*inside, strict=False)))
        common = inside[0][: len(alike)]
        common = common[: 1 + max(common.rfind(mark) for mark in "-_.")]  # whole words
        rest = [name.removeprefix(common) for name in inside]
        said.append(f"{owner}/{inside[0]}" if len(inside) == 1 else f"{owner}/{common}{{{','.join(rest)}}}")
    more = f" and {len(known) - len(shown)} more" if known[_LISTED:] else ""
    return f"{', '.join(said)}{more}"
