"""What a stage's key holds, and what it does not."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from mergerisk.study import load_study, make_plan
from mergerisk.study.keyed import Input, Keyed, unkeyed
from tests.study.plan_graphs import every_study
from tests.study.toy_stages import OtherToy, Toy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Part(Keyed):
    kind: ClassVar[str] = "part"

    models: Mapping[str, Input[Any] | None]
    place: str = unkeyed(default="here")


@dataclass(frozen=True, kw_only=True)
class Composed(Toy):
    part: Part
    numbers: tuple[float, ...] = (1.0, 2.0)


FIRST, SECOND = Input[Any]("aa"), Input[Any]("bb")
COMPOSED = Composed(label="x", needs=(FIRST,), part=Part(models={"one": FIRST, "two": SECOND, "base": None}))


def test_recipe_and_edges_are_read_off_the_fields() -> None:
    assert COMPOSED.inputs == {"needs/000": "aa", "part/models/one": "aa", "part/models/two": "bb"}
    assert COMPOSED.recipe == {
        "stage": "toy",
        "class": "Composed",
        "version": 1,
        "parameters": {
            "number": 0,
            "needs": ["needs/000"],
            "part": {"kind": "part", "models": ["models/one", "models/two", None]},
            "numbers": [1.0, 2.0],
        },
        "inputs": COMPOSED.inputs,
    }


@pytest.mark.parametrize(
    "changed",
    [
        replace(COMPOSED, number=1),
        replace(COMPOSED, numbers=(2.0, 1.0)),
        replace(COMPOSED, needs=(SECOND,)),
        replace(
            COMPOSED, part=Part(models={"two": SECOND, "one": FIRST, "base": None})
        ),  # the order is part of it
        replace(COMPOSED, part=Part(models={"one": SECOND, "two": FIRST, "base": None})),
        replace(COMPOSED, plugins=("a-package 1.0",)),
    ],
)
def test_a_key_follows_every_field(changed: Composed) -> None:
    assert changed.key != COMPOSED.key


@pytest.mark.parametrize(
    "changed",
    [
        replace(COMPOSED, label="y"),
        replace(COMPOSED, images={"forward": 7}),
        replace(COMPOSED, part=replace(COMPOSED.part, place="there")),
    ],
)
def test_a_key_knows_nothing_of_what_is_unkeyed(changed: Composed) -> None:
    assert changed.key == COMPOSED.key


def test_kinds_with_the_same_fields_differ() -> None:
    assert Toy(label="x").key != OtherToy(label="x").key


def test_every_stage_of_every_study_travels_to_a_worker(tmp_path: Path) -> None:
    for file in every_study(tmp_path).values():
        for stage in make_plan(load_study(file)).stages.values():
            there = pickle.loads(pickle.dumps(stage))  # our own
            assert type(there) is type(stage)
            assert (there.label, there.recipe, there.cost()) == (stage.label, stage.recipe, stage.cost())
            assert replace(there).key == stage.key  # computed there, not carried along
            assert {field.name for field in fields(there)} >= {"label", "plugins"}
