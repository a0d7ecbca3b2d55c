"""Which tables a study's run leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mergerisk.causes.catalogue import CAUSES
from mergerisk.errors import UserError
from mergerisk.registry import plugins
from mergerisk.study.further import TABLES
from mergerisk.study.tables.clean import CleanTable
from mergerisk.study.tables.outcomes import ByStepTable, OutcomesTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from mergerisk.study.schema import Study
    from mergerisk.study.tables.declared import Declared
    from mergerisk.study.tables.gathered import Gathered
    from mergerisk.study.tables.table import RunTable

ALWAYS: tuple[RunTable, ...] = (OutcomesTable(), ByStepTable(), CleanTable())
"""What every run leaves."""

_TAKEN = (
    *(table.declared.name for table in ALWAYS),
    *("results", "results_by_step", "by_step", "accuracy", "epsilon50", "flags", "claims"),
)
"""Names of tables in a run's folder, or among what is exported of it."""


class Further(NamedTuple):
    """A table that a study asks for.

    Attributes:
        table: the table.
        plugins: name and version of the installed package that adds it.
    """

    table: RunTable
    plugins: tuple[str, ...]


def further_tables(study: Study) -> Iterator[Further]:
    """The tables that a study asks for besides those of every run.

    Raises:
        UserError: one is unknown, has no such hyper-parameters, or a name that another table has.
    """
    taken = set(_TAKEN)
    for kind in _asked_for(study):
        name = kind.table.declared.name
        if name in taken:
            raise UserError(f"tables: a run has a table {name!r} already; whoever adds another must rename it")
        taken.add(name)
        yield kind


def _asked_for(study: Study) -> Iterator[Further]:
    """Those that a study's causes, defenses and tables stand for, whatever they are called."""
    if study.causes:
        from mergerisk.study.tables.causes import CausesTable, PairCausesTable

        causes = [CAUSES.create(spec.name, spec.parameters) for spec in study.causes]
        per_image, per_pair = (tuple(c for c in causes if c.per == per) for per in ("image", "pair"))
        if per_image:
            yield Further(CausesTable(per_image), ())  # who adds a diagnostic is part of its stages
        if per_pair:
            yield Further(PairCausesTable(per_pair), ())
    if study.defenses:
        from mergerisk.study.tables.defenses import ChecksTable, CostsTable

        yield Further(ChecksTable(), ())  # who adds a defense is part of what is defended
        yield Further(CostsTable(), ())
    for spec in study.tables:
        entry = TABLES.check(spec.name)
        yield Further(TABLES.create(spec.name, spec.parameters), plugins(entry))


class Kept(NamedTuple):
    """A table that a run left.

    Attributes:
        declared: what it is.
        rows: the table.
    """

    declared: Declared
    rows: pd.DataFrame


def collect_further(gathered: Gathered) -> Iterator[Kept]:
    """The tables that the plan's study asks for, once every stage has run.

    Raises:
        UserError: one is not what it is declared to be.
        LostArtefactError: an artefact is not what was written.
    """
    for table, _ in further_tables(gathered.plan.study):
        rows = table.collect(gathered, gathered.plan.pieces[table.declared.name])
        fault = table.declared.fault_of(rows)
        if fault is not None:
            raise UserError(f"table {table.declared.name!r}: {fault}; it is not what it is declared to be")
        yield Kept(table.declared, rows)
