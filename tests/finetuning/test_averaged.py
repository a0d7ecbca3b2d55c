"""Averages of checkpoints against a loop that is written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mergerisk.finetuning import Collecting, average_checkpoints, linear_probe
from mergerisk.models.core.classifier import Head
from mergerisk.randomness import generator
from mergerisk.store.keys import content_key
from mergerisk.study.backbone import Backbone
from mergerisk.study.keyed import Input
from mergerisk.study.kinds.average import Average
from mergerisk.tasks import Split, Task
from mergerisk.tasks.task import select_unbalanced
from tests.merging.test_batch_norm import conv_encoder
from tests.tiny import tiny_encoder, tiny_task


@pytest.mark.parametrize(("batch", "per_epoch", "ends"), [(8, 2, {3, 5}), (16, 4, {1, 2, 3}), (40, 1, {1})])
def test_the_average_is_of_equally_distant_checkpoints(batch: int, per_epoch: int, ends: set[int]) -> None:
    """Of every epoch of 40 images; SGD with momentum and weight decay by hand, at a rate that never falls."""
    start, task = tiny_encoder(), tiny_task(count=40)
    head = linear_probe(start, task)
    recipe = Collecting(
        epochs=3, learning_rate=0.05, batch_size=batch, momentum=0.8, weight_decay=0.01, per_epoch=per_epoch
    )
    found = average_checkpoints(start, head, task, recipe=recipe, seed=5).state()

    before = {name: tensor.clone() for name, tensor in start.state().items()}
    encoder = start.with_state({name: tensor.clone() for name, tensor in before.items()})
    weights = {name: p.requires_grad_() for name, p in encoder.named_parameters()}
    speed = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    draws, passed = generator(5, "average_checkpoints", task.name), []
    for _ in range(3):
        for step, rows in enumerate(torch.randperm(40, generator=draws).split(batch), start=1):
            loss = F.cross_entropy(head(encoder(task.train.images[rows])), task.train.labels[rows])
            gradients = torch.autograd.grad(loss, [*weights.values()])
            with torch.no_grad():
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                    speed[name] = 0.8 * speed[name] + gradient + 0.01 * weight
                    weight -= 0.05 * speed[name]
            if step in ends:
                passed.append({name: weight.detach().clone() for name, weight in encoder.state().items()})
    assert len(passed) == 3 * len(ends)
    for name, tensor in found.items():
        expected = torch.stack([state[name].double() for state in passed]).mean(dim=0)
        # Sums in float32 of up to 15 steps, in another order.
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(start.state()[name], before[name])
    assert int(found["counter"]) == 7


def test_an_averages_statistics_are_those_of_its_own_activations() -> None:
    """As the attacker estimates them, on the images that they learnt from."""
    start = conv_encoder()
    draws = torch.Generator().manual_seed(0)
    split = Split(torch.rand(60, 3, 8, 8, generator=draws), torch.arange(60) % 3)
    task = Task("own", ("a", "b", "c"), split, split, split)
    head = Head(torch.randn(3, 5, generator=draws), torch.zeros(3))
    edge: Input[Any] = Input(content_key({}))
    stage = Average(
        label="own", task=edge, head=edge, backbone=Backbone({}, "own"), fine_tuned=edge, name="own", seed=0,
        collecting={"epochs": 1, "learning_rate": 0.1, "batch_size": 20}, images=60,
    )  # fmt: skip
    bench: Any = SimpleNamespace(
        model=lambda _backbone, _state: SimpleNamespace(encoder=start),
        head=lambda _: head,
        task=lambda _: task,
    )
    kept = {name: torch.from_numpy(array) for name, array in stage.run(bench).arrays.items()}
    made = start.with_state(kept)
    seen = made.backbone.conv1((split.images - 0.5) / 0.25)
    torch.testing.assert_close(kept["bn1.running_mean"], seen.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kept["bn1.running_var"], seen.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert not torch.equal(kept["conv1.weight"], start.state()["conv1.weight"])


def test_a_half_of_the_classes_makes_up_a_share() -> None:
    labels = torch.arange(5).repeat_interleave(torch.tensor([40, 40, 40, 40, 40]))[torch.randperm(200)]

    def left(minority: float, among: torch.Tensor = labels) -> list[int]:
        rows = select_unbalanced(among, 5, minority, torch.Generator().manual_seed(3))
        assert rows.tolist() == sorted(set(rows.tolist()))
        return among[rows].bincount(minlength=5).tolist()

    # Two of five classes are few: 120 images of the others stay, and 30 of theirs are a fifth of 150.
    fifth = left(0.2)
    assert sorted(fifth) == [15, 15, 40, 40, 40]
    # 120 : 120 would take more than there are, so that the others are thinned, to 80 in all.
    assert sorted(left(0.5)) == [26, 26, 26, 40, 40]
    few = [place for place, count in enumerate(fifth) if count == 15]
    assert [place for place, count in enumerate(left(0.5)) if count == 40] == few, "the same classes"
    without = labels[~torch.isin(labels, torch.tensor(few))]
    assert sorted(left(0.2, without)) == [0, 0, 40, 40, 40]


def test_a_half_of_the_classes_without_images_leaves_the_other_whole() -> None:
    labels = torch.zeros(6, dtype=torch.int64)
    for seed in range(4):  # whichever half is drawn
        rows = select_unbalanced(labels, 2, 0.25, torch.Generator().manual_seed(seed))
        assert rows.tolist() == list(range(6))
