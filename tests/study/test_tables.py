"""Tables that studies ask for: under names that are theirs alone, and files'."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
import pytest

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.study import load_run, make_plan, parse_study
from mergerisk.study.further import TABLES
from mergerisk.study.tables.declared import Column, Declared
from mergerisk.study.tables.table import RunTable
from tests.tiny import MINIMAL, write_tiny_study

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from mergerisk.study.plan import Piece
    from mergerisk.study.tables.gathered import Gathered


class Counted(RunTable):
    """How many stages there are."""

    declared: ClassVar[Declared] = Declared("counted", "run", (Column("stages", "number", "of the plan"),))

    def collect(self, gathered: Gathered, pieces: Iterable[Piece]) -> pd.DataFrame:
        del pieces
        return pd.DataFrame({"stages": [len(gathered.plan.stages)]})


class SecondOutcomes(Counted):
    """Another table under the name of one that every run leaves."""

    declared: ClassVar[Declared] = Declared("outcomes", "run", Counted.declared.columns)


@pytest.fixture
def named() -> Iterator[None]:
    for name, table in (("counted", Counted), ("twice", Counted), ("second_outcomes", SecondOutcomes)):
        TABLES.register(name)(table)
    yield
    for name in ("counted", "twice", "second_outcomes"):
        TABLES.unregister(name)


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize(
    ("tables", "clash"), [(["second_outcomes"], "outcomes"), (["counted", "twice"], "counted")]
)
def test_no_table_takes_the_place_of_another(tables: list[str], clash: str) -> None:
    with pytest.raises(UserError, match=f"a run has a table '{clash}' already"):
        make_plan(parse_study(MINIMAL | {"tables": tables}))


@pytest.mark.parametrize("name", ["../outside", "a/b", "", "two words", ".hidden"])
def test_a_tables_name_is_one_of_a_file(name: str) -> None:
    with pytest.raises(ValueError, match="a table's name must be a word"):
        Declared(name, "run", ())


@pytest.mark.usefixtures("named")
def test_a_record_that_names_a_table_outside_its_folder_is_damaged(tiny_vit: Path, tmp_path: Path) -> None:
    changes = {"merging": ["weight_averaging"], "attacks": ["fgsm"], "surrogates": ["expert"]}
    study = write_tiny_study(tmp_path, tiny_vit, tables=["counted"], **changes)
    run = tmp_path / "run"
    mr.run(study, run, workers=1, progress=False)
    assert [kept.declared.name for kept in load_run(run).further] == ["counted"]
    record = json.loads((run / "run.json").read_text())
    record["tables"]["../counted"] = record["tables"].pop("counted")
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"run\.json: 'tables' is not what it should be"):
        load_run(run)
