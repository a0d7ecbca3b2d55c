"""From a finished run to what explains who is fooled in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.report.worst import worst_by_target
from mergerisk.statistics import Diagnostics
from mergerisk.statistics.explaining import NullLine, explain, moves
from mergerisk.study.contrasts import contrasts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from mergerisk.report.summary import Summary
    from mergerisk.statistics.explaining import Explanations, Moves
    from mergerisk.study import FinishedRun

CAUSES, PAIR_CAUSES = "causes", "pair_causes"
"""The tables that diagnostics are kept in."""

_NULLS = {"other_expert": "unrelated", "other_architecture": "architecture"}
"""Kinds of surrogates that are null lines."""


def has_causes(run: FinishedRun) -> bool:
    """Whether a run keeps diagnostics."""
    return _table(run, CAUSES) is not None


def diagnostics_of(run: FinishedRun) -> Diagnostics | None:
    """What claims on causes are judged on; None of a run without."""
    causes = _table(run, CAUSES)
    return None if causes is None else Diagnostics(causes, _table(run, PAIR_CAUSES))


def explained(
    run: FinishedRun,
    summary: Summary,
    *,
    refits: int = 39,
    seed: int = 0,
    listen: Callable[[int, int], None] = lambda _done, _total: None,
) -> Explanations:
    """What explains who is fooled in a run that keeps diagnostics: of the targets that are ranked.

    Args:
        run: what was run.
        summary: of it: the worst attackers are those that its report speaks of.
        refits: of the test of predictions.
        seed: of whatever is drawn.
        listen: told how much is done, and of how much.

    Raises:
        UserError: nothing can be compared.
    """
    causes = _table(run, CAUSES)
    assert causes is not None
    return explain(
        run.outcomes,
        causes,
        _table(run, PAIR_CAUSES),
        run.clean,
        methods=run.study.ranked,
        worst=worst_by_target(summary),
        nulls=null_lines(run),
        refits=refits,
        seed=seed,
        listen=listen,
    )


def changed(run: FinishedRun, *, seed: int = 0) -> Moves | None:
    """What moves in a run when one thing about a merge is changed; None where nothing was.

    Args:
        run: what was run.
        seed: of whatever is drawn.
    """
    causes = _table(run, CAUSES)
    if causes is None:
        return None
    pairs = _table(run, PAIR_CAUSES)
    return moves(run.outcomes, causes, pairs, run.clean, contrasts_of(run.study), seed=seed)


def null_lines(run: FinishedRun) -> tuple[NullLine, ...]:
    """Which null lines a run has, and which it lacks."""
    found = [
        NullLine(kind, spec.label)  # type: ignore[arg-type]
        for spec in run.study.surrogates
        if len(spec.references) == 1 and (kind := _NULLS.get(spec.references[0].kind))
    ]
    there = {null.kind for null in found}
    lacking = [NullLine(kind, None) for kind in ("unrelated", "architecture", "noise") if kind not in there]
    return (*found, *lacking)


def _table(run: FinishedRun, name: str) -> pd.DataFrame | None:
    return next((kept.rows for kept in run.further if kept.declared.name == name), None)
