"""Words for the facts that statistics finds: the one place that has them, for terminal, page, exports and JSON.

Measures are called as their columns are (``asr_all``) or as the report does (``ASR over all images``); everything
here that can name one takes ``called``, which says how.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mergerisk.report.measure_words import words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mergerisk.statistics import Effect, Fact

    Called = Callable[[str], str]
    Words = Callable[[Mapping[str, Any], Called], str]

_MEASURES = {
    "asr": "ASR", "relative_asr": "relative ASR", "delta_asr": "ΔASR", "surrogate_asr": "ASR of surrogates",
    "clean_accuracy": "clean accuracy",
}  # fmt: skip


def by_column(measure: str) -> str:
    """A measure, called as its column is."""
    return measure


def in_the_report(measure: str) -> str:
    """A measure, called as in the report."""
    from mergerisk.statistics.cell_means import is_diagnostic
    from mergerisk.statistics.claims.testing import bare  # loads SciPy's statistics, which a run begins without

    if is_diagnostic(measure):
        return words_of(measure).title
    return _MEASURES[bare(measure)] + (" over all images" if measure.endswith("_all") else "")


def said(found: Fact, called: Called = by_column) -> str:
    """A fact in words.

    Args:
        found: what a claim compares, an effect's name, why nothing was tested, a caution, a doubt, why a curve
            falls, or how an interval was made.
        called: what measures are called.
    """
    return _SAID[found.kind](found.values, called)


def figure(found: Fact, called: Called = by_column) -> tuple[str, str]:
    """What was counted: what of, and the figure."""
    name, text = _FIGURES[found.kind]
    return name(found.values, called), text(found.values, called)


def figure_line(found: Fact) -> str:
    """``46 of 48 settings at or below 0``, or ``targets ordered: 8``."""
    name, text = figure(found)
    return f"{text} {name}" if "of" in found.values else f"{name}: {text}"


def effect_size(effect: Effect) -> str:
    """``+24.05 points`` or ``0.912``."""
    if not np.isfinite(effect.value):
        return "unknown"
    return f"{effect.value:+.2f} points" if effect.unit else plain_number(effect.value)


def plain_number(value: float, digits: int = 3) -> str:
    """A number without a unit, with so many digits after the point; of a small one as many that count."""
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= _SMALL else f"{value:.2g}"


_SMALL = 0.005
"""Diagnostics may be of any size: below this, digits after the point would be lost."""


def _amount(value: float, measure: str) -> str:
    """A number in a measure's unit."""
    from mergerisk.statistics.claims.testing import PERCENT_MEASURES, bare, in_units

    shown = in_units(value, bare(measure))
    in_points = bare(measure) in {*PERCENT_MEASURES, "delta_asr"} and shown
    return f"{shown:+.2f} points" if in_points else f"{shown:.4g}"


def _margin(values: Mapping[str, Any]) -> str:
    return f", margin {_amount(values['margin'], values['measure'])}" if values["margin"] else ""


def _made_on(values: Mapping[str, Any]) -> str:
    """Whose attacks are spoken of; some of them where they are many."""
    names = values["surrogates"]
    if not names:
        return ""
    more = f" and {len(names) - 4} others" if len(names) > 5 else ""
    return f"; attacks made on {', '.join(names[:4] if more else names)}{more}"


def _group(filters: Mapping[str, tuple[str | float, ...]]) -> str:
    """Filters as words: ``surrogate expert and task mnist or svhn``."""
    return " and ".join(
        f"{column.replace('_role', '')} {' or '.join(str(value) for value in values)}"
        for column, values in filters.items()
    )


def _extreme(v: Mapping[str, Any], called: Called) -> str:
    also = f"; and by {', '.join(map(called, v['also_by']))}" if "also_by" in v else ""
    return f"{called(v['measure'])} of {v['method']} against every other target, task by task{_made_on(v)}{also}"


def _mostly_saturated(v: Mapping[str, Any], called: Called) -> str:  # noqa: ARG001
    full, answer = v["saturation"], v["on_epsilon50"]
    again = "there is no ε50 to test it on" if answer is None else f"on ε50 it is {answer}"
    return (
        f"mostly saturated: {full.saturated} of {full.cells} settings at 99 % or more, {full.near_zero} near 0; "
        f"{again}"
    )


def _disagree(v: Mapping[str, Any], called: Called) -> str:  # noqa: ARG001
    one, other = (
        ", ".join(f"{name} ({effect_size(effect)})" for name, effect in v[side])
        for side in ("claimed_way", "other_way")
    )
    return (
        f"attackers disagree: {one} the claimed way, {other} the other way; "
        "the pooled line averages over them and holds for none"
    )


def _always(text: str) -> Words:
    return lambda _, __: text


def _own(v: Mapping[str, Any]) -> str:
    return "pairs' own differences" if v["unit"] == "pairs" else "settings' own ratios"


_BETWEEN = {"images": "images of one target", "targets": "targets"}

_COMPARED: dict[str, Words] = {
    "rate": lambda v, called: (
        f"{called(v['measure'])} of every setting against {_amount(v['against'], v['measure'])}"
        f"{_margin(v)}{_made_on(v)}"
    ),
    "paired": lambda v, called: (
        f"{called(v['measure'])}, {_group(v['first'])} minus {_group(v['second'])}, paired by "
        f"{', '.join(v['pair_by'])}{_margin(v)}{_made_on(v)}"
    ),
    "trend": lambda v, called: (
        f"{called(v['measure'])} along {called(v['by']) if v['by'] else ' < '.join(v['order'])} of targets, "
        f"task by task{_made_on(v)}"
    ),
    "extreme": _extreme,
    "epsilon50": _always("ε50"),
    "explains": lambda v, called: (
        f"rank correlation of {called(v['measure'])} with {called(v['outcome'])}, and that of "
        f"{called(v['than'])}, between {_BETWEEN[v['between']]}, inside blocks of task, attack and budget"
        f"{_made_on(v)}"
    ),
    "of_measures": lambda v, called: ", ".join(map(called, v["measures"])),
}
_MISSING: dict[str, Words] = {
    "no_diagnostics": _always("the data hold no diagnostics; a study with causes: […] measures them"),
    "same_for_all_images": lambda v, called: (
        f"{called(v['measure'])} is the same for all images of a target; between: targets compares it"
    ),
    "nothing_varies": lambda v, _: (
        f"in no block do both measures, and who is fooled, differ between {_BETWEEN[v['between']]}"
    ),
    "one_value_per_pair": _always(
        "of one task, one value per pair of models leaves nothing independent to test on"
    ),
    "no_setting": _always("no setting of the data is of this kind"),
    "no_setting_in_either_group": _always("no setting of the data is in either group"),
    "no_pair_complete": _always("no pair is complete"),
    "unknown_of_every_setting": lambda v, called: f"{called(v['measure'])} is known of no setting",
    "not_among_targets": lambda v, _: f"{v['target']} is not among the targets",
    "no_two_targets": _always("there are not two targets to compare"),
    "nothing_beside_it": _always("there is nothing to compare it with"),
    "no_measure": lambda v, called: f"the data hold no {called(v['measure'])}",
    "few_tasks_hold_all": lambda v, _: f"{v['tasks']} of {v['of']} tasks hold every target",
    "by_measure": lambda v, called: f"by {called(v['measure'])}: {said(v['missing'], called)}",
    "one_measure": _always("of a single task only one measure can be tested; give the claim one"),
    "rates_alone": _always(
        "of one task, rates alone leave nothing independent to test on; outcomes per image would"
    ),
    "too_few_images_count": _always("too few of its images count"),
}
_EFFECTS: dict[str, Words] = {
    "explains_more": _always("difference of rank correlations, each in its own direction"),
    "rho_with_fooled": lambda v, called: f"ρ of {called(v['measure'])}",
    "mean": _always("mean"),
    "median": _always("median"),
    "mean_difference": _always("mean difference"),
    "ratio": _always("ratio of mean ASRs"),
    "median_of_settings": _always("median of settings"),
    "ratio_difference": _always("difference of ratios of mean ASRs"),
    "median_of_pairs": _always("median of pairs"),
    "ratio_shift": _always("difference of the ratio of means"),
    "rise": _always("mean rise per place in the order"),
    "spearman": _always("mean Spearman ρ per task"),
    "mean_rho": _always("mean ρ"),
    "lead": lambda v, called: f"mean lead in {called(v['measure'])} over {v['over']}",
    "mean_rank": lambda v, called: (
        f"mean rank of {v['method']} by {called(v['measure'])} (1 of {v['targets']}: {v['first']})"
    ),
    "kendalls_w": lambda v, called: f"Kendall's W by {called(v['measure'])}",
    "rank_lead": _always("lead in mean rank"),
    "rank_lead_over": lambda v, _: f"mean lead in rank over {v['over']}",
    "smaller_budget": lambda v, _: f"share fooled at a smaller budget, of pairs that differ ({v['ties']} tie)",
}
_CAUTIONS: dict[str, Words] = {
    "attackers_disagree": _disagree,
    "mean_and_median": _always("mean and median lie on different sides: a few settings carry the mean"),
    "carried_by_few": lambda v, _: (
        f"the mean of the {_own(v)} is {v['value']:.3f}, carried by few with surrogates rarely fooled: "
        f"the {'difference of ratios' if v['unit'] == 'pairs' else 'ratio'} of means is judged"
    ),
    "weakest_part": lambda v, called: f"the weakest part decides: by {called(v['measure'])}",
    "left_out": lambda v, _: f"{v['count']} of {v['total']} {v['of']} lack a value and are left out",
    "mostly_saturated": _mostly_saturated,
    "on_epsilon50": lambda v, _: f"on ε50 it is {v['answer']}",
    "other_asr": lambda v, called: f"by {called(v['measure'])} it is {v['answer']}",
    "of_these_tasks_only": _always(
        "said of these tasks only: the interval over tasks does not exclude the opposite"
    ),
    "few_tasks": lambda v, _: (
        f"{'one task, whose images are tested' if v['tasks'] == 1 else str(v['tasks']) + ' tasks'}: "
        "little can be said of others"
    ),
}


def _chance(v: Mapping[str, Any], called: Called) -> str:  # noqa: ARG001
    listed = "; ".join(
        f"{one['task']} ({one['share']:.1%} [{100 * one['low']:.1f}, {100 * one['high']:.1f}] of {one['images']} "
        f"images; always naming the commonest class {one['commonest']:.1%})"
        for one in v["experts"]
    )
    return f"The experts are no better than guessing on {listed}."


def _same(v: Mapping[str, Any], called: Called) -> str:  # noqa: ARG001
    listed = "; ".join(f"{one['task']} ({one['images']} images)" for one in v["experts"])
    return (
        f"The base names the same class as its experts on every test image of {listed}: they are one attacker, "
        "and there is nothing to merge."
    )


def _no_better(v: Mapping[str, Any], called: Called) -> str:  # noqa: ARG001
    listed = "; ".join(
        f"{one['task']} ({100 * one['gain']:+.1f} points [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}] on "
        f"the same {one['images']} images)"
        for one in v["experts"]
    )
    return f"The experts are not shown to be better than the base on {listed}."


def _few_steps(v: Mapping[str, Any], called: Called) -> str:  # noqa: ARG001
    listed = ", ".join(f"{task} ({steps})" for task, steps in v["steps"].items())
    return (
        f"An epoch of fine-tuning is {v['at_most']} optimiser steps or fewer on {listed}: a smaller batch, more "
        "epochs or more training images would let experts leave the base."
    )


def _bootstrap(v: Mapping[str, Any], called: Called) -> str:  # noqa: ARG001
    seeds = "seeds, " if v["seeds"] else ""
    drawn = "tasks, images within them" if v["tasks"] else "images within tasks"
    return f"bootstrap, {seeds}{drawn}, {v['resamples']} resamples"


_DOUBTS: dict[str, Words] = {
    "chance": _chance,
    "same": _same,
    "no_better": _no_better,
    "few_images": lambda v, _: (
        f"{v['count']} of {v['of']} cells (one task, attack, surrogate, target and budget) count fewer than "
        f"{v['fewer_than']} images; the least is {v['least']}, {v['target']} on {v['task']} attacked from "
        f"{v['surrogate']}."
    ),
    "few_steps": _few_steps,
}
"""What leaves nothing to judge, in whole sentences."""

_FALLS: dict[str, Words] = {
    "zero_gradients": lambda v, _: (
        f"exact zero gradients at saturated confidence on {v['count']} of the {v['of']} images lost"
    ),
    "step_overshoots": _always("one large step overshoots: the loss is not linear over this budget"),
    "steps_overshoot_on_surrogate": _always(
        "the attack loses these images on the surrogate too: its steps grow with ε and overshoot"
    ),
    "overfits_surrogate": _always(
        "the attack still fools the surrogate: larger budgets overfit it and transfer less"
    ),
}
"""Why a curve may fall as ε grows."""

_INTERVALS: dict[str, Words] = {
    "t_over_tasks": lambda v, _: f"t over the means of {v['tasks']} tasks",
    "bootstrap": _bootstrap,
    "jackknife": _always("delete-a-group jackknife"),
}
"""How an interval was made."""

_SAID: dict[str, Words] = {
    **_COMPARED, **_MISSING, **_EFFECTS, **_CAUTIONS, **_DOUBTS, **_FALLS, **_INTERVALS,
}  # fmt: skip


def _count(v: Mapping[str, Any], called: Called) -> str:  # noqa: ARG001
    return f"{v['count']} of {v['of']}"


def _value(v: Mapping[str, Any], called: Called) -> str:  # noqa: ARG001
    return _amount(v["value"], v["measure"])


def _clipped(v: Mapping[str, Any], called: Called) -> str:  # noqa: ARG001
    shown = _amount(v["against"], v["measure"])
    return f"mean with settings {'above' if v['below'] else 'below'} {shown} counted as {shown}"


_FIGURES: dict[str, tuple[Words, Words]] = {
    "on_its_side": (
        lambda v, _: (
            f"{v['unit']} {'at or below' if v['below'] else 'at or above'} {_amount(v['against'], v['measure'])}"
        ),
        _count,
    ),
    "mean_of_own": (lambda v, _: f"mean of the {_own(v)}", lambda v, _: f"{v['value']:.3f}"),
    "clipped_mean": (_clipped, _value),
    "over_all_targets": (_always("mean difference over all targets, ingredients included"), _value),
    "beyond_sampling": (
        _always("pairs that differ beyond the sampling of images (5 % level each)"),
        lambda v, _: f"{v['higher']} higher, {v['lower']} lower, of {v['of']}",
    ),
    "tasks_explained_more": (_always("tasks in which the first correlates more"), _count),
    "rho_above_0": (_always("tasks with ρ above 0"), _count),
    "targets_ordered": (_always("targets ordered"), lambda v, _: str(v["count"])),
    "tasks_with_extreme": (
        lambda v, called: f"tasks in which {v['method']} has the {v['extreme']} {called(v['measure'])}",
        _count,
    ),
}
"""What was counted → what of, and the figure."""
