"""The plan: what shares work, what decides a key, and what the counts are."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from mergerisk.merging.catalogue import CORRECTIONS
from mergerisk.merging.surgery import Surgery
from mergerisk.study import Plan, make_plan, parse_study
from mergerisk.study.kinds.correct import Correct
from mergerisk.study.kinds.merge import Merge
from mergerisk.validation import hyperparameters
from tests.tiny import MINIMAL

if TYPE_CHECKING:
    from pathlib import Path


def plan(**changes: Any) -> Plan:
    return make_plan(parse_study(MINIMAL | changes))


def kinds(of: Plan) -> Counter[str]:
    return Counter(stage.kind for stage in of.stages.values())


def test_crafting_happens_once_whatever_the_number_of_targets() -> None:
    tasks = ["digits", "letters"]
    one = plan(tasks=tasks, budgets={"epsilon": [0.1, 0.2]})
    many = plan(tasks=tasks, budgets={"epsilon": [0.1, 0.2]}, merging=["ties", "task_arithmetic", "ties+surgery"])
    # tasks × surrogates × attacks × budgets
    assert kinds(one)["craft"] == kinds(many)["craft"] == 2 * 2 * 1 * 2
    assert {key for key, stage in one.stages.items() if stage.kind == "craft"} == {
        key for key, stage in many.stages.items() if stage.kind == "craft"
    }


def test_a_method_and_its_surgery_share_the_merge_and_the_forward_pass() -> None:
    found = kinds(plan(merging=["ties", "ties+surgery", "weight_averaging+surgery"]))
    assert found["merge"] == 2
    assert found["correct"] == 2
    # Encoders: pretrained, expert, two merges; surrogates: two.
    assert found["evaluate"] == 4 * 2
    assert found["clean"] == 4


def test_a_correction_inside_the_encoder_has_a_forward_pass_of_its_own() -> None:
    found = kinds(plan(merging=["ties", "ties+surgery", "ties+surgery_v2"]))
    assert found["merge"] == 1
    assert found["correct"] == 2
    # Encoders: pretrained, expert, the merge, the merge with what SurgeryV2 puts inside; surrogates: two.
    assert found["evaluate"] == 4 * 2


def test_a_correction_is_called_what_its_entry_says() -> None:
    """Whatever its class is called."""

    @CORRECTIONS.register("light_surgery")
    @hyperparameters
    class Light(Surgery):
        rank: int = 3

    try:
        merging = [{"method": "ties+light_surgery", "light_surgery": {"steps": 5}}]
        (stage,) = (stage for stage in plan(merging=merging).stages.values() if isinstance(stage, Correct))
    finally:
        CORRECTIONS.unregister("light_surgery")
    assert stage.correction == "light_surgery" != Light.name
    assert (stage.parameters["rank"], stage.parameters["steps"]) == (3, 5)


def test_the_seed_decides_merges_that_draw_at_random_and_no_others() -> None:
    stages = plan(merging=["ties", "dare", "fisher"]).stages.values()
    keyed = {stage.method: stage.seed is not None for stage in stages if isinstance(stage, Merge)}
    assert keyed == {"ties": False, "dare": True, "fisher": True}


def test_stages_come_after_their_inputs() -> None:
    found = plan(merging=["adamerging+surgery"], tasks=["digits", "letters"], seeds=[0, 1])
    seen: set[str] = set()
    for key, stage in found.stages.items():
        assert set(stage.inputs.values()) <= seen
        assert key == stage.key
        seen.add(key)


def test_seeds_replicate_what_is_random_and_share_what_is_not() -> None:
    one, two = kinds(plan()), kinds(plan(seeds=[0, 1]))
    assert two["task"] == one["task"]
    assert two["head"] == one["head"]
    assert two["expert"] == 2 * one["expert"]
    assert two["craft"] == 2 * one["craft"]


@pytest.mark.parametrize(
    ("changes", "same", "different"),
    [
        ({"images_per_task": 7}, {"expert", "merge"}, {"craft", "evaluate"}),
        ({"experts": {"fine_tune": {"epochs": 1}}}, {"task", "head"}, {"expert", "merge"}),
        ({"heads": {"regularization": 2.0}}, {"task"}, {"head", "expert", "merge"}),
        ({"name": "other", "description": "words"}, set(kinds(make_plan(parse_study(MINIMAL)))), set()),
        ({"merging": [{"method": "ties", "label": "renamed"}]}, {"merge", "craft", "evaluate"}, set()),
        ({"budgets": {"epsilon": ["3/255"]}}, {"expert", "merge"}, {"craft", "evaluate"}),
    ],
)
def test_keys_follow_what_a_stage_depends_on(changes: dict[str, Any], same: set[str], different: set[str]) -> None:
    def keys(of: Plan, kind: str) -> set[str]:
        return {key for key, stage in of.stages.items() if stage.kind == kind}

    before, after = plan(), plan(**changes)
    for kind in same:
        assert keys(before, kind) == keys(after, kind), kind
    for kind in different:
        assert not keys(before, kind) & keys(after, kind), kind


def test_an_experts_file_is_known_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "expert.safetensors"

    def key() -> str:
        found = plan(experts={"files": {"digits": str(file)}})
        return next(key for key, stage in found.stages.items() if stage.kind == "expert")

    file.write_bytes(b"one")
    first = key()
    file.write_bytes(b"two")
    assert key() != first
    file.write_bytes(b"one")
    assert key() == first


def test_the_work_of_crafting_is_its_gradients() -> None:
    found = plan(attacks=["fgsm", "i_fgsm"], images_per_task=10, budgets={"epsilon": [0.1], "steps": 7})
    gradients = Counter(stage.cost()["gradient"] for stage in found.stages.values() if stage.kind == "craft")
    assert gradients == {10: 2, 70: 2}
