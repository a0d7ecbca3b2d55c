"""Ranks against a naive computation, what is ranked together, and what a check refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import mergerisk as mr
from mergerisk.leaderboard import Entry, check_entry
from mergerisk.leaderboard.agreeing import disagreements
from mergerisk.leaderboard.entries import recomputed
from mergerisk.leaderboard.page import to_html
from mergerisk.leaderboard.ranking import rank
from mergerisk.leaderboard.rules import RULES
from mergerisk.leaderboard.terms import terms_of
from mergerisk.report.assembling import summarize
from mergerisk.statistics import holm
from tests.cli.test_cli import call
from tests.report.browser import grave_faults, needs_chromium, opened, started_browser
from tests.tiny import arrays, save_tiny_models, save_tiny_vit, write_tiny_study

from .made import RATES, TASKS, change_json, change_table, make_run, write_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.leaderboard import Leaderboard
    from mergerisk.study import FinishedRun

MORE = {"dare": 0.04, "iso_c": 0.31}
"""Of another entry on the same terms."""

HOSTILE = '<img src=x onerror="alert(1)"> & "quoted"'


@pytest.fixture(scope="module")
def run() -> FinishedRun:
    return make_run()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, run: FinishedRun) -> Path:
    return write_entry(tmp_path_factory.mktemp("entries") / "made", run)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory, sound: Path) -> Path:
    """Three entries: two on the same terms, one at other budgets with a hostile name."""
    folder = tmp_path_factory.mktemp("several")
    shutil.copytree(sound, folder / "made")
    write_entry(folder / "more", make_run(MORE, seed=7))
    other = {"budgets": {"epsilon": ["4/255"]}, "description": HOSTILE}
    write_entry(folder / "other", make_run({"ties": 0.5, "fisher": 0.2}, **other))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out") / "site"


@pytest.fixture(scope="module")
def board(entries: Path, site: Path) -> Leaderboard:
    """Written into ``site``."""
    found: Leaderboard = mr.leaderboard(entries, site)
    return found


@pytest.fixture(scope="module")
def entry(sound: Path, run: FinishedRun) -> Entry:
    return Entry("made", sound, run, recomputed(run))


def naive_asr(run: FinishedRun, method: str) -> float:
    """The worst attacker's ASR at the middle budget: mean over tasks, counted one image at a time."""
    rates: dict[str, list[float]] = {}
    middle = run.outcomes[np.isclose(run.outcomes["epsilon"], 4 / 255) & (run.outcomes["target"] == method)]
    for surrogate in ("expert", "pretrained"):
        for task in TASKS:
            counted = fooled = 0
            for row in middle[(middle["surrogate"] == surrogate) & (middle["task"] == task)].itertuples():
                if row.surrogate_clean == row.label == row.target_clean:
                    counted += 1
                    fooled += row.target_adversarial != row.label
            rates.setdefault(surrogate, []).append(fooled / counted)
    return max(sum(several) / len(several) for several in rates.values())


def test_ranks_are_by_the_worst_attackers_asr(run: FinishedRun, entry: Entry) -> None:
    (table,) = rank([entry])
    expected = {method: naive_asr(run, method) for method in RATES}
    assert {row.method: row.asr.value for row in table.rows} == pytest.approx(expected)
    assert [row.method for row in table.rows] == sorted(expected, key=lambda method: expected[method])
    assert [row.rank for row in table.rows] == [1, 2, 3]
    right = run.clean["label"] == run.clean["prediction"]
    accuracy = right.groupby([run.clean["model"], run.clean["task"]]).mean().groupby("model").mean()
    assert {row.method: row.clean_accuracy.value for row in table.rows} == pytest.approx(
        {method: accuracy[method] for method in RATES}
    )


def test_rank_intervals_count_who_is_told_apart(run: FinishedRun, board: Leaderboard) -> None:
    """By a bootstrap of images written anew: a z-test of every difference on the same images, then Holm."""
    table = board.tables[0]
    runs = {"made": run, "more": make_run(MORE, seed=7)}
    assert {row.entry for row in table.rows} == {*runs}
    random = np.random.default_rng(5)
    drawn = {task: random.integers(0, 60, (400, 60)) for task in TASKS}
    means, resampled = {}, {}
    for row in table.rows:
        outcomes = runs[row.entry].outcomes
        mine = outcomes[np.isclose(outcomes["epsilon"], 4 / 255) & (outcomes["target"] == row.method)]
        mine = mine[mine["surrogate"] == row.attacker]
        tasks = []
        for task in TASKS:
            here = mine[mine["task"] == task].sort_values("image")
            counts = (
                (here["surrogate_clean"] == here["label"]) & (here["target_clean"] == here["label"])
            ).to_numpy()
            fooled = counts & (here["target_adversarial"] != here["label"]).to_numpy()
            tasks.append(fooled[drawn[task]].sum(axis=1) / counts[drawn[task]].sum(axis=1))
        key = row.entry, row.method
        resampled[key], means[key] = np.mean(tasks, axis=0), row.asr.value
    pairs = [*combinations(means, 2)]
    z = [abs(means[a] - means[b]) / (resampled[a] - resampled[b]).std() for a, b in pairs]
    p = holm(np.array([2 * norm.sf(value) for value in z]))
    assert not ((p > 0.02) & (p < 0.12)).any(), "too near to the level for two bootstraps to agree"
    for row in table.rows:
        key = row.entry, row.method
        apart = [
            (a if b == key else b)
            for (a, b), value in zip(pairs, p, strict=True)
            if value < 0.05 and key in (a, b)
        ]
        safer = sum(means[other] < means[key] for other in apart)
        assert (row.rank_low, row.rank_high) == (1 + safer, len(means) - (len(apart) - safer))
    assert any(row.rank_low == row.rank_high for row in table.rows)
    assert any(row.rank_low < row.rank_high for row in table.rows)
    assert table.apart == int((p < 0.05).sum())


def test_one_entry_stands_as_in_its_report(entry: Entry) -> None:
    (table,) = rank([entry])
    (standing,) = [one for one in entry.summary.standings if np.isclose(one.epsilon, 4 / 255)]
    assert [row.method for row in table.rows] == [method.name for method in standing.methods]
    assert table.apart == standing.pairs_apart


def test_other_terms_make_another_table(board: Leaderboard) -> None:
    assert [len(table.rows) for table in board.tables] == [5, 2]
    assert {row.entry for row in board.tables[1].rows} == {"other"}
    assert board.tables[1].terms.epsilons == pytest.approx((4 / 255,))


OTHERWISE: tuple[dict[str, Any], ...] = (
    {"surrogates": ["expert"]},
    {"attacks": [{"attack": "fgsm", "loss": "margin"}]},
    {"images_per_task": 40},
    {"tasks": ["digits"]},
    {"budgets": {"epsilon": ["2/255", "4/255"]}},
)


def test_every_term_tells_tables_apart(run: FinishedRun, entry: Entry) -> None:
    others = [make_run(**changes) for changes in OTHERWISE]
    stages = [{**stage, "key": "f" * 64} for stage in run.record["stages"]]
    others.append(replace(run, record={**run.record, "stages": stages}))
    terms = [terms_of(Entry("other", entry.folder, other, summarize(other))) for other in others]
    assert len({terms_of(entry), *terms}) == len(others) + 1
    # what differs between entries of one table
    alike = make_run(MORE, seed=7, backbone="vit-b", seeds=(5,))
    assert terms_of(Entry("alike", entry.folder, alike, summarize(alike))) == terms_of(entry)


def flip(place: int, column: str = "target_adversarial") -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[place, column] = (table.loc[place, column] + 1) % 10
        return table

    return change


def figure(table: str, column: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        place = content[table]["columns"].index(column)
        content[table]["data"][3][place] = 0.123

    return change


def target_of(kept: pd.DataFrame) -> pd.DataFrame:
    return kept[kept["target"] != "ties"].reset_index(drop=True)


def larger(kept: pd.DataFrame) -> pd.DataFrame:
    kept.loc[kept["image"] == 2, ["l2", "linf"]] *= 1.01
    return kept


def counted_one_way(kept: pd.DataFrame) -> int:
    """A row that counts, and fools no one yet."""
    right = (kept["surrogate_clean"] == kept["label"]) & (kept["target_clean"] == kept["label"])
    merges = kept["target"].isin([*RATES]) & (kept["target_adversarial"] == kept["label"])
    return int(np.flatnonzero(right & merges)[0])


REFUSED: dict[str, tuple[str, str, Any, str]] = {
    "rate": ("json", "summary.json", figure("results", "asr"), "summary.json: results: asr is 0.123, outcomes give"),
    "interval": ("json", "summary.json", figure("results", "asr_high"), "results: asr_high is 0.123"),
    "accuracy": ("json", "summary.json", figure("accuracy", "accuracy"), "accuracy: accuracy is 0.123"),
    "column": (
        "json", "summary.json", lambda content: content["results"].update(columns=["task"], data=[]), "lacks the columns",
    ),
    "standing": (
        "json", "summary.json", lambda content: content["standings"][0]["methods"][0].update(value=0.01),
        "summary.json: standings[0].methods[0].value is 0.01",
    ),
    "schema": ("json", "summary.json", lambda content: content.update(schema_version=1), "written in schema 1"),
    "study": (
        "json", "summary.json", lambda content: content["run"].update(study_yaml="name: other\n"), "study.yaml: is not",
    ),
    "run": ("json", "summary.json", lambda content: content["run"].update(images_per_task=9), "run.images_per_task is 9"),
    "newer": (
        "json", "run.json", lambda content: content["versions"].update(mergerisk="99.0"), "made by mergerisk 99.0",
    ),
    "key": ("json", "run.json", lambda content: content["stages"].pop(), "names no key of the task letters"),
    "flipped": ("outcomes", "outcomes.parquet", lambda kept: flip(counted_one_way(kept))(kept), "outcomes give"),
    "flipped clean": ("outcomes", "outcomes.parquet", flip(400, "target_clean"), "clean.parquet has another class"),
    "flipped label": ("outcomes", "outcomes.parquet", flip(400, "label"), "clean.parquet has another label"),
    "flipped surrogate": (
        "outcomes", "outcomes.parquet", flip(400, "surrogate_adversarial"), "depends on whom it was shown to",
    ),
    "missing column": ("outcomes", "outcomes.parquet", lambda kept: kept.drop(columns="linf"), "lacks the column 'linf'"),
    "missing target": ("outcomes", "outcomes.parquet", target_of, "target ties: in study.yaml and not here"),
    "missing row": ("outcomes", "outcomes.parquet", lambda kept: kept.drop(index=400), "lack some of the 60 attacked"),
    "twice": (
        "outcomes", "outcomes.parquet", lambda kept: pd.concat([kept, kept.tail(1)]), "1 row stand there twice",
    ),
    "fewer images": (
        "outcomes", "outcomes.parquet", lambda kept: kept[kept["image"] > 4], "57 images were attacked, study.yaml asks",
    ),
    "budget": (
        "outcomes", "outcomes.parquet", lambda kept: kept[kept["epsilon"] > 0.01], "budget 2/255: in study.yaml and not",
    ),
    "attack": (
        "outcomes", "outcomes.parquet", lambda kept: kept.assign(attack="pgd"), "attack pgd: here and not in study.yaml",
    ),
    "steps": ("outcomes", "outcomes.parquet", lambda kept: kept.assign(steps=10), "fgsm took 10 steps"),
    "norm": ("outcomes", "outcomes.parquet", larger, "changed more than the budget allows; the first: digits, fgsm"),
    "csv": (
        "text", "results.csv", lambda text: text.replace("digits,", "letters,", 1), "results.csv: task is letters",
    ),
    "held-out images": (
        "text", "study.yaml", lambda text: f"{text}attacked: calibration\n", "those are the images that merges read",
    ),
    "read images": (
        "text", "study.yaml", lambda text: text.replace("held_out", "test"), "have read the attacked images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", [*REFUSED])
def test_what_does_not_agree_is_refused(tmp_path: Path, sound: Path, entry: Entry, fault: str) -> None:
    kind, name, change, said = REFUSED[fault]
    folder = shutil.copytree(sound, tmp_path / "made")
    path = folder / name
    if kind == "text":
        path.write_text(change(path.read_text()))
    else:
        {"json": change_json, "outcomes": change_table}[kind](path, change)
    # what outcomes give is known where they are as they were
    stated = name in {"summary.json", "results.csv"}
    faults = [*disagreements(replace(entry, folder=folder))] if stated else check_entry(folder).faults
    assert any(said in line for line in faults), faults
    assert all("\n" not in line for line in faults)


def test_a_sound_entry_has_no_fault_and_a_refused_one_makes_no_page(
    tmp_path: Path, sound: Path, entries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "leaderboard", "check", sound, "--json", tmp_path / "checked.json")
    assert (code, out) == (0, "made: every figure agrees\n")
    assert all(one["sound"] for one in json.loads((tmp_path / "checked.json").read_text())["entries"])
    bad = tmp_path / "bad"
    shutil.copytree(entries / "more", bad / "more")
    change_json(bad / "more" / "summary.json", figure("results", "asr"))
    code, out, _ = call(capsys, "leaderboard", "check", bad)
    assert code == 3
    assert len(out.splitlines()) == 1
    code, out, err = call(capsys, "leaderboard", "build", bad, "--out", tmp_path / "site")
    assert (code, out) == (2, "")
    assert err.startswith("mergerisk: more: summary.json: results: asr is 0.123, outcomes give ")
    assert not (tmp_path / "site").exists()
    code, _, err = call(capsys, "leaderboard", "check", tmp_path / "nowhere")
    assert code == 2
    assert "no such folder" in err


def test_the_page_has_every_entry_and_its_report(site: Path, board: Leaderboard) -> None:
    page = (site / "index.html").read_text()
    document = json.loads((site / "leaderboard.json").read_text())
    assert len(board.frame) == 7
    for name in ("made", "more", "other"):
        assert f'href="reports/{name}.html"' in page
        assert (site / "reports" / f"{name}.html").read_text().startswith("<!doctype html>")
    rows = [row for table in document["tables"] for row in table["rows"]]
    assert {(row["entry"], row["method"]) for row in rows} == {
        *(("made", method) for method in RATES), ("more", "dare"), ("more", "iso_c"), ("other", "ties"), ("other", "fisher"),
    }  # fmt: skip
    for rule in RULES:
        assert rule.title in page
    assert "<img" not in page


@needs_chromium
def test_the_page_filters_sorts_and_can_be_read_by_everybody(tmp_path: Path, board: Leaderboard) -> None:
    html = to_html(board)
    with started_browser() as browser:
        with opened(browser, html, tmp_path) as found:
            page = found.page
            names = "#tables article:first-of-type tbody tr:not([hidden]) th"
            before = page.locator(names).all_inner_texts()
            page.select_option("#sorted", label="clean accuracy")
            shares = page.locator("#tables article:first-of-type .acc").evaluate_all(
                "all => all.map(x => +x.dataset.value)"
            )
            assert shares == sorted(shares, reverse=True)
            page.select_option("#sorted", label="rank")
            assert page.locator(names).all_inner_texts() == before
            page.fill("#search", "dare")
            assert [text.split()[0] for text in page.locator(names).all_inner_texts()] == ["dare"]
            assert page.locator("#tables article:not([hidden])").count() == 1
            assert page.locator("g[data-base]:not([hidden])").count() == 1
            assert page.inner_text("#status").startswith("1 of 7 methods")
            assert (found.dialogs, found.complaints, found.requests) == ([], [], [])
        for scheme, width in (("light", 1280), ("dark", 390)):
            look = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "bypass_csp": True}
            with opened(browser, html, tmp_path, **look) as found:
                wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
                assert found.page.evaluate(wide)
                assert grave_faults(found.page) == []


def test_rules_of_page_and_docs_are_the_same() -> None:
    root = Path(__file__).parents[2]
    text = " ".join((root / "docs" / "leaderboard.md").read_text().replace("’", "'").replace("`", "").split())
    for rule in RULES:
        assert " ".join(rule.text.replace("’", "'").split()) in text, rule.title


def test_entries_that_ship_are_sound() -> None:
    tables = mr.leaderboard(Path(__file__).parents[2] / "leaderboard").tables
    assert [{row.entry for row in table.rows} for table in tables] == [{"real-methods"}, {"methods"}]
    for table in tables:
        assert len(table.rows) == 32
        assert not table.unranked


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a defended merge, attacked by somebody who knows."""
    folder = tmp_path_factory.mktemp("tiny")
    study = write_tiny_study(
        folder,
        save_tiny_vit(folder / "vit"),
        attacks=["fgsm"],
        merging=["weight_averaging"],
        defenses=[{"defense": "bit_depth", "of": ["weight_averaging"], "bits": 3}],
        surrogates=["expert", "aware"],
        checks={"images": 6, "steps": 10, "restarts": 2, "queries": 4},
        budgets={"epsilon": ["8/255"], "steps": 2},
        experts={"fine_tune": {"epochs": 1, "batch_size": 16}},
    )
    mr.run(study, folder / "run", progress=False)
    return folder / "run"


def test_a_real_run_becomes_an_entry_without_its_places(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "leaderboard", "add", tiny, tmp_path / "entries", "--name", "mine")
    assert (code, err) == (0, "")
    entry = tmp_path / "entries" / "mine"
    assert out.strip() == str(entry)
    for path in entry.iterdir():
        assert str(tiny.parent).encode() not in path.read_bytes(), path.name
    assert check_entry(entry).faults == check_entry(tiny).faults == ()
    code, out, err = call(capsys, "leaderboard", "build", tmp_path / "entries", "--out", tmp_path / "site")
    assert (code, err) == (0, "")
    assert "not ranked: weight_averaging+bit_depth of mine: defended, and not shown to be" in out
    (table,) = mr.leaderboard(tmp_path / "entries").tables
    assert [row.method for row in table.rows] == ["weight_averaging"]
    (left_out,) = table.unranked  # six images are too few for any check
    assert left_out.method == "weight_averaging+bit_depth"
    assert left_out.reason.startswith("defended, and not shown to be: transfer_is_no_stronger, ")
    code, _, err = call(capsys, "leaderboard", "add", tiny, tmp_path / "entries", "--name", "mine")
    assert code == 2
    assert "there is such an entry" in err


@pytest.mark.slow
def test_an_audits_verdict_is_held_against_its_outcomes(tmp_path: Path) -> None:
    vit = save_tiny_vit(tmp_path / "vit")
    save_tiny_models(tmp_path, vit)
    np.savez(tmp_path / "stripes.npz", **arrays("stripes"))
    audit = mr.Audit.model_validate(
        {
            "base": str(vit), "ingredients": {"public": str(tmp_path / "public.safetensors")},
            "merged": str(tmp_path / "released.safetensors"), "images": {"stripes": str(tmp_path / "stripes.npz")},
            "heads": {"from": "linear_probe"}, "attacks": "fgsm", "budgets": {"epsilon": ["8/255"]}, "images_per_task": 12,
            "fail_if": ["asr >= 0% at 8/255"],
        }
    )  # fmt: skip
    mr.audit(audit, tmp_path / "out" / "audited", progress=False)
    entry = tmp_path / "out" / "audited"
    assert check_entry(entry).faults == ()
    change_json(entry / "audit.json", lambda content: content["gates"][0].update(failed=False))
    change_json(entry / "audit.json", lambda content: content["models"][0]["readings"][0].update(asr=0.001))
    faults = check_entry(entry).faults
    assert any("gate 'asr >= 0% at 8/255': by the outcomes merged fails it" in fault for fault in faults), faults
    assert any("readings[0].asr is 0.001, outcomes give" in fault for fault in faults), faults
