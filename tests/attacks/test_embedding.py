"""The attack on embeddings, against a naive float64 transcription and what it promises not to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from mergerisk import attacks
from mergerisk.errors import UserError
from tests.attacks.test_model_attacks import BUDGETS, clip, craft, pictures, resnet, transcribe, vit
from tests.naive import attacks as shared
from tests.naive import feature_attacks as naive
from tests.naive.models import SmoothClassifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.models import Classifier


def embedding(classifier: Classifier) -> Callable[[Tensor], Tensor]:
    return lambda image: classifier.encoder(image[None])[0]


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize(
    "parameters", [{}, {"distance": "cosine"}, {"step_size": 0.01, "inputs": [{"input": "si", "scales": 2}]}]
)
@pytest.mark.parametrize("surrogate", [vit, lambda: resnet("basic")])
def test_feature_is_its_transcription(surrogate: Any, norm: str, parameters: dict[str, Any]) -> None:
    classifier = surrogate().classifier
    problem = (*pictures(24), BUDGETS[norm])
    crafted = craft("feature", classifier, *problem, **parameters)
    own = parameters | ({"inputs": [shared.scaled(2)]} if "inputs" in parameters else {})
    expected = transcribe(naive.feature, surrogate().network, *problem, features=[embedding(classifier)], **own)
    torch.testing.assert_close(crafted, expected, rtol=0, atol=1e-9)


def test_of_an_ensemble_each_encoder_counts_alike() -> None:
    """Features of one are a thousand times the other's."""
    members = [vit().classifier, clip().classifier]
    large = attacks.Ensemble([members[0], members[1]])
    scaled = members[1].encoder.backbone.visual_projection
    before = scaled.weight.clone()
    try:
        scaled.weight.mul_(1000)
        problem = (*pictures(), BUDGETS["l2"])
        crafted = craft("feature", large, *problem)
    finally:
        scaled.weight.copy_(before)
    features = [embedding(member) for member in members]
    expected = transcribe(naive.feature, vit().network, *problem, features=features)
    torch.testing.assert_close(crafted, expected, rtol=0, atol=1e-9)


def test_a_layer_may_stand_for_the_embedding() -> None:
    problem = (*pictures(), BUDGETS["l2"])
    crafted = craft("feature", vit().classifier, *problem, layer="encoder.backbone.layers.1")
    expected = transcribe(
        naive.feature, vit().network, *problem, features=[lambda image: vit().network.features(image, 1)]
    )
    torch.testing.assert_close(crafted, expected, rtol=0, atol=1e-9)


def test_neither_labels_nor_head_are_asked() -> None:
    classifier, (images, labels) = vit().classifier, pictures()
    calls: list[int] = []
    handle = classifier.head.register_forward_hook(lambda *_: calls.append(1))
    one = attacks.create("feature", steps=3)(classifier, images, labels, epsilon=0.1)
    handle.remove()
    assert len(calls) == 1, "to count the classes, as for every attack"
    other = attacks.create("feature", steps=3)(classifier, images, (labels + 1) % 5, epsilon=0.1)
    assert torch.equal(one, other)
    moved = classifier.encoder(one) - classifier.encoder(images)
    start = attacks.create("feature", steps=1, step_size=1e-9)(classifier, images, labels, epsilon=0.1)
    shaken = classifier.encoder(start) - classifier.encoder(images)
    assert bool((moved.norm(dim=1) > 1.5 * shaken.norm(dim=1)).all())


@pytest.mark.parametrize("parameters", [{"targeted": True}, {"loss": "margin"}, {"distance": "manhattan"}])
def test_what_it_cannot_go_by_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(parameters))):
        attacks.create("feature", **parameters)


def test_a_classifier_without_an_encoder_needs_a_layer() -> None:
    images, labels = pictures()
    model: nn.Module = SmoothClassifier(3, 16, 16, seed=0)
    for surrogate in (model, attacks.Ensemble([vit().classifier, model])):
        with pytest.raises(UserError, match="name a layer"):
            attacks.create("feature")(surrogate, images, labels % 4, epsilon=0.1)
    moved = attacks.create("feature", layer="maps", steps=2)(model, images, labels % 4, epsilon=0.1)
    assert not torch.equal(moved, images)
