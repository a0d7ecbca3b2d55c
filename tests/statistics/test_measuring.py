"""Transfer measured in one call, against counting by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch

import mergerisk as mr
from mergerisk.models.sources.classifiers import LoadedClassifier
from tests.tiny import tiny_encoder, tiny_task

if TYPE_CHECKING:
    from mergerisk.statistics.measured import Rate

PLAIN = tiny_task(count=160)
TASK = replace(PLAIN, class_names=("cat", "dog", "owl", "fox"))
HEAD = mr.linear_probe(tiny_encoder(), TASK)
SURROGATE = mr.Classifier(tiny_encoder(), HEAD)
TARGET = mr.Classifier(tiny_encoder(1), HEAD)
BUDGETS = [0.02, 0.08, 0.2]
Z = 1.959963984540054


def measured(target: Any = TARGET, attack: Any = "mi_fgsm", surrogate: Any = SURROGATE, **options: Any) -> Any:
    options = {"epsilon": BUDGETS, "class_names": TASK.class_names} | options
    return mr.measure_transfer(surrogate, target, TASK.test.images, TASK.test.labels, attack, **options)


def said(model: torch.nn.Module, images: torch.Tensor) -> list[int]:
    found: list[int] = model(images).argmax(dim=1).tolist()
    return found


def counts_by_hand(epsilon: float) -> tuple[int, int, int, int]:
    """Images that count, those that fool the target, the surrogate, and all that the target gets wrong."""
    images, labels = TASK.test.images, TASK.test.labels
    adversarial = mr.attacks.create("mi_fgsm")(SURROGATE, images, labels, epsilon=epsilon)
    rows = zip(
        labels.tolist(),
        said(SURROGATE, images),
        said(TARGET, images),
        said(SURROGATE, adversarial),
        said(TARGET, adversarial),
        strict=True,
    )
    kept = fooled = own = wrong = 0
    for label, surrogate, target, surrogate_after, target_after in rows:
        wrong += target_after != label
        if surrogate == target == label:
            kept += 1
            fooled += target_after != label
            own += surrogate_after != label
    return kept, fooled, own, wrong


def inside_wilson(p: float, successes: int, trials: int) -> bool:
    return abs(successes / trials - p) <= Z * math.sqrt(p * (1 - p) / trials)


def check_share(rate: Rate, successes: int, trials: int) -> None:
    assert rate.images == trials
    assert math.isclose(rate.value, successes / trials)
    # The ends are where the score test turns: inside it holds, outside it does not.
    for end, outwards in ((rate.low, -1), (rate.high, 1)):
        if 0 < end < 1:
            assert inside_wilson(end - outwards * 1e-6, successes, trials)
            assert not inside_wilson(end + outwards * 1e-6, successes, trials)


def test_rates_are_those_counted_by_hand() -> None:
    found = measured()
    rates = []
    for epsilon in BUDGETS:
        kept, fooled, own, wrong = counts_by_hand(epsilon)
        assert 20 < kept < len(TASK.test)
        check_share(found.asr(epsilon), fooled, kept)
        check_share(found.surrogate_asr(epsilon), own, kept)
        check_share(found.asr_all(epsilon), wrong, len(TASK.test))
        assert math.isclose(found.relative_asr(epsilon).value, fooled / own)
        assert found.relative_asr(epsilon).low < fooled / own < found.relative_asr(epsilon).high
        rates.append(fooled / kept)
    assert rates[0] < 0.5 < rates[-1], "ε50 would not be measured"
    after = next(place for place, rate in enumerate(rates) if rate >= 0.5)
    (x0, x1), (y0, y1) = BUDGETS[after - 1 : after + 1], rates[after - 1 : after + 1]
    assert math.isclose(found.epsilon50.value, x0 * (x1 / x0) ** ((0.5 - y0) / (y1 - y0)))
    assert found.epsilon50.low < found.epsilon50.value < found.epsilon50.high
    assert len(found.outcomes) == len(BUDGETS) * len(TASK.test)
    pd.testing.assert_frame_equal(mr.statistics.rate_table(found.outcomes), found.rates)


def test_batches_and_order_change_nothing() -> None:
    whole = measured(attack=mr.attacks.create("pgd", steps=3), seed=5).outcomes
    pd.testing.assert_frame_equal(
        measured(attack=mr.attacks.create("pgd", steps=3), seed=5, batch_size=7).outcomes, whole
    )
    some = torch.tensor([31, 4, 77])
    images, labels = TASK.test.images[some], TASK.test.labels[some]
    part = mr.measure_transfer(
        SURROGATE, TARGET, images, labels, mr.attacks.create("pgd", steps=3), epsilon=0.08, seed=5, indices=some
    ).outcomes
    same = whole[(whole["epsilon"] == 0.08) & whole["image"].isin(some.tolist())].set_index("image")
    pd.testing.assert_frame_equal(part.set_index("image"), same.loc[some.tolist()])


def test_several_targets_are_asked_about_the_same_images_which_are_crafted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attack = mr.attacks.create("pgd", steps=2)
    crafted, craft = [], type(attack).craft

    def counted(self: Any, *given: Any, **options: Any) -> Any:
        crafted.append(options["epsilon"])
        return craft(self, *given, **options)

    monkeypatch.setattr(type(attack), "craft", counted)
    box = mr.transfer.CallableTarget(lambda images: SURROGATE(images), TASK.class_names)
    models = {"one": TARGET, "box": box, "turned": mr.Classifier(tiny_encoder(2), renamed([2, 0, 3, 1]))}
    images, labels = TASK.test.images, TASK.test.labels
    options: Any = {"epsilon": BUDGETS, "class_names": TASK.class_names, "seed": 3}
    found = mr.measure_transfers(SURROGATE, models, images, labels, attack, **options)
    assert crafted == BUDGETS
    assert [*found] == [*models]
    for name, one in found.items():
        alone = mr.measure_transfer(SURROGATE, models[name], images, labels, attack, **options)
        assert set(one.outcomes["target"]) == {name}
        pd.testing.assert_frame_equal(one.outcomes.drop(columns="target"), alone.outcomes.drop(columns="target"))
    bad = models | {"turned": mr.Classifier(tiny_encoder(), renamed([0, 1, 2]))}
    with pytest.raises(mr.UserError, match="turned: no class 'fox', which the task has"):
        mr.measure_transfers(SURROGATE, bad, images, labels, attack, **options)
    with pytest.raises(mr.UserError, match="there is no target to attack"):
        mr.measure_transfers(SURROGATE, {}, images, labels, attack, **options)


def renamed(order: list[int], names: list[str] | None = None) -> mr.Head:
    """The head with its rows in another order, or with other names."""
    names = [TASK.class_names[row] for row in order] if names is None else names
    return mr.Head(HEAD.weight[order], HEAD.bias[order], class_names=names)


@pytest.mark.parametrize("attack", ["mi_fgsm", mr.attacks.create("mi_fgsm", targeted=True)])
def test_classes_in_another_order_are_matched_by_name(attack: Any) -> None:
    order = [2, 0, 3, 1]
    target = mr.Classifier(tiny_encoder(1), renamed(order))
    expected = measured(attack=attack).outcomes
    assert (expected["target_clean"] == expected["label"]).mean() > 0.3
    pd.testing.assert_frame_equal(measured(target, attack).outcomes, expected)
    surrogate = mr.Classifier(tiny_encoder(), renamed(order))
    if attack == "mi_fgsm":  # a targeted one draws its targets by row
        pd.testing.assert_frame_equal(measured(attack=attack, surrogate=surrogate).outcomes, expected)
    else:
        aims = torch.tensor(expected[expected["epsilon"] == BUDGETS[0]]["aimed_at"].to_numpy())
        again = measured(attack=attack, surrogate=surrogate, targets=aims).outcomes
        pd.testing.assert_frame_equal(again, expected)


def test_a_black_box_and_a_whole_classifier_are_targets() -> None:
    expected = measured().outcomes
    box = mr.transfer.CallableTarget(lambda images: TARGET(images), TASK.class_names)
    pd.testing.assert_frame_equal(measured(box).outcomes, expected)
    pd.testing.assert_frame_equal(measured(LoadedClassifier(TARGET, TASK.class_names)).outcomes, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"target": mr.Classifier(tiny_encoder(), renamed([0, 1, 2]))},
            "target: no class 'fox', which the task has",
        ),
        (
            {"target": mr.Classifier(tiny_encoder(), renamed([0, 1, 2], ["a", "b", "c"])), "class_names": None},
            "target: no class 'cat', which the task has; its 3 classes are called 'a', 'b', 'c'; rename",
        ),
        ({"class_names": ["cat", "dog", "owl"]}, "surrogate: 4 classes, 'fox' (row 3) among them; the task has 3"),
        ({"epsilon": []}, "epsilon must be above 0, one budget or several"),
        ({"epsilon": [0.1, 0.0]}, "epsilon must be above 0"),
        ({"epsilon": [0.1, 8.0]}, "epsilon must lie in [0, 1]"),
        ({"attack": "mi_fgms"}, "did you mean 'mi_fgsm'?"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(mr.UserError, match=re.escape(message)):
        measured(**change)


def test_unnamed_models_must_have_as_many_classes() -> None:
    bare = [mr.Classifier(tiny_encoder(), mr.Head(HEAD.weight[:n], HEAD.bias[:n])) for n in (4, 3)]
    with pytest.raises(mr.UserError, match="target: 3 classes, the task has 4"):
        measured(bare[1], surrogate=bare[0], class_names=None)


def test_what_is_shown_states_n_and_interval() -> None:
    found = measured()
    title, header, *rows, half = repr(found).splitlines()
    assert title.startswith("Transfer of mi_fgsm, linf; clean accuracy: surrogate 0.")
    assert header.split()[:2] == ["budget", "ASR"]
    kept = counts_by_hand(BUDGETS[0])[0]
    assert [row.count(f"] of {kept}") for row in rows] == [3, 3, 3]
    assert half.startswith("ε50 ")
    with pytest.raises(mr.UserError, match=r"measured at 3 budgets, .*; say at which"):
        found.asr()
    with pytest.raises(mr.UserError, match=r"not measured at 127\.5/255"):
        found.asr(0.5)
    assert str(measured(epsilon=0.08).asr()) == str(found.asr(0.08))


def test_where_nothing_counts_there_is_no_rate() -> None:
    wrong = mr.Classifier(tiny_encoder(), mr.Head(0 * HEAD.weight, torch.tensor([0.0, 0, 0, 1])))
    three = TASK.test.labels != 3
    found = mr.measure_transfer(
        SURROGATE, wrong, TASK.test.images[three], TASK.test.labels[three], "fgsm", epsilon=BUDGETS
    )
    assert math.isnan(found.asr(0.08).value)
    assert "– of 0" in repr(found)
    assert found.epsilon50.status == "no_images"
