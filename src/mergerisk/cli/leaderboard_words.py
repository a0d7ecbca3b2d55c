"""What ``leaderboard`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.report.formatting import budget, listing, plural, with_interval
from mergerisk.report.naming import holder
from mergerisk.report.threat import threat_cells
from mergerisk.report.worst import WorstAttacker
from mergerisk.text_tables import text_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.leaderboard.checking import Checked
    from mergerisk.leaderboard.document import Leaderboard
    from mergerisk.leaderboard.ranking import Row, Table


def describe_board(board: Leaderboard) -> str:
    """Every table, and what is left out of it."""
    return "\n\n".join(_table(table) for table in board.tables) + "\n"


def describe_checked(checked: Sequence[Checked]) -> str:
    """A line per fault, and one per sound entry."""
    lines = []
    for one in checked:
        lines += [f"{one.name}: {fault}" for fault in one.faults] or [f"{one.name}: every figure agrees"]
    return "\n".join(lines)


def _table(table: Table) -> str:
    who = listing([holder(label) for label in table.labels])
    tasks = [task.task for task in table.terms.tasks]
    title = (
        f"{listing(tasks, limit=7)} at {budget(table.epsilon)}, attackers who hold {who}: "
        f"{table.apart} of {plural(table.pairs, 'pair')} told apart"
    )
    rows = [_row(row, table) for row in table.rows]
    head = ("rank", "method", f"ASR at {budget(table.epsilon)}", "ε50", "relative ASR", "clean accuracy", "entry")
    lines = [title, text_table([head, *rows], ruled=True)] if rows else [title]
    return "\n".join(
        [*lines, *(f"not ranked: {one.method} of {one.entry}: {one.reason}" for one in table.unranked)]
    )


def _row(row: Row, table: Table) -> tuple[str, ...]:
    worst = WorstAttacker(row.attacker, row.asr, row.images, row.relative_asr, row.epsilon50)
    asr, half, relative, _ = threat_cells(worst, table.terms.epsilons)
    mean = row.clean_accuracy
    accuracy = with_interval(mean.value, mean.low, mean.high, 1)
    return f"{row.rank} [{row.rank_low}, {row.rank_high}]", row.method, asr, half, relative, accuracy, row.entry
