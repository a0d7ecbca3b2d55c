"""Tables that other people wrote: columns recognised, units by their names, mistakes in one line."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mergerisk.errors import UserError
from mergerisk.statistics import recognise, tables_from_rates

ROW = {"task": "digits", "attack": "fgsm", "surrogate": "expert", "target": "ties"}


@pytest.mark.parametrize(
    "name", ["asr_all_percent", "ASR_all (%)", "asr-all pct", "Asr All %", "asr_all, in percent"]
)
def test_percent_is_read_from_the_name(name: str) -> None:
    found = recognise(pd.DataFrame([ROW | {name: 56.75}]), "t.csv")
    assert found["asr_all"].tolist() == [0.5675]


@pytest.mark.parametrize(
    "name", ["eps_255", "eps/255", "eps (1/255)", "eps x255", "eps_255ths", "eps (in 255ths)"]
)
def test_255ths_are_read_from_the_name(name: str) -> None:
    found = recognise(pd.DataFrame([ROW | {"asr": 0.5, name: 8}]), "t.csv")
    assert found["epsilon"].tolist() == pytest.approx([8 / 255])


@pytest.mark.parametrize("column", ["asr", "asr_all", "surrogate_asr", "accuracy", "Clean Accuracy"])
def test_a_rate_that_is_no_share_is_told_its_own_name(column: str) -> None:
    row = ROW | {"asr": 0.5} | {column: 56.75}
    with pytest.raises(UserError, match=f"name it so: {column}_percent$"):
        recognise(pd.DataFrame([row]), "t.csv")


def test_common_names_and_units_of_budgets() -> None:
    frame = pd.DataFrame(
        {
            "Dataset": ["a"],
            "Attack": ["x"],
            "Source Model": ["s"],
            "Victim": ["v"],
            "eps_255": [8],
            "asr": [0.5],
            "N": [10],
        }
    )
    found = recognise(frame, "t.csv")
    assert found.iloc[0].to_dict() == {
        "task": "a", "attack": "x", "surrogate": "s", "target": "v",
        "epsilon": pytest.approx(8 / 255), "images": 10, "asr": 0.5,
    }  # fmt: skip
    fractions = recognise(
        pd.DataFrame([ROW | {"epsilon": "8/255", "asr": 1}, ROW | {"epsilon": "0.5", "asr": 1}]), "t"
    )
    assert fractions["epsilon"].tolist() == pytest.approx([8 / 255, 0.5])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ROW | {"asr": 56.75},
            "t.csv: column 'asr': row 1 must lie in [0, 1], got 56.75; if it is in percent, name it so",
        ),
        (ROW | {"asr_percent": 101}, "must lie in [0, 100], got 101"),
        (ROW | {"asr": "high"}, "column 'asr': row 1 is no number: 'high'"),
        (ROW | {"asr": -0.1}, "must lie in [0, 1], got -0.1"),
        (ROW | {"asr": 0.5, "images": 2.5}, "must be a whole number, from 0 to 1e+15, got 2.5"),
        (ROW | {"asr": 0.5, "images": 1e30}, "must be a whole number, from 0 to 1e+15, got 1e+30"),
        (ROW | {"asr": 0.5, "ASR": 0.5}, "columns 'asr' and 'ASR' both say asr"),
        (ROW | {"ars": 0.5}, "no column of rates (asr, asr_all or asr_all_percent) (is it 'ars'?)"),
        (ROW | {"asr": 0.5, "epsilon": "x"}, "must be a number or a fraction"),
        (ROW | {"asr": 0.5, "target": None}, "column 'target': row 1 is empty"),
        ({"tasks": "a", "attack": "x", "surrogate": "s", "target": "t", "asr": 0.5}, "no column for the task"),
    ],
)
def test_mistakes_are_one_line(row: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        recognise(pd.DataFrame([row]), "t.csv")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_given_twice_and_an_empty_table_are_refused() -> None:
    with pytest.raises(
        UserError, match="task digits, attack fgsm, surrogate expert, target ties, seed 0 is given twice"
    ):
        tables_from_rates(pd.DataFrame([ROW | {"asr": 0.5}] * 2))
    with pytest.raises(UserError, match="its column of rates is empty"):
        tables_from_rates(pd.DataFrame([ROW | {"asr": np.nan}]))
    with pytest.raises(UserError, match="holds no rows"):
        tables_from_rates(pd.DataFrame(columns=["task"]))


def test_the_surrogates_own_rate_is_its_row_as_a_target() -> None:
    rows = [ROW | {"asr_all": 0.4}, ROW | {"target": "expert", "asr_all": 0.8}]
    found = tables_from_rates(pd.DataFrame(rows)).rates.set_index("target")
    assert found.loc["ties", "relative_asr_all"] == pytest.approx(0.5)
    assert found.loc["ties", "delta_asr_all"] == pytest.approx(-40)
    assert np.isnan(found.loc["ties", "asr"])


def test_roles_and_corrections_come_from_names() -> None:
    targets = ["finetuned", "Pre-trained", "ties", "ties+surgery", "AdaMerging++"]
    found = tables_from_rates(pd.DataFrame([ROW | {"target": name, "asr": 0.5} for name in targets]))
    table = found.rates.set_index("target")
    assert table["target_role"].to_dict() == {
        "finetuned": "expert", "Pre-trained": "pretrained", "ties": "merge", "ties+surgery": "merge", "AdaMerging++": "merge",
    }  # fmt: skip
    assert table.loc["ties+surgery", ["method", "correction"]].tolist() == ["ties", "surgery"]
    assert table.loc["AdaMerging++", "correction"] == "none"


def test_of_several_steps_the_last_counts() -> None:
    rows = [ROW | {"steps": steps, "asr": steps / 10} for steps in (1, 5)]
    found = tables_from_rates(pd.DataFrame(rows))
    assert found.rates["asr"].tolist() == [0.5]
    assert "largest number of steps" in found.notes[0]
