"""Two runs compared: differences against closed forms and published examples, pairing, and what is said of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mergerisk.report.comparison import compare_runs, comparison_html, comparison_text, write_comparison
from mergerisk.report.comparison.page import forest
from mergerisk.report.comparison.study_differences import ABSENT, differing_fields
from mergerisk.report.comparison.text import difference
from mergerisk.statistics import holm, mcnemar, paired_difference, unpaired_difference
from mergerisk.study import Study

from .browser import grave_faults, needs_chromium, opened, started_browser
from .test_report_page import HOSTILE, read

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study import FinishedRun

STUDY: dict[str, Any] = {
    "backbone": "starter-vit",
    "tasks": ["digits", "letters"],
    "merging": [
        {"method": "ties", "scaling": 1.0, "label": "ties"},
        {"method": "task_arithmetic", "label": "ta"},
    ],
    "attacks": ["fgsm"],
    "budgets": {"epsilon": [2 / 255, 8 / 255]},
    "images_per_task": 40,
}


@dataclass
class Run:
    """Stands for a finished run: only what a comparison reads."""

    study: Study
    outcomes: pd.DataFrame
    clean: pd.DataFrame
    record: dict[str, Any] = field(default_factory=dict)


def run(
    rates: dict[str, float] | None = None,
    images: range = range(40),
    seed: int = 0,
    keys: dict[str, str] | None = None,
    random: int = 0,
    **study: Any,
) -> FinishedRun:
    """Two tasks, one attack, two budgets; a target is fooled on the first share of the images."""
    rates = {"expert": 0.9, "ties": 0.5, "ta": 0.3} if rates is None else rates
    draw = np.random.default_rng(random)
    outcomes, clean = [], []
    for task, (target, rate) in product(("digits", "letters"), rates.items()):
        for epsilon, image in product((2 / 255, 8 / 255), images):
            known = image % 10 != 9  # the target is wrong on these when clean
            fooled = (image * 7 % 40) / 40 < rate * (0.5 if epsilon < 0.01 else 1)
            own = draw.random() < 0.9
            outcomes.append(
                {"task": task, "attack": "fgsm", "surrogate": "expert", "target": target, "epsilon": epsilon,
                 "seed": seed, "image": image, "label": 1, "surrogate_clean": 1, "target_clean": 1 if known else 0,
                 "surrogate_adversarial": 0 if own else 1, "target_adversarial": 0 if fooled else 1}
            )  # fmt: skip
        clean += [
            {
                "task": task,
                "model": target,
                "seed": seed,
                "image": i,
                "label": 1,
                "prediction": int(i % 50 >= 50 * rate / 3),
            }
            for i in range(200)
        ]
    found = keys or {"digits": "k1", "letters": "k2"}
    record = {
        "stages": [{"kind": "task", "label": task, "key": key} for task, key in found.items()],
        "versions": {"torch": "2"}, "device": "cpu", "git_revision": None,
    }  # fmt: skip
    checked = Study(**(STUDY | {"seeds": (seed,)} | study))
    return cast("FinishedRun", Run(checked, pd.DataFrame(outcomes), pd.DataFrame(clean), record))


def counts(*numbers: int) -> list[np.ndarray[Any, Any]]:
    return [np.array(number) for number in numbers]


def test_unpaired_interval_is_newcombes_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10
    for (k_a, n_a, k_b, n_b), (low, high) in {
        (48, 80, 56, 70): (0.0524, 0.3339),
        (3, 10, 9, 10): (0.1705, 0.8090),
        (0, 10, 10, 10): (0.6075, 1.0000),
    }.items():
        found = unpaired_difference(*counts(k_a, n_a, k_b, n_b))
        assert [float(value) for value in found] == pytest.approx([k_b / n_b - k_a / n_a, low, high], abs=5.1e-5)


def naive_paired(e: int, f: int, g: int, h: int) -> tuple[float, float]:
    """Newcombe 1998, Statistics in Medicine 17:2635, method 10, one number at a time."""
    n, z = e + f + g + h, stats.norm.ppf(0.975)

    def wilson(k: int) -> tuple[float, float]:
        middle, half = 2 * k + z * z, z * math.sqrt(z * z + 4 * k * (1 - k / n))
        return (middle - half) / (2 * (n + z * z)), (middle + half) / (2 * (n + z * z))

    a, b, c, d = e + f, g + h, e + g, f + h
    numerator = e * h - f * g
    if numerator > 0:
        numerator = max(numerator - n / 2, 0)
    phi = 0 if a * b * c * d == 0 else numerator / math.sqrt(a * b * c * d)
    (l2, u2), (l3, u3), p2, p3 = wilson(a), wilson(c), a / n, c / n
    below = math.sqrt((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u3 - p3) + (u3 - p3) ** 2)
    above = math.sqrt((u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p3 - l3) + (p3 - l3) ** 2)
    return p2 - p3 - below, p2 - p3 + above


@pytest.mark.parametrize("cells", [(20, 12, 2, 16), (36, 12, 2, 0), (54, 0, 0, 0), (1, 97, 1, 1), (0, 29, 1, 0)])
def test_paired_interval_is_newcombes(cells: tuple[int, int, int, int]) -> None:
    e, f, g, h = cells
    value, low, high = paired_difference(*counts(e, g, f, h))
    assert float(value) == pytest.approx((f - g) / sum(cells))
    assert (float(low), float(high)) == pytest.approx(naive_paired(*cells), abs=1e-9)


def test_paired_interval_covers_what_it_should() -> None:
    draw = np.random.default_rng(0)
    cells = draw.multinomial(60, [0.3, 0.1, 0.2, 0.4], 4000)
    _, low, high = paired_difference(cells[:, 0], cells[:, 1], cells[:, 2], cells[:, 3])
    assert 0.935 <= float(((low <= 0.1) & (high >= 0.1)).mean()) <= 0.975


def test_no_images_make_no_interval() -> None:
    assert all(math.isnan(float(value)) for value in paired_difference(*counts(0, 0, 0, 0)))
    assert all(math.isnan(float(value)) for value in unpaired_difference(*counts(0, 0, 3, 9)))


def test_mcnemar_is_scipys_binomial_test() -> None:
    pairs = [(0, 0), (1, 0), (5, 5), (2, 9), (30, 12)]
    expected = [stats.binomtest(a, a + b).pvalue if a + b else 1.0 for a, b in pairs]
    assert mcnemar(*np.array(pairs).T).tolist() == pytest.approx(expected)


def test_holm_by_hand() -> None:
    found = holm(np.array([0.04, math.nan, 0.01, 0.03]))
    assert found.tolist() == pytest.approx([0.06, math.nan, 0.03, 0.06], nan_ok=True)
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]


def test_a_run_equals_itself() -> None:
    found = compare_runs(run(), run())
    assert len(found.settings) == 12
    assert found.settings["paired"].all()
    assert (found.settings["asr_difference"] == 0).all()
    assert (found.settings["p_value"] == 1).all()
    assert found.fields == ()
    assert found.only == ()
    assert "Not one of them has another ASR." in comparison_text(found)


def test_same_images_are_paired_and_others_are_not() -> None:
    more = {"expert": 0.9, "ties": 0.9, "ta": 0.3}
    found = compare_runs(run(), run(more, keys={"digits": "k1", "letters": "other"}))
    assert found.paired_tasks == ("digits",)
    large = found.settings[(found.settings["target"] == "ties") & (found.settings["epsilon"] > 0.01)]
    paired, unpaired = (large[large["task"] == task].iloc[0] for task in ("digits", "letters"))
    # 36 images count; by hand: fooled below 0.5 and below 0.9 of the images in that order
    kept = [i for i in range(40) if i % 10 != 9]
    a, b = ([(i * 7 % 40) / 40 < rate for i in kept] for rate in (0.5, 0.9))
    gained = sum(y and not x for x, y in zip(a, b, strict=True))
    assert paired["images_a"] == paired["images_b"] == 36
    assert paired["asr_difference"] == pytest.approx(gained / 36)
    assert paired["p_value"] == pytest.approx(2 * 0.5**gained)
    assert unpaired["asr_difference"] == pytest.approx(gained / 36)
    assert math.isnan(unpaired["p_value"])
    assert paired["asr_high"] - paired["asr_low"] < unpaired["asr_high"] - unpaired["asr_low"]
    assert found.settings["p_adjusted"].min() == pytest.approx(6 * 2 * 0.5**gained)


def test_only_shared_images_are_paired_while_most_are_shared() -> None:
    found = compare_runs(run(), run(images=range(10, 60)))
    assert found.settings["paired"].all()
    assert set(found.settings["images_a"]) == {27}  # 10 to 39, less those the target gets wrong
    apart = compare_runs(run(), run(images=range(30, 70)))
    assert not apart.settings["paired"].any()
    assert set(apart.settings["images_a"]) == set(apart.settings["images_b"]) == {36}


def test_means_by_target_are_those_of_the_settings_and_their_intervals_hold_them() -> None:
    found = compare_runs(run(random=1), run({"expert": 0.9, "ties": 0.8, "ta": 0.3}, random=2))
    targets = found.targets.set_index("target")
    assert list(targets.index) == ["ties", "ta"]  # expert is the surrogate: a white box
    rows = found.settings[found.settings["target"] == "ties"]
    for rate in ("asr", "relative"):
        row = targets.loc["ties"]
        assert row[f"{rate}_low"] < row[f"{rate}_difference"] < row[f"{rate}_high"]
    assert targets.loc["ties", "asr_difference"] == pytest.approx(rows["asr_difference"].mean())
    own_a, own_b = ((rows[f"asr_{run}"] / rows[f"relative_{run}"]).sum() for run in "ab")  # of surrogates
    assert targets.loc["ties", "relative_difference"] == pytest.approx(
        rows["asr_b"].sum() / own_b - rows["asr_a"].sum() / own_a
    )
    assert targets.loc["ties", "asr_low"] > 0
    assert targets.loc["ta", "asr_low"] <= 0 <= targets.loc["ta", "asr_high"]
    assert "by its interval, for ties." in comparison_text(found)


def test_bootstrap_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    # unpaired, one budget's worth: the variance of a mean over tasks of p(1−p)/n, twice
    keys = {"digits": "x", "letters": "y"}
    found = compare_runs(run(images=range(400)), run(images=range(400), keys=keys))
    row = found.targets.set_index("target").loc["ties"]
    rows = found.settings[(found.settings["target"] == "ties") & (found.settings["task"] == "digits")]
    fooled = rows["asr_a"].to_numpy()  # ε small ⊂ ε large: the covariance of the two is p₁(1−p₂)/n
    low, high = sorted(fooled)
    variance = (low * (1 - low) + high * (1 - high) + 2 * low * (1 - high)) / 4 / 360
    expected = 2 * 1.96 * math.sqrt(2 * variance / 2)
    assert row["asr_high"] - row["asr_low"] == pytest.approx(expected, rel=0.12)


def test_seeds_are_matched_by_number_unless_each_run_has_one() -> None:
    found = compare_runs(run(), run(seed=5))
    assert set(zip(found.settings["seed_a"], found.settings["seed_b"], strict=True)) == {(0, 5)}
    both = run(seeds=(0, 1))
    assert len(compare_runs(both, run(seed=5)).settings) == 0
    assert "nothing to compare" in comparison_text(compare_runs(both, run(seed=5)))


def test_accuracy_is_compared_image_by_image() -> None:
    found = compare_runs(run(), run({"expert": 0.9, "ties": 0.9, "ta": 0.3})).accuracy.set_index(["task", "model"])
    row = found.loc["digits", "ties"]
    # wrong on i % 50 < 50·rate/3: 9 against 15 of every 50
    assert (row["accuracy_a"], row["accuracy_b"]) == (0.82, 0.7)
    assert row["difference"] == pytest.approx(-0.12)
    assert row["p_value"] == pytest.approx(2 * 0.5**24)
    assert found.loc["digits", "ta"]["difference"] == 0


def test_fields_that_differ_are_named_by_label() -> None:
    other = [
        {"method": "ties", "scaling": 0.5, "label": "ties"},
        {"method": "weight_averaging", "label": "avg"},
    ]
    a, b = run(), run(merging=other, images_per_task=20)
    b.record["versions"] = {"torch": "3"}
    found = {f.field: (f.a, f.b) for f in differing_fields(a, b)}
    assert found == {
        "images_per_task": ("40", "20"),
        "merging[ties].parameters.scaling": ("1.0", "0.5"),
        "merging[ta]": ("has it", ABSENT),
        "merging[avg]": (ABSENT, "has it"),
        "run.versions.torch": ("2", "3"),
    }


def test_what_only_one_run_has_is_said() -> None:
    found = compare_runs(run(), run({"expert": 0.9, "ties": 0.5, "new": 0.1}))
    assert [(only.axis, only.a, only.b) for only in found.only] == [("target", ("ta",), ("new",))]
    assert found.unmatched == (4, 4)
    assert "Only A has target ta." in comparison_text(found)


def test_differences_are_written_with_their_sign() -> None:
    assert difference(0.0213, -0.004, 0.05) == "+2.1 [−0.4, +5.0]"
    assert difference(-0.0004) == "0.0"
    assert difference(math.nan) == "–"


def test_forest_is_to_scale() -> None:
    found = compare_runs(run(), run({"expert": 0.9, "ties": 0.8, "ta": 0.3}))
    drawn = forest(found, "asr")
    ties = next(row for row in drawn.rows if row.name == "ties")
    value = found.targets.set_index("target").loc["ties", "asr_difference"]
    assert ties.at == pytest.approx(50 + 50 * 100 * value / drawn.reach, abs=0.01)
    assert all(
        0 <= place <= 100 for row in drawn.rows for place in (row.low, row.at, row.high) if place is not None
    )


def hostile_comparison() -> Any:
    no_slash = HOSTILE.replace("/", "")  # a study's name is its run's folder
    spoilt = [run(name=no_slash), run({"expert": 0.9, "ties": 0.8, "ta": 0.3}, name="other")]
    for side in spoilt:
        side.outcomes["target"] = side.outcomes["target"].replace("ties", HOSTILE)
        side.clean["model"] = side.clean["model"].replace("ties", HOSTILE)
    return compare_runs(*spoilt, names=(HOSTILE, "b"))


def test_page_is_whole_and_names_stay_text(tmp_path: Path) -> None:
    found = hostile_comparison()
    page = comparison_html(found)
    reader = read(page)
    assert not [tag for tag, _ in reader.tags if tag in {"script", "img", "iframe"}]
    assert HOSTILE in reader.text
    assert page == comparison_html(found)
    write_comparison(found, tmp_path / "new")
    assert len(pd.read_csv(tmp_path / "new" / "compare.csv")) == len(found.settings)
    nothing = compare_runs(run(seeds=(0, 1)), run(seed=5))
    assert "There is nothing to compare." in comparison_html(nothing)


@needs_chromium
@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_page_in_a_browser(tmp_path: Path, scheme: str, width: int) -> None:
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "bypass_csp": True}
    with (
        started_browser() as browser,
        opened(browser, comparison_html(hostile_comparison()), tmp_path, **look) as found,
    ):
        assert (found.complaints, found.requests, found.dialogs) == ([], [], [])
        assert found.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert grave_faults(found.page) == []
