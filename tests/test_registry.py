"""Names, third parties, and messages that help."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mergerisk import attacks, merging
from mergerisk.errors import UserError, did_you_mean
from mergerisk.registry import Entry, Registry, plugins
from mergerisk.study.fields.named import AttackSpec
from mergerisk.study.planning.attacks import plan_attack

MIXED = {"attack": "mi_fgsm", "inputs": [{"input": "ssa"}]}


def test_near_names_are_suggested() -> None:
    assert did_you_mean("mi_fgms", ["fgsm", "mi_fgsm"]) == " (did you mean 'mi_fgsm'?)"
    assert did_you_mean("zzz", ["b", "a"]) == " (known: a, b)"


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("mi_fgms", {}, "unknown attack 'mi_fgms' (did you mean 'mi_fgsm'?)"),
        ("mi_fgsm", {"step": 3}, "attack 'mi_fgsm': step: unknown field (did you mean 'steps'?)"),
        ("mi_fgsm", {"steps": 0}, "attack 'mi_fgsm': steps: input should be greater than 0, got 0"),
        ("mi_fgsm", {"decay": float("nan")}, "attack 'mi_fgsm': decay: must be a finite number, got nan"),
        ("ti_fgsm", {"kernel_size": 4}, "attack 'ti_fgsm': kernel_size must be odd, got 4"),
        ("di_fgsm", {"probability": 1.5}, "probability: input should be less than or equal to 1, got 1.5"),
    ],
)
def test_wrong_hyperparameters_of_attacks(name: str, parameters: dict[str, float], message: str) -> None:
    with pytest.raises(UserError) as caught:
        attacks.create(name, **parameters)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("tie", {}, "unknown merging method 'tie' (did you mean 'ties'?)"),
        ("ties+surgry", {}, "unknown correction 'surgry' (did you mean 'surgery'?)"),
        ("ties+surgery+surgery", {}, "at most one correction"),
        ("ties", {"density": 0}, "merging method 'ties': density: input should be greater than 0, got 0"),
        ("ties", {"variant": "max"}, "variant: input should be 'mean' or 'sum', got 'max'"),
        (
            "ties+surgery",
            {"surgery": {"rnk": 4}},
            "correction 'surgery': rnk: unknown field (did you mean 'rank'?)",
        ),
    ],
)
def test_wrong_hyperparameters_of_methods(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        merging.create(name, **parameters)
    assert message in str(caught.value)


def test_every_built_in_entry_loads_and_has_defaults() -> None:
    for entry in attacks.ATTACKS.entries():
        assert entry.summary
        assert entry.paper
        if entry.name not in {"universal", "stm"}:  # they have to be given a file, a network
            assert attacks.create(entry.name).gradients_per_image >= 1
    for entry in merging.METHODS.entries():
        assert isinstance(merging.create(entry.name), merging.MergingMethod)
        assert isinstance(merging.create(f"{entry.name}+surgery"), merging.Stacked)


def test_a_decorator_adds_an_entry_that_can_be_made() -> None:
    registry: Registry[type] = Registry("toy", "mergerisk.tests.toys", [Entry("a", "builtins:dict", "a toy")])

    @registry.register("b", summary="another toy")
    @dataclass
    class Other:
        size: int = 1

    assert registry.names() == ["a", "b"]
    assert registry.create("b", {"size": 3}) == Other(3)
    with pytest.raises(UserError, match="registered already"):
        registry.register("a")(dict)
    registry.unregister("b")
    assert registry.names() == ["a"]


def test_what_computes_something_else_under_the_same_name_is_told_apart() -> None:
    first, second = Entry("a", "builtins:dict", "a toy"), Entry("b", "builtins:dict", "a toy", revision=2)
    installed = Entry("c", "builtins:dict", "a toy", distribution="toys 1.0")
    assert plugins(first) == ()  # so that keys from before there were revisions stay
    assert plugins(installed, second, first, second) == ("b, revision 2", "toys 1.0")


def test_an_attack_is_planned_with_the_revisions_of_its_parts() -> None:
    revised = [plan_attack(AttackSpec.model_validate(attack), ()).plugins for attack in ("ssa", MIXED)]
    assert revised == [("ssa, revision 2",)] * 2
    assert plan_attack(AttackSpec.model_validate("mi_fgsm"), ()).plugins == ()
