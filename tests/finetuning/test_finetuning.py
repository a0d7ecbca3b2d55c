"""Heads and experts: they learn, they are reproducible, and they touch only what they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mergerisk.errors import UserError
from mergerisk.finetuning import FineTuning, fine_tune, linear_probe
from mergerisk.models import Classifier, extract_features
from mergerisk.tasks import Split, Task
from mergerisk.transfer import predict
from tests.tiny import tiny_encoder, tiny_task


def accuracy(classifier: Classifier, split: Split) -> float:
    return float((predict(classifier, split.images) == split.labels).float().mean())


def test_a_probe_is_the_minimum_of_the_penalised_loss() -> None:
    base, task = tiny_encoder(), tiny_task(count=80)
    head = linear_probe(base, task, regularization=0.5)
    features = extract_features(base, task.train.images).double()
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0) + 1e-6
    # Undo the folding: the probe was fitted on standardised features.
    weight = (head.weight.double() * std).requires_grad_()
    bias = (head.bias.double() + head.weight.double() @ mean).requires_grad_()
    logits = (features - mean) / std @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(logits, task.train.labels, reduction="sum")
    (loss + weight.square().sum() / (2 * 0.5)).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert float(weight.grad.abs().max()) < 0.02
    assert float(bias.grad.abs().max()) < 0.02


def test_a_probe_of_two_classes_has_two_rows_that_decide_alike() -> None:
    task = tiny_task(count=60, classes=2)
    head = linear_probe(tiny_encoder(), task)
    assert head.weight.shape == (2, 6)
    features = extract_features(tiny_encoder(), task.train.images).double().numpy()
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    expected = LogisticRegression(C=1.0, max_iter=2000).fit(scaled, task.train.labels.numpy())
    probabilities = head(extract_features(tiny_encoder(), task.train.images)).softmax(dim=1)
    np.testing.assert_allclose(probabilities.numpy(), expected.predict_proba(scaled), atol=1e-5)


def test_a_class_without_training_images_is_never_predicted() -> None:
    task = tiny_task(count=60)
    few = Task("few", (*task.class_names, "unseen"), task.train, task.test, task.calibration)
    predictions = predict(Classifier(tiny_encoder(), linear_probe(tiny_encoder(), few)), task.test.images)
    assert int(predictions.max()) <= 3


def test_an_expert_beats_the_base_and_leaves_base_and_head_alone() -> None:
    base, task = tiny_encoder(), tiny_task(count=200)
    head = linear_probe(base, task)
    before = {name: tensor.clone() for name, tensor in base.state().items()}
    weight = head.weight.clone()
    recipe = FineTuning(epochs=20, learning_rate=0.01, batch_size=32)
    expert = fine_tune(base, head, task, recipe=recipe)
    assert accuracy(Classifier(expert, head), task.test) > accuracy(Classifier(base, head), task.test) + 0.05
    assert torch.equal(head.weight, weight)
    for name, tensor in base.state().items():
        assert torch.equal(tensor, before[name])
    assert not any(parameter.requires_grad for parameter in expert.parameters())
    assert int(expert.state()["counter"]) == 7


def test_a_batch_that_memory_has_no_room_for_is_refused_before_training() -> None:
    base, task = tiny_encoder(), tiny_task()
    recipe = FineTuning(epochs=1, batch_size=2**32)
    with pytest.raises(
        UserError, match=rf"^fine-tuning on '{task.name}', {2**32} images at a time \(batch_size\), "
    ):
        fine_tune(base, linear_probe(base, task), task, recipe=recipe)


def test_fine_tuning_is_reproducible_and_seeded() -> None:
    base, task = tiny_encoder(), tiny_task()
    head = linear_probe(base, task)
    recipe = FineTuning(epochs=2, batch_size=8)
    states = [fine_tune(base, head, task, recipe=recipe, seed=seed).state() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_global_random_state_neither_matters_nor_changes() -> None:
    base, task = tiny_encoder(), tiny_task()
    head = linear_probe(base, task)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # the global state is what is tested
    state = torch.get_rng_state()
    first = fine_tune(base, head, task, recipe=FineTuning(epochs=1)).state()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = fine_tune(base, head, task, recipe=FineTuning(epochs=1)).state()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_divergence_is_said_not_stored() -> None:
    base, task = tiny_encoder(), tiny_task()
    with pytest.raises(UserError, match="diverged at learning rate"):
        fine_tune(base, linear_probe(base, task), task, recipe=FineTuning(learning_rate=1e20))
