"""Python as people write it: saved models, images and cells of a notebook, from a file to a rate."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mergerisk as mr
from mergerisk.models import extract_features
from mergerisk.registry import Entry, Registry
from tests.models.material import images, save_classifier
from tests.situations.situation import Situation, refusal
from tests.situations.test_own_models import classifier_beside
from tests.tiny import tiny_encoder, tiny_task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TASK = replace(tiny_task(), class_names=("red", "green", "blue", "black"))
BASE = tiny_encoder()
HEAD = mr.linear_probe(BASE, TASK)
SWAPPED = mr.Head(HEAD.weight.flip(0), HEAD.bias.flip(0), class_names=TASK.class_names[::-1])


def saved_models_to_a_rate(folder: Path) -> bool:
    save_classifier(folder / "base", "vit")
    for seed, name in enumerate(("one", "two"), 1):
        save_classifier(folder / name, "vit", seed=seed)
    base = mr.load_encoder(str(folder / "base"))
    experts = {name: mr.load_expert(base, folder / name) for name in ("one", "two")}
    head, _ = mr.checkpoint_head(str(folder / "one"))
    merged = mr.merging.create("weight_averaging").merge(base, experts)
    surrogate = mr.Classifier(experts["one"], head)
    labels = mr.transfer.predict(surrogate, images())
    found = mr.measure_transfer(
        surrogate,
        merged.classifier("one", head),
        images(),
        labels,
        "fgsm",
        epsilon=8 / 255,
        class_names=head.class_names,
    )
    mean = (
        mr.load_encoder(str(folder / "one")).state()["layernorm.weight"]
        + experts["two"].state()["layernorm.weight"]
    ) / 2
    return torch.allclose(merged.encoder.state()["layernorm.weight"], mean) and len(found.outcomes) == len(
        images()
    )


def merged_state_of_experts(folder: Path) -> bool:
    states = [tiny_encoder(seed).state() for seed in (1, 2)]
    for number, state in enumerate(states):
        save_file(state, folder / f"{number}.safetensors")
    experts = [mr.load_expert(BASE, folder / f"{number}.safetensors") for number in range(2)]
    merged = mr.merging.merge_state_dicts("weight_averaging", BASE, experts)
    again = mr.merging.merge_state_dicts("weight_averaging", BASE.state(), states)
    held = BASE.with_state(experts[0]).state()
    return all(
        torch.equal(merged[name], again[name]) and torch.equal(held[name], states[0][name]) for name in merged
    )


def merge_of_another_form(folder: Path) -> str:
    release = classifier_beside(folder, "release", {"hidden_act": "relu"})
    base = mr.load_encoder(str(folder / "base"))
    method = mr.merging.create("weight_averaging")
    return refusal(lambda: method.merge(base, {"a": base, "b": mr.load_sibling(base, release)}))


def merge_of_another_preprocessing(folder: Path) -> str:
    release = classifier_beside(folder, "release", {}, image_mean=[0.1, 0.9, 0.2])
    base = mr.load_encoder(str(folder / "base"))
    method = mr.merging.create("weight_averaging")
    own, in_the_base = mr.load_sibling(base, release), mr.load_expert(base, release, preprocessing="base")
    assert (
        method.merge(base, {"a": base, "b": in_the_base}).encoder.mean.flatten().tolist()
        == base.mean.flatten().tolist()
    )
    return refusal(lambda: method.merge(base, {"a": base, "b": own}))


def as_advised(_: Path) -> bool:
    """Whether the expert is the same once the head's classes were put into the task's order."""
    quick = mr.FineTuning(epochs=1)
    assert "head.for_classes(task.class_names)" in refusal(lambda: mr.fine_tune(BASE, SWAPPED, TASK, recipe=quick))
    found = mr.fine_tune(BASE, SWAPPED.for_classes(TASK.class_names), TASK, recipe=quick).state()
    expected = mr.fine_tune(BASE, HEAD, TASK, recipe=quick).state()
    return all(torch.equal(found[name], expected[name]) for name in expected)


def head_of_other_classes(_: Path) -> str:
    other = HEAD.named(("cat", "dog", "owl", "fox"))
    return refusal(lambda: mr.fine_tune(BASE, other, TASK))


def renamed_as_advised(_: Path) -> bool:
    other = HEAD.named(("cat", "dog", "owl", "fox"))
    other.named(TASK.class_names).check_task(TASK)
    return torch.equal(other.named(TASK.class_names).weight, HEAD.weight)


def pixels(call: Callable[[torch.Tensor], Any], factor: float = 255.0) -> Callable[[Path], str]:
    return lambda _: refusal(lambda: call(TASK.test.images * factor))


def calibrated(method: str) -> Callable[[torch.Tensor], Any]:
    def merge(given: torch.Tensor) -> Any:
        read = {name: mr.merging.Calibration(given, HEAD) for name in ("a", "b")}
        return mr.merging.create(method).merge(
            BASE, {"a": tiny_encoder(1), "b": tiny_encoder(2)}, calibration=read
        )

    return merge


def measured(given: torch.Tensor) -> Any:
    model = mr.Classifier(BASE, HEAD)
    return mr.measure_transfer(model, model, given, TASK.test.labels, "fgsm", epsilon=0.1)


def in_training_mode(_: Path) -> tuple[bool, bool]:
    """Whether a network with dropout says what it says in evaluation mode, and is left in training mode."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Dropout(0.5), nn.Linear(32, 4))
    trained = mr.transfer.predict(model.train(), TASK.test.images)
    left = all(module.training for module in model.modules())
    return torch.equal(trained, mr.transfer.predict(model.eval(), TASK.test.images)), left


CELL = """
@registry.register("mine", summary="{summary}")
class Mine:
    value = {value}
"""


def cell_run_twice(_: Path) -> tuple[list[str], int, str]:
    registry: Registry[Any] = Registry("attack", "mergerisk.nothing", [Entry("built_in", "a:b", "")])
    names = {"registry": registry, "__name__": "__main__"}
    exec(CELL.format(summary="first", value=1), names)
    exec(CELL.format(summary="second", value=2), names)
    return registry.names(), registry.load("mine").value, registry.check("mine").summary


def taken_by_another(_: Path) -> str:
    registry: Registry[Any] = Registry("attack", "mergerisk.nothing", [Entry("built_in", "a:b", "")])
    registry.register("mine")(dict)
    return refusal(lambda: registry.register("mine")(list)) + refusal(lambda: registry.register("built_in")(list))


SHOWN = {
    "task": TASK,
    "split": TASK.test,
    "images": mr.load_task("digits").test,
    "registry": Registry("toy", "mergerisk.nothing", [Entry("a", "a:b", ""), Entry("b", "a:b", "")]),
    "head": HEAD,
    "calibration": mr.merging.Calibration(TASK.test.images, HEAD),
    "merge": mr.merging.create("weight_averaging").merge(BASE, {"a": tiny_encoder(1), "b": tiny_encoder(2)}),
}

WANTED = {
    "attacks", "audit", "claims", "compare", "export_report", "load_audit", "load_classifier", "load_run",
    "measure_transfer", "merging", "models", "plan", "run", "statistics", "tasks", "transfer", "validate",
}  # fmt: skip

IN_BYTES = re.compile(r"pixels must lie in \[0, 1\], found .* to 2\d\d.*; divide 8-bit images by 255$")
NORMALISED = re.compile(
    r"found -[\d.]+ to [-\d.e]+; give them as they are before normalising, which models do themselves"
)

SITUATIONS = (
    Situation("folders with two experts, a merge of them, a rate", saved_models_to_a_rate, True),
    Situation("experts from files as plain parameters", merged_state_of_experts, True),
    Situation(
        "an expert that was trained with another activation is merged",
        merge_of_another_form,
        re.compile(
            r"^expert 'b': hidden_act is 'relu', 'gelu' in the base; weights that are merged must compute in one"
        ),
    ),
    Situation(
        "an expert that normalises otherwise is merged, then loaded as advised",
        merge_of_another_preprocessing,
        re.compile(r"^expert 'b': image_mean is \[0\.1.*preprocessing='base'"),
    ),
    Situation("a head whose classes have the task's names in another order", as_advised, True),
    Situation(
        "a head of other classes",
        head_of_other_classes,
        re.compile(
            r"^head: no class 'red', which task 'tiny' has; its 4 classes are called 'cat', 'dog', 'owl', …; .*named"
        ),
    ),
    Situation("a head of the same classes under other names", renamed_as_advised, True),
    Situation(
        "a head with fewer classes than the task",
        lambda _: refusal(lambda: mr.fine_tune(BASE, mr.Head(HEAD.weight[:3], HEAD.bias[:3]), TASK)),
        re.compile(r"^head: 3 classes, task 'tiny' has 4"),
    ),
    Situation(
        "a head of another width",
        lambda _: refusal(lambda: mr.Classifier(BASE, mr.Head(torch.ones(4, 7), torch.ones(4)))),
        re.compile("the head takes 7 features, the encoder gives 6"),
    ),
    Situation(
        "pictures from 0 to 255 predicted",
        pixels(lambda x: mr.transfer.predict(mr.Classifier(BASE, HEAD), x)),
        IN_BYTES,
    ),
    Situation(
        "pictures from 0 to 255 given to a classifier", pixels(lambda x: mr.Classifier(BASE, HEAD)(x)), IN_BYTES
    ),
    Situation("pictures from 0 to 255 measured", pixels(measured), IN_BYTES),
    Situation("features of pictures from 0 to 255", pixels(lambda x: extract_features(BASE, x)), IN_BYTES),
    Situation("calibration with pictures from 0 to 255", pixels(calibrated("regmean")), IN_BYTES),
    Situation(
        "a black box is asked about pictures from 0 to 255",
        pixels(lambda x: mr.transfer.CallableTarget(lambda y: y.new_zeros(len(y)).long(), "abcd").predict(x)),
        IN_BYTES,
    ),
    Situation(
        "normalised pictures predicted",
        pixels(lambda x: mr.transfer.predict(mr.Classifier(BASE, HEAD), x - 0.5), 1.0),
        NORMALISED,
    ),
    Situation(
        "bytes given to an encoder",
        lambda _: refusal(lambda: BASE((TASK.test.images * 255).byte())),
        re.compile(r"must be floating point, in \[0, 1\], got torch.uint8; divide 8-bit images by 255"),
    ),
    Situation("a network in training mode is predicted with", in_training_mode, (True, True)),
    Situation("a cell that registers a class is run twice", cell_run_twice, (["built_in", "mine"], 2, "second")),
    Situation(
        "a name that another class has",
        taken_by_another,
        re.compile("attack 'mine' is registered already.*attack 'built_in' is registered already"),
    ),
    Situation(
        "a task, a split, a registry, a head, calibration, a merge are looked at",
        lambda _: [name for name, it in SHOWN.items() if len(repr(it)) > 110 or "tensor(" in repr(it)],
        [],
    ),
    Situation("what attacks there are", lambda _: list(SHOWN["registry"]), ["a", "b"]),  # type: ignore[call-overload]
    Situation("what mergerisk can do, by tab", lambda _: WANTED - set(dir(mr)), set()),
    Situation(
        "an audit by one call, whatever was imported before",
        lambda folder: refusal(lambda: mr.audit(folder / "audit.yaml")),  # type: ignore[operator]
        re.compile(r"audit\.yaml: no such file"),
    ),
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_python_road(situation: Situation, tmp_path: Path) -> None:
    situation.check(tmp_path)
