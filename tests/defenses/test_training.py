"""Training defenses: one step of each against its transcription, what they read, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

import mergerisk as mr
from mergerisk.defenses import Batch, TrainingData, TrainingDefense
from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.errors import UserError
from mergerisk.models import Classifier, Head
from mergerisk.randomness import ImageRandom
from mergerisk.seeds import derive_seed
from tests.naive import training as naive
from tests.tiny import tiny_encoder, tiny_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.models import Encoder
    from tests.naive.training import Weights

SEED, EPSILON, ROWS = 5, 0.05, (4, 0, 7, 2, 9)
SMALL: dict[str, dict[str, Any]] = {
    "pubdef": {"epsilon": EPSILON, "steps": 3},
    "fare": {"epsilon": EPSILON, "steps": 3},
    "adversarial_distillation": {"epsilon": EPSILON, "steps": 3, "share": 0.7},
    "decorrelate": {"epsilon": EPSILON, "steps": 2, "coefficient": 1.5, "smoothness": 0.3},
    "tecoa": {"epsilon": EPSILON},
    "trades": {"epsilon": EPSILON, "steps": 3, "step_size": 0.02, "beta": 3.0},
    "sam": {"rho": 0.2},
    "gradient_penalty": {"coefficient": 0.4},
}
CASES = [*SMALL.items(), ("trades", SMALL["trades"] | {"awp": 0.01})]


def weights_of(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in encoder.state().items() if tensor.is_floating_point()}


def batch() -> Batch:
    """Five images of a model that has moved a little from what it was, and two public ones."""
    task, draws = tiny_task(), torch.Generator().manual_seed(1)
    head = Head(torch.randn(4, 6, generator=draws).double(), torch.randn(4, generator=draws).double())
    trained, original, *public = (Classifier(tiny_encoder(seed).double(), head) for seed in (1, 2, 3, 4))
    trained.encoder.requires_grad_(True)
    rows = list(ROWS)
    images, labels = task.train.images[rows].double(), task.train.labels[rows]
    return Batch(images, labels, trained, original, tuple(public), ROWS, SEED)


def uniform_start(one: Batch, draw: int = 0) -> torch.Tensor:
    drawn = ImageRandom(derive_seed(SEED, "start", draw), "ascent", ROWS).noise(like=one.images)
    moved = one.images + EPSILON * (2 * drawn - 1)
    return torch.minimum(torch.maximum(moved, one.images - EPSILON), one.images + EPSILON).clamp(0, 1)


def transcribed(name: str, given: dict[str, Any], one: Batch) -> dict[str, torch.Tensor]:
    """The gradient that a defense leaves in the weights."""
    x, y = one.images, one.labels
    head = (one.classifier.head.weight, one.classifier.head.bias)
    theta, before = weights_of(one.classifier.encoder), weights_of(one.original.encoder)
    steps = given.get("steps", 2)

    def said(weights: Weights, images: torch.Tensor) -> torch.Tensor:
        return naive.logits(weights, head, images)

    def clean(weights: Weights) -> torch.Tensor:
        return naive.entropies(said(weights, x), y).mean()

    def worst(gain: Callable[[torch.Tensor], torch.Tensor], draw: int = 0) -> torch.Tensor:
        alpha = min(EPSILON, 2.5 * EPSILON / steps)
        return naive.climbed(gain, x, uniform_start(one, draw), EPSILON, steps, alpha)

    if name == "sam":
        return naive.sharpness_aware(clean, theta, given["rho"])
    if name == "gradient_penalty":

        def penalised(weights: Weights) -> torch.Tensor:
            slopes = naive.slope_by_image(lambda images: said(weights, images), x, y)
            return clean(weights) + given["coefficient"] * (slopes**2).sum() / len(x)

        return naive.gradients(penalised, theta)
    if name == "tecoa":
        points = worst(lambda images: naive.entropies(said(theta, images), y).sum())
        return naive.gradients(lambda weights: naive.entropies(said(weights, points), y).mean(), theta)
    if name == "fare":
        kept = naive.features(before, x)
        points = worst(lambda images: ((naive.features(theta, images) - kept) ** 2).sum())
        return naive.gradients(lambda w: ((naive.features(w, points) - kept) ** 2).sum() / len(x), theta)
    if name == "adversarial_distillation":
        teacher, share = said(before, x), given["share"]
        points = worst(lambda images: naive.divergences(teacher, said(theta, images)).sum())
        return naive.gradients(
            lambda w: (
                (1 - share) * naive.divergences(teacher, said(w, x)).mean()
                + share * naive.divergences(teacher, said(w, points)).mean()
            ),
            theta,
        )
    public = [weights_of(model.encoder) for model in one.public]
    if name == "pubdef":
        crafted = [
            worst(lambda images, k=k: naive.entropies(said(k, images), y).sum(), draw)  # type: ignore[misc]
            for draw, k in enumerate(public)
        ]
        return naive.gradients(
            lambda w: clean(w) / 2 + sum(naive.entropies(said(w, c), y).mean() for c in crafted) / 4, theta
        )
    if name == "decorrelate":
        points = worst(lambda images: naive.entropies(said(theta, images), y).sum())
        others = [naive.slope_by_image(lambda i, k=k: said(k, i), points, y).detach() for k in public]  # type: ignore[misc]

        def alike(weights: Weights) -> torch.Tensor:
            own = naive.slope_by_image(lambda images: said(weights, images), points, y)
            return (
                clean(weights)
                + given["coefficient"] * naive.mean_cosine(own, others)
                + given["smoothness"] * (own**2).sum() / len(x)
            )

        return naive.gradients(alike, theta)
    normal = ImageRandom(derive_seed(SEED, "start", 0), "ascent", ROWS).normal(like=x)
    start = (x + 1e-3 * normal).clamp(0, 1)
    reference = said(theta, x)
    points = naive.climbed(
        lambda images: naive.divergences(reference, said(theta, images)).sum(),
        x,
        start,
        EPSILON,
        steps,
        given["step_size"],
    )

    def traded(weights: Weights) -> torch.Tensor:
        apart = naive.divergences(said(weights, x), said(weights, points)).mean()
        return clean(weights) + given["beta"] * apart

    if "awp" in given:
        return naive.weights_perturbed(traded, theta, given["awp"])
    return naive.gradients(traded, theta)


@pytest.mark.parametrize(("name", "given"), CASES, ids=[f"{name}-{'awp' in given}" for name, given in CASES])
def test_one_step_is_the_transcribed_one(name: str, given: dict[str, Any]) -> None:
    one = batch()
    kept = {key: tensor.clone() for key, tensor in one.classifier.encoder.state().items()}
    defense = mr.defenses.create(name, **given)
    assert isinstance(defense, TrainingDefense)
    defense.differentiate(one)
    expected = transcribed(name, given, one)
    for key, parameter in one.classifier.encoder.backbone.named_parameters():
        assert parameter.grad is not None
        # Sums of some thousand terms in float64.
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-9, atol=1e-12)
        assert parameter.requires_grad
    # What was moved for the gradient's sake is back, to the bit.
    assert all(torch.equal(tensor, kept[key]) for key, tensor in one.classifier.encoder.state().items())


def data_of(classes: int = 4) -> dict[str, TrainingData]:
    draws = torch.Generator().manual_seed(2)
    found = {}
    for name, seed in (("one", 0), ("two", 7)):
        task = tiny_task(name, seed, count=24, classes=classes)
        head = Head(torch.randn(classes, 6, generator=draws), torch.zeros(classes), class_names=task.class_names)
        found[name] = TrainingData.of(task, head, [tiny_encoder(1), tiny_encoder(2)])
    return found


def test_all_tasks_are_learnt_from_and_nothing_else_changes() -> None:
    encoder, data = tiny_encoder(3), data_of()
    before = {key: tensor.clone() for key, tensor in encoder.state().items()}
    state = torch.get_rng_state()
    for name, given in SMALL.items():
        defense = DEFENSES.create(name, {**given, "batch_size": 15, "learning_rate": 1e-3})
        with torch.inference_mode():
            trained = defense.train(encoder, data, seed=1)
        again, other = defense.train(encoder, data, seed=1), defense.train(encoder, data, seed=2)
        assert all(torch.equal(trained.state()[key], again.state()[key]) for key in before)
        assert not all(torch.equal(trained.state()[key], other.state()[key]) for key in before)
        assert all(torch.equal(encoder.state()[key], tensor) for key, tensor in before.items())
        assert not any(parameter.requires_grad for parameter in trained.parameters())
        assert not torch.equal(trained.state()["first.weight"], before["first.weight"])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_loss_falls() -> None:
    """Of images that are crafted on public models, by those who know nothing of the defense."""
    encoder, data = tiny_encoder(3), data_of()
    (task, given), epsilon = next(iter(data.items())), 0.1
    attack = mr.attacks.create("i_fgsm", steps=5)
    assert given.labels is not None
    images = given.images[:]
    crafted = attack(Classifier(given.public[0], given.head), images, given.labels, epsilon=epsilon)
    defense = mr.defenses.create("pubdef", epsilon=epsilon, steps=5, epochs=15, batch_size=8, learning_rate=1e-2)
    trained = defense.train(encoder, {task: given})
    losses = [
        float(torch.nn.functional.cross_entropy(Classifier(one, given.head)(crafted), given.labels))
        for one in (encoder, trained)
    ]
    assert losses[1] < losses[0] / 2


def test_what_needs_no_labels_reads_none() -> None:
    data = {name: replace(given, labels=None, public=()) for name, given in data_of().items()}
    for name in ("fare", "adversarial_distillation"):
        defense = DEFENSES.create(name, SMALL[name])
        known = {key: replace(given, labels=torch.ones(24, dtype=torch.int64)) for key, given in data.items()}
        states = [defense.train(tiny_encoder(), each).state() for each in (data, known)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def bad(**changes: Any) -> dict[str, TrainingData]:
    return {"one": replace(data_of()["one"], **changes)}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("pubdef", {}, "PubDef has nothing to learn from"),
        ("pubdef", bad(public=()), "PubDef needs public models of task 'one'"),
        ("trades", bad(labels=None), "Trades learns from labels, and task 'one' has none"),
        ("trades", bad(labels=torch.full((24,), 4)), "task 'one': labels must be one per image, in 0 … 3"),
        ("fare", bad(images=torch.rand(0, 3, 4, 4)), "Fare: task 'one' has no images to learn from"),
    ],
)
def test_what_cannot_be_learnt_from_is_said(name: str, data: dict[str, TrainingData], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        DEFENSES.create(name, {}).train(tiny_encoder(), data)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("trades", {"epsilon": -0.1}, "epsilon: must be above 0"),
        ("pubdef", {"steps": 0}, "steps"),
        ("adversarial_distillation", {"share": 1.5}, "share"),
        ("sam", {"rho": 0}, "rho"),
        ("fare", {"epocs": 2}, "epocs: unknown field (did you mean 'epochs'?)"),
    ],
)
def test_what_is_out_of_range_is_said(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        mr.defenses.create(name, **given)


def test_a_task_without_training_images_is_refused() -> None:
    task = tiny_task()
    empty = replace(task, train=replace(task.train, images=torch.rand(0, 3, 4, 4), labels=torch.zeros(0).long()))
    with pytest.raises(UserError, match="'tiny' has no training images, and a training defense needs some"):
        TrainingData.of(empty, Head(torch.zeros(4, 6), torch.zeros(4)))


def test_a_diverged_training_is_said() -> None:
    with pytest.raises(UserError, match=r"Trades's training diverged at learning rate 1e\+25; lower it"):
        DEFENSES.create("trades", {"learning_rate": 1e25, "epochs": 3}).train(tiny_encoder(), data_of())
