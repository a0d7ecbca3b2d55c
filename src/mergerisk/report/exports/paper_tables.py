"""The tables of a report as text, before Markdown or LaTeX lays them out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.accuracy import accuracy_table, mean_accuracy
from mergerisk.report.cause_words import attacker_words
from mergerisk.report.causes_view import COLUMNS, row_of
from mergerisk.report.claims import claim_views
from mergerisk.report.epsilon50 import ALL, epsilon50_text
from mergerisk.report.formatting import MISSING, budget, percent, plural, with_interval
from mergerisk.report.further import in_short
from mergerisk.report.naming import holder
from mergerisk.report.pareto import pareto_front
from mergerisk.report.price_words import ATTACKERS, attacker_row
from mergerisk.report.price_words import COLUMNS as PRICE_COLUMNS
from mergerisk.report.price_words import basis as basis_of_prices
from mergerisk.report.price_words import row_of as row_of_prices
from mergerisk.report.risk import compared, mean_text
from mergerisk.report.standing import basis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.report.view import View
    from mergerisk.statistics import Standings


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        name: of its file.
        caption: a sentence, with what its numbers are and how many they rest on.
        columns: their titles; the first column names the rows, the others hold figures.
        rows: one text per column.
        best: (row, column) of figures to be set in bold.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()


def tables(view: View) -> tuple[Table, ...]:
    """Every table that has a row."""
    found = (
        methods(view),
        accuracy(view),
        by_attack(view),
        by_task(view),
        budgets(view),
        ranks(view),
        causes(view),
        prices(view),
        attackers(view),
        claims(view),
        *further(view),
    )
    return tuple(table for table in found if table.rows)


def further(view: View) -> Iterator[Table]:
    """The tables that the study asks for of which means are shown."""
    for kept in view.summary.further:
        if kept.declared.shown_by == "mean":
            short = in_short(kept)
            titles = tuple(column.name.replace("_", " ") for column in short.columns)
            meant = "; ".join(f"{column.name}: {column.meaning}" for column in short.columns[short.names :])
            yield Table(
                short.name,
                f"Means over {short.one_row_per}s, with 95% intervals. {meant[:1].upper()}{meant[1:]}.",
                (*titles, "rows"),
                short.rows,
            )


def methods(view: View) -> Table:
    """One row per merging method: accuracy, both rates, ε50, and whether any other beats it on both axes."""
    axes, surrogate, epsilon = view.axes, view.surrogate, view.epsilon
    accuracies = mean_accuracy(view.summary.accuracy, axes)
    relative = compared(view.risks.get((surrogate, epsilon, "relative"), {}), axes, surrogate)
    asr = compared(view.risks.get((surrogate, epsilon, "asr"), {}), axes, surrogate)
    front = pareto_front({name: (accuracies[name].value, mean.value) for name, mean in relative.items()})
    names = sorted(asr, key=lambda name: relative[name].value if name in relative else math.inf)
    rows = []
    for name in names:
        median = view.medians.get((surrogate, ALL, ALL, name))
        rows.append(
            (
                name,
                mean_text(accuracies[name]),
                mean_text(asr[name]),
                mean_text(relative[name]) if name in relative else MISSING,
                epsilon50_text(median.value, axes.epsilons) if median else MISSING,
                "yes" if name in front else "",
            )
        )
    best = {(0, 3)} if names and names[0] in relative else set()
    known = [name for name in names if not math.isnan(accuracies[name].value)]
    if known:
        best.add((names.index(max(known, key=lambda name: accuracies[name].value)), 1))
    return Table(
        "methods",
        f"Merging methods under attacks made on {holder(surrogate)} at ε = {budget(epsilon)}, lowest risk "
        f"first: means over {plural(len(axes.tasks), 'task')} and {plural(len(axes.attacks), 'attack')}, with 95% "
        "intervals; relative ASR is the ratio of the two mean ASRs.",
        ("method", "clean accuracy", "ASR", "relative ASR", "median ε50", "Pareto front"),
        tuple(rows),
        frozenset(best),
    )


def accuracy(view: View) -> Table:
    """Clean accuracy by model and task."""
    found = accuracy_table(view.summary.accuracy, view.axes)
    rows = tuple((row.model, row.mean.text, *(cell.text for cell in row.cells)) for row in found.rows)
    best = {
        (r, c)
        for r, row in enumerate(found.rows)
        for c, cell in enumerate((row.mean, *row.cells), start=1)
        if cell.best
    }
    caption = "Clean accuracy on whole test splits; the best merging method of each column in bold."
    return Table("accuracy", caption, ("model", "mean", *found.tasks), rows, frozenset(best))


def by_attack(view: View) -> Table:
    """Mean relative ASR by target and attack."""
    return _by(view, "attack", view.axes.attacks)


def by_task(view: View) -> Table:
    """Mean relative ASR by target and task."""
    return _by(view, "task", view.axes.tasks)


def _by(view: View, column: str, names: tuple[str, ...]) -> Table:
    """Relative ASR of every target by task or by attack, at the budget that the report speaks of first."""
    here = view.cells[
        (view.cells["surrogate"] == view.surrogate) & (view.cells["epsilon"] == view.epsilon)
    ].dropna(subset=["asr"])
    sums = here.groupby(["target", column], observed=True)[["asr", "surrogate_asr"]].sum()
    ratios = (sums["asr"] / sums["surrogate_asr"]).where(sums["surrogate_asr"] > 0).dropna()
    means = {names: float(value) for names, value in ratios.items()}
    targets = [name for name in view.axes.targets if any((name, other) in means for other in names)]
    ranked = [name for name in targets if name in view.axes.methods and name != view.surrogate]
    best = set()
    for place, other in enumerate(names, start=1):
        known = [name for name in ranked if (name, other) in means]
        if len(known) > 1:
            best.add((targets.index(min(known, key=lambda name: means[name, other])), place))
    rows = tuple((name, *(percent(means.get((name, other), math.nan)) for other in names)) for name in targets)
    over = "tasks" if column == "attack" else "attacks"
    caption = (
        f"Relative ASR of attacks made on {holder(view.surrogate)} at ε = {budget(view.epsilon)} by {column}: "
        f"mean ASR over {over} divided by the surrogate’s; the lowest merging method of each column in bold."
    )
    return Table(f"relative_asr_by_{column}", caption, ("target", *names), rows, frozenset(best))


def budgets(view: View) -> Table:
    """What each budget can show."""
    rows = tuple(
        (
            budget(row.epsilon),
            with_interval(row.mean_asr, row.low, row.high),
            percent(row.saturated),
            f"{row.pairs_apart} of {row.pairs}",
        )
        for row in view.overview
    )
    caption = (
        f"What each budget can show, of attacks made on {holder(view.surrogate)}: a cell is saturated when "
        "surrogate and target are both fooled at least 99% of the time."
    )
    return Table("budgets", caption, ("ε", "mean ASR", "saturated cells", "pairs told apart"), rows)


def ranks(view: View) -> Table:
    """How methods stand under the worst attacker, where that is known."""
    found = view.standing
    columns = ("method", "ASR, worst attacker", "cannot be told apart from it")
    if found is None:
        return Table("standings", "", columns, ())
    alike = {
        name: [other for clique in found.cliques if name in clique for other in clique] for name in _names(found)
    }
    rows = tuple(
        (
            method.name,
            with_interval(method.value, method.low, method.high, 1),
            ", ".join(dict.fromkeys(other for other in alike[method.name] if other != method.name)) or "none",
        )
        for method in found.methods
    )
    return Table("standings", f"How the methods stand, safest first. {basis(found)}", columns, rows)


def _names(found: Standings) -> list[str]:
    return [method.name for method in found.methods]


def causes(view: View) -> Table:
    """One row per measure that may explain transfer, strongest first; none without diagnostics."""
    found = view.summary.explanations
    if found is None:
        return Table("causes", "", COLUMNS, ())
    caption = (
        f"What goes with who is fooled, under {attacker_words(found.worst)}: Spearman's ρ between methods (with "
        "the budget that fools half, with ASR) and among one method's images; odds ratio on the same image; AUC "
        "and R² of a method that was left out; share mediated between the safest and the riskiest method. In "
        "brackets 95% intervals, over images."
    )
    rows = tuple(tuple(cell.text for cell in row_of(measure)) for measure in found.worst.measures)
    return Table("causes", caption, COLUMNS, rows)


def prices(view: View) -> Table:
    """One row per defended target; none without."""
    found = view.summary.prices
    if found is None:
        return Table("prices", "", PRICE_COLUMNS, ())
    caption = f"What defenses gain and cost. {basis_of_prices(found)}"
    return Table(
        "prices", caption, PRICE_COLUMNS, tuple(row_of_prices(one, found.epsilons) for one in found.offers)
    )


def attackers(view: View) -> Table:
    """One row per defended target and attacker; none without."""
    found = view.summary.prices
    columns = ("defended", *ATTACKERS)
    rows = [] if found is None else [(offer, price) for offer in found.offers for price in offer.priced.attackers]
    caption = "Every attacker of every defended model, beside the same before the undefended one."
    return Table(
        "prices_by_attacker",
        caption,
        columns,
        tuple((offer.priced.target, *attacker_row(price, found.epsilons)) for offer, price in rows if found),
    )


def claims(view: View) -> Table:
    """What was tested, where anything was."""
    rows = tuple(
        (
            claim.sentence,
            "; ".join(
                [
                    f"{claim.attacker}: {claim.verdict}" if claim.attacker else claim.verdict,
                    *(f"{part.attacker}: {part.verdict} ({part.effect})" for part in claim.attackers),
                ]
            ),
            "; ".join(f"{name} {text}" for name, text in claim.figures),
            " ".join([claim.reason, *(f"{caution}." for caution in claim.cautions)]).strip(),
        )
        for claim in claim_views(view.summary.claims)
    )
    return Table("claims", "Claims and what the figures say of them.", ("claim", "found", "figures", "why"), rows)
