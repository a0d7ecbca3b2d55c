"""Assemble the page: view models in, one HTML string out."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mergerisk.report.accuracy import accuracy_table
from mergerisk.report.answers import how_compared
from mergerisk.report.by_step import step_table
from mergerisk.report.causes_view import COLUMNS, causes_view
from mergerisk.report.cells import cell_columns, rounded
from mergerisk.report.claims import claim_views
from mergerisk.report.curve_pictures import budget_places
from mergerisk.report.epsilon50 import (
    ALL,
    epsilon50_bin,
    epsilon50_range,
    epsilon50_text,
)
from mergerisk.report.fact_words import said
from mergerisk.report.formatting import BINS, budget, interval, percent
from mergerisk.report.further import in_short
from mergerisk.report.naming import holder, model_name
from mergerisk.report.pictures import strips
from mergerisk.report.price_words import ATTACKERS
from mergerisk.report.price_words import COLUMNS as PRICE_COLUMNS
from mergerisk.report.prices_view import prices_view
from mergerisk.report.standing import basis, in_words, standing_svg
from mergerisk.report.templating import environment, page_style, template
from mergerisk.report.threat import threat_picture
from mergerisk.report.view import view_of
from mergerisk.report.worst import worst_surrogates

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from mergerisk.report.cells import Axes
    from mergerisk.report.epsilon50 import MedianEpsilon50
    from mergerisk.report.risk import Mean, RiskTable
    from mergerisk.report.summary import Summary
    from mergerisk.report.view import View

MAX_FLAGS = 100
"""Falling curves listed on the page; the rest are in `summary.json`."""


SCRIPT = ("core", "tip", "marks", "scatter", "heat", "curves", "epsilon50", "selectors", "sorting")
"""The parts of the page's script, in order."""


@dataclass(frozen=True)
class Option:
    """One entry of a selector."""

    value: str
    label: str
    selected: bool


@dataclass(frozen=True)
class Defaults:
    """What the page shows first: indices into the axes."""

    surrogate: int
    epsilon: int
    attack: int


def render_html(summary: Summary) -> str:
    """Render the report: one HTML page that loads nothing from anywhere.

    Every name in the summary is treated as hostile: text is escaped by the template, the data block for a
    script element, and the page's content security policy runs no script but its own.
    """
    view = view_of(summary)
    axes, surrogate, epsilon = view.axes, view.surrogate, view.epsilon
    defaults = Defaults(
        surrogate=0,
        epsilon=axes.epsilons.index(epsilon) if epsilon in axes.epsilons else 0,
        attack=axes.attacks.index(view.attack) if view.attack in axes.attacks else 0,
    )
    shown, left_out = strips(summary.examples)
    script = page_script()
    standing = view.standing if view.standing is not None and len(view.standing.methods) > 1 else None
    context = {
        "run": summary.run,
        "axes": axes,
        "answers": view.answers(),
        "threat": threat_picture(view),
        "change": view.change,
        "compared": how_compared(view.standing, view.beside),
        "findings": view.findings(),
        "doubts": [said(doubt) for doubt in summary.doubts],
        "claims": claim_views(summary.claims),
        "causes": causes_view(summary),
        "cause_columns": COLUMNS,
        "prices": prices_view(summary.prices),
        "price_columns": PRICE_COLUMNS,
        "price_attackers": ATTACKERS,
        "ranks": standing_svg(standing) if standing else None,
        "ranks_basis": basis(standing) if standing else "",
        "carried": view.carried(),
        "ranks_in_words": in_words(standing) if standing else "",
        "overview": view.overview,
        "surrogate_words": holder(surrogate),
        "epsilon": epsilon,
        "accuracy": accuracy_table(summary.accuracy, axes),
        "options": selectors(axes, defaults),
        "flags": flag_rows(summary.flags.head(MAX_FLAGS), summary.results),
        "more_flags": max(0, len(summary.flags) - MAX_FLAGS),
        "strips": shown,
        "strips_left_out": left_out,
        "rows": len(summary.results),
        "steps": step_table(summary.by_step, axes, surrogate, epsilon),
        "further": [in_short(kept) for kept in summary.further],
        "slowest": max((stage.seconds for stage in summary.run.stages), default=0.0),
        "schema_version": summary.schema_version,
        "bins": range(BINS),
        "data": page_data(view, defaults),
        "style": page_style(),
        "script": Markup(script),  # package files, not input
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    }
    page = environment("report.html.j2").get_template("report.html.j2").render(context)
    # a name may hold half of a surrogate pair, which no file could be written with
    return page.encode("utf-8", "replace").decode("utf-8")


def selectors(axes: Axes, defaults: Defaults) -> dict[str, tuple[Option, ...]]:
    """The options of every selector on the page, by its name."""

    def options(labels: list[str], selected: int) -> tuple[Option, ...]:
        return tuple(Option(str(i), label, i == selected) for i, label in enumerate(labels))

    return {
        "surrogate": options([holder(name) for name in axes.surrogates], defaults.surrogate),
        "epsilon": options([budget(value) for value in axes.epsilons], defaults.epsilon),
        "attack": options(list(axes.attacks), defaults.attack),
        "attack50": (Option("-1", "median over attacks", selected=True), *options(list(axes.attacks), -1)),
        "risk": (
            Option("worst", "ASR under the worst attacker", selected=True),
            Option("asr", "ASR", selected=False),
            Option("relative", "relative ASR", selected=False),
            Option("epsilon50", "median ε50", selected=False),
        ),
        "rate": (
            Option("relative", "relative ASR", selected=True),
            Option("asr", "ASR", selected=False),
            Option("all", "ASR over all images", selected=False),
        ),
    }


def page_data(view: View, defaults: Defaults) -> dict[str, Any]:
    """What the page's script reads: names once, then columns of indices and rounded numbers."""
    summary, axes = view.summary, view.axes
    return {
        "schema_version": summary.schema_version,
        "tasks": axes.tasks,
        "attacks": axes.attacks,
        "surrogates": axes.surrogates,
        "holders": [holder(name) for name in axes.surrogates],
        "targets": axes.targets,
        "names": [model_name(name) for name in axes.targets],
        "methods": len(axes.methods),
        "epsilons": [255 * value for value in axes.epsilons],
        "places": rounded(budget_places(axes.epsilons)),
        "seeds": len(set(summary.results["seed"].tolist())),
        "bins": BINS,
        "defaults": {
            "surrogate": defaults.surrogate,
            "epsilon": defaults.epsilon,
            "attack": defaults.attack,
        },
        "cells": cell_columns(view.cells, axes),
        "risk": _risk_columns(view.risks, axes),
        "worst": _worst(view.risks, axes),
        "accuracy": _accuracy_columns(view.accuracies, axes),
        "epsilon50": _epsilon50_columns(view.medians, axes),
        "flags": _flag_columns(summary.flags, axes),
    }


def _risk_columns(risks: RiskTable, axes: Axes) -> dict[str, list[Any]]:
    """Every mean rate as columns: places on the axes, the rate, how many cells, and value with interval."""
    columns: dict[str, list[Any]] = {name: [] for name in ("surrogate", "epsilon", "target", "rate", "cells")}
    numbers: dict[str, list[float]] = {"value": [], "low": [], "high": []}
    for (surrogate, epsilon, rate), means in risks.items():
        place = (axes.surrogates.index(surrogate), axes.epsilons.index(epsilon))
        for t, target in enumerate(axes.targets):
            mean = means[target]
            for name, value in zip(columns, (*place, t, rate, mean.cells), strict=True):
                columns[name].append(value)
            for name, number in zip(numbers, (mean.value, mean.low, mean.high), strict=True):
                numbers[name].append(number)
    return columns | {name: rounded(values) for name, values in numbers.items()}


def _worst(risks: RiskTable, axes: Axes) -> list[list[int | None]]:
    """Per budget and target the place of its worst attacker among the surrogates; None where nothing is known."""
    found = [worst_surrogates(risks, axes, epsilon) for epsilon in axes.epsilons]
    return [
        [axes.surrogates.index(chosen[name]) if name in chosen else None for name in axes.targets]
        for chosen in found
    ]


def flag_rows(flags: pd.DataFrame, results: pd.DataFrame) -> list[dict[str, Any]]:
    """Falling curves with both rates, their intervals and numbers of images, where the results have them."""
    keys = ["task", "attack", "surrogate", "target", "seed", "epsilon"]
    rows = [{str(name): value for name, value in row.items()} for row in flags.to_dict("records")]
    if not rows:
        return []
    wanted = results[results["target"].isin({row["target"] for row in rows})]
    columns = (wanted[name].tolist() for name in [*keys, "asr_low", "asr_high", "images_both_correct"])
    known = {tuple(row[:6]): row[6:] for row in zip(*columns, strict=True)}

    def end(row: dict[str, Any], side: str) -> str:
        low, high, images = known.get(
            (*(row[key] for key in keys[:5]), row[f"epsilon_{side}"]), (math.nan, math.nan, 0)
        )
        text = f"{percent(row[f'asr_{side}'], 1)} {interval(low, high, 1)}".rstrip()
        return f"{text} of {images}" if images else text

    return [row | {"before": end(row, "from"), "after": end(row, "to")} for row in rows]


def _accuracy_columns(means: Mapping[str, Mean], axes: Axes) -> dict[str, list[float | None]]:
    return {
        "value": rounded(means[target].value for target in axes.targets),
        "low": rounded(means[target].low for target in axes.targets),
        "high": rounded(means[target].high for target in axes.targets),
    }


def _epsilon50_columns(
    medians: Mapping[tuple[str, str, str, str], MedianEpsilon50], axes: Axes
) -> dict[str, list[Any]]:
    """Every median ε50 as columns: places on the axes (−1 for all), its texts and colour, and where it is
    drawn."""
    names = ("surrogate", "attack", "task", "target", "text", "range", "curves", "colour")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    numbers: dict[str, list[float]] = {"place": [], "low": [], "high": []}
    smallest, largest = (axes.epsilons[0], axes.epsilons[-1]) if axes.epsilons else (math.nan, math.nan)
    # where a censored value is drawn: just outside the measured budgets
    below, above = smallest / 1.5, largest * 1.5
    for (surrogate, attack, task, target), found in medians.items():
        row = (
            axes.surrogates.index(surrogate),
            -1 if attack == ALL else _index(axes.attacks, attack),
            -1 if task == ALL else _index(axes.tasks, task),
            axes.targets.index(target),
            epsilon50_text(found.value, axes.epsilons),
            epsilon50_range(found, axes.epsilons),
            found.curves,
            epsilon50_bin(found.value, axes.epsilons),
        )
        for name, value in zip(names, row, strict=True):
            columns[name].append(value)
        for name, number in (("place", found.value), ("low", found.low), ("high", found.high)):
            numbers[name].append(255 * min(max(number, below), above) if not math.isnan(number) else math.nan)
    return columns | {name: rounded(values) for name, values in numbers.items()}


def _flag_columns(flags: pd.DataFrame, axes: Axes) -> dict[str, list[int]]:
    """Where curves fall, as places on the axes."""
    places: dict[str, Any] = {
        "task": axes.tasks, "attack": axes.attacks, "surrogate": axes.surrogates, "target": axes.targets,
        "epsilon_to": axes.epsilons,
    }  # fmt: skip
    return {name: [_index(order, value) for value in flags[name].tolist()] for name, order in places.items()}


def _index(names: tuple[Any, ...], name: Any) -> int:
    """Position of a name, or −2 where an axis lacks it (a flag or curve of something not in the results)."""
    return names.index(name) if name in names else -2


def page_script() -> str:
    """The page's one script: its parts share one closure, in this order."""
    parts = "\n".join(template("js", f"{name}.js") for name in SCRIPT)
    return f'"use strict";\n(() => {{\n{parts}\n}})();'
