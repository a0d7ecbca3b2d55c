"""Studies are planned as they were: the same stages, made from the same, with the same work, whatever their keys."""

from __future__ import annotations

import pytest

from tests.study.plan_graphs import GRAPHS, SHIPPED, graphs


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return graphs(tmp_path_factory.mktemp("studies"))


@pytest.mark.parametrize("name", [*SHIPPED, "every_model", "own_files", "zero_shot", "checkpoint"])
def test_a_studys_graph_is_the_one_on_record(name: str, planned: dict[str, str]) -> None:
    assert planned[name].splitlines() == (GRAPHS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def test_every_graph_on_record_is_compared(planned: dict[str, str]) -> None:
    assert {file.stem for file in GRAPHS.iterdir()} == planned.keys()
