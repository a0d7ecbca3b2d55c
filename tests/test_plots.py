"""Pictures of a result: onto axes that are given, with the figures of the tables, and one line for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest

import mergerisk as mr
from mergerisk.api import StudyResult
from mergerisk.statistics import Epsilon50, Transfer
from tests.report.test_report_exports import small  # noqa: F401  # a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.report import Summary


@pytest.fixture(scope="module")
def result(small: Summary) -> StudyResult:  # noqa: F811
    return StudyResult(Path("runs/made-up"), small.results, small)


@pytest.fixture(autouse=True)
def _off_screen() -> Iterator[None]:
    before = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


def test_curves_go_through_the_rates_of_their_task(result: StudyResult) -> None:
    (plot,) = mr.plots.curves(
        result, plt.figure().subplots(), tasks=["letters"], surrogate="pretrained", attack="fgsm"
    )
    rates = result.rates.query("task == 'letters' and surrogate == 'pretrained' and attack == 'fgsm'")
    for name in ("ties", "dare"):
        (line,) = [line for line in plot.lines if line.get_label() == name]
        expected = 100 * rates[rates["target"] == name].sort_values("epsilon")["asr"]
        assert line.get_ydata() == pytest.approx(expected.tolist())
    assert plot.get_title() == "letters"


def test_every_picture_is_drawn_onto_the_axes_that_are_given_or_onto_new_ones(
    result: StudyResult, tmp_path: Path
) -> None:
    before = dict(mpl.rcParams)
    for draw in (mr.plots.risk_against_accuracy, mr.plots.heat_map, mr.plots.critical_differences):
        ax = plt.figure().subplots()
        assert draw(result, ax) is ax
        assert ax.has_data()
    made = mr.plots.curves(result)
    assert [ax.get_title() for ax in made] == ["digits", "letters"]
    made[0].figure.savefig(tmp_path / "curves.pdf")
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")
    assert dict(mpl.rcParams) == before  # whoever draws beside them sees no other style


def test_a_method_has_the_reports_colour_in_every_picture(result: StudyResult) -> None:
    from mergerisk.report.exports.drawing import COLOURS

    place = result.summary.run.methods.index("dare")
    for lines in (mr.plots.curves(result)[0].lines, mr.plots.risk_against_accuracy(result).lines):
        colours = {line.get_color() for line in lines if line.get_label() == "dare"}
        assert colours <= {COLOURS[place]}
    colours = {line.get_color() for line in mr.plots.curves(result)[0].lines if line.get_label() == "dare"}
    assert colours == {COLOURS[place]}


def test_what_was_measured_without_a_study_is_drawn_through_its_rates() -> None:
    def measured(rates: list[float], norm: str = "linf") -> Transfer:
        epsilons = [1 / 255, 2 / 255, 4 / 255][-len(rates) :]
        table = pd.DataFrame({"epsilon": epsilons, "asr": rates, "images_both_correct": 50})
        table["asr_low"], table["asr_high"] = table["asr"] - 0.1, table["asr"] + 0.1
        return Transfer(pd.DataFrame(), table, Epsilon50(0.5, "measured", 0.4, 0.6), {}, norm)

    plot = mr.plots.transfer({"ties": measured([0.2, 0.5, 0.9]), "dare": measured([0.3, 0.4])})
    lines = {line.get_label(): line for line in plot.lines}
    assert lines["ties"].get_ydata() == pytest.approx([20, 50, 90])
    assert lines["dare"].get_ydata() == pytest.approx([30, 40])
    assert lines["dare"].get_xdata() == pytest.approx(lines["ties"].get_xdata()[1:])  # at its own budgets
    assert lines["ties"].get_color() != lines["dare"].get_color()
    assert [tick.get_text() for tick in plot.get_xticklabels()] == ["1", "2", "4"]
    assert [text.get_text() for text in plot.get_legend().get_texts()] == ["ties", "dare"]
    assert len(mr.plots.transfer(measured([0.1, 0.2, 0.3])).collections) == 1  # a band
    with pytest.raises(mr.UserError, match="budgets in l2 and linf do not stand on one axis"):
        mr.plots.transfer({"ties": measured([0.2]), "far": measured([0.2], "l2")})
    with pytest.raises(mr.UserError, match="nothing to draw"):
        mr.plots.transfer({})


def test_what_cannot_be_drawn_is_said_in_one_line(result: StudyResult) -> None:
    with pytest.raises(mr.UserError, match=r"no surrogate 'expertt' in the study \(did you mean 'expert'\?\)"):
        mr.plots.heat_map(result, surrogate="expertt")
    with pytest.raises(mr.UserError, match=r"no budget 3/255; there are "):
        mr.plots.heat_map(result, epsilon=3 / 255)
    with pytest.raises(mr.UserError, match="curves of 2 tasks need as many axes, got 1"):
        mr.plots.curves(result, plt.figure().subplots())
    with pytest.raises(mr.UserError, match="asked for no diagnostics"):
        mr.plots.causes(result)
    with pytest.raises(mr.UserError, match="nothing in the study is defended"):
        mr.plots.prices(result)


def test_a_result_shows_itself_as_the_table_that_ends_a_run(result: StudyResult) -> None:
    from mergerisk.cli.study_words import describe_result

    shown = result._repr_html_()
    assert "<b>starter</b>" in shown
    lines = [line.split("  ")[0] for line in describe_result(result).splitlines()]
    for name in ("pretrained", "ties", "dare"):
        assert name in lines
        assert f"<tr><th>{name}</th><td>" in shown
    assert "The safest: " in shown
    assert "runs/made-up/report.html" in shown
