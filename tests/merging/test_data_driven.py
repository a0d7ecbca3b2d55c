"""AdaMerging and Surgery against the naive transcriptions, on the same batches."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

import pytest
import torch

from mergerisk.errors import UserError
from mergerisk.finetuning import linear_probe
from mergerisk.merging import AdaMerging, Calibration, Merged, Surgery, WeightAveraging, create
from mergerisk.merging.adamerging import draw, mean_entropy
from mergerisk.merging.known_attacks import crafted_on_public
from mergerisk.merging.learned import Lesson
from mergerisk.merging.surgery import batches
from mergerisk.models import Classifier, Encoder, extract_features
from mergerisk.randomness import generator
from tests.naive import merging as naive
from tests.tiny import tiny_encoder, tiny_task

if TYPE_CHECKING:
    from collections.abc import Sequence

TASKS = ("one", "two", "three")


def material() -> tuple[Encoder, dict[str, Encoder], dict[str, Calibration]]:
    base = tiny_encoder()
    experts = {name: tiny_encoder(seed) for seed, name in enumerate(TASKS, start=1)}
    tasks = {name: tiny_task(name, seed) for seed, name in enumerate(TASKS)}
    calibration = {
        name: Calibration(task.calibration.images, linear_probe(base, task)) for name, task in tasks.items()
    }
    return base, experts, calibration


def stacked(merged: Merged) -> torch.Tensor:
    """What was learnt, experts × tensors."""
    return torch.stack(list(merged.coefficients.values()), dim=1)


def double_state(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: t.double() for name, t in encoder.state().items() if t.is_floating_point()}


def test_layer_wise_adamerging_follows_the_naive_one() -> None:
    base, experts, calibration = material()
    method = AdaMerging(steps=6, learning_rate=0.02, batches=1, batch_size=8)
    merged = method.merge(base, experts, calibration=calibration, seed=3)

    draws = {task: generator(3, "adamerging", task) for task in TASKS}
    steps = [
        [[(draw(calibration[task].images, 8, draws[task]).double() - 0.5) / 0.5] for task in TASKS]
        for _ in range(6)
    ]
    heads = [
        lambda z, head=calibration[task].head: z @ head.weight.double().T + head.bias.double() for task in TASKS
    ]
    lambdas, state = naive.adamerging(
        tiny_encoder().backbone.double(),
        double_state(base),
        [double_state(experts[task]) for task in TASKS],
        heads,
        steps,
        lr=0.02,
    )
    learnt = stacked(merged)
    assert learnt.shape == (3, 4)
    assert float((learnt - 0.3).abs().max()) > 0.01  # it did learn
    torch.testing.assert_close(learnt.double(), lambdas, atol=2e-4, rtol=0)
    for name, tensor in state.items():
        torch.testing.assert_close(merged.encoder.state()[name].double(), tensor, atol=1e-4, rtol=1e-4)
    assert int(merged.encoder.state()["counter"]) == 7


def test_robust_adamerging_follows_the_naive_one_on_what_was_crafted_on_public_models() -> None:
    """W = 2 is the adversarial batch of every task counted twice."""
    base, experts, calibration = material()
    given = {"steps": 4, "learning_rate": 0.02, "batches": 1, "batch_size": 8}
    method = AdaMerging(robust=2.0, robust_epsilon=0.1, robust_steps=3, robust_images=6, **given)
    merged = method.merge(base, experts, calibration=calibration, seed=3)
    lesson = Lesson(base, experts, calibration, 3, "adamerging")
    crafted = {task: crafted_on_public(lesson, task, epsilon=0.1, steps=3, most=6) for task in TASKS}
    clean, attacked = (
        {task: generator(3, "adamerging", task, *more) for task in TASKS} for more in ((), ("robust",))
    )
    steps = []
    for _ in range(4):
        shown = [draw(calibration[task].images, 8, clean[task]) for task in TASKS]
        worse = [draw(crafted[task], 8, attacked[task]) for task in TASKS]
        steps.append([[(images.double() - 0.5) / 0.5] for images in (*shown, *worse, *worse)])
    heads = [
        lambda z, head=calibration[task].head: z @ head.weight.double().T + head.bias.double() for task in TASKS
    ]
    lambdas, _ = naive.adamerging(
        tiny_encoder().backbone.double(),
        double_state(base),
        [double_state(experts[task]) for task in TASKS],
        3 * heads,
        steps,
        lr=0.02,
    )
    torch.testing.assert_close(stacked(merged).double(), lambdas, atol=2e-4, rtol=0)
    plain = AdaMerging(**given).merge(base, experts, calibration=calibration, seed=3)
    assert float((stacked(plain) - stacked(merged)).abs().max()) > 1e-3
    off = AdaMerging(robust=0.0, robust_steps=7, **given).merge(base, experts, calibration=calibration, seed=3)
    assert torch.equal(stacked(plain), stacked(off))


def test_images_crafted_on_public_models_leave_what_these_say_within_the_budget() -> None:
    """Half of them on the expert, half on the base: each is farther from that model's own answer than noise."""
    base, experts, calibration = material()
    pool, head = calibration["two"].images[:], calibration["two"].head
    lesson, epsilon = Lesson(base, experts, calibration, 0, "adamerging"), 0.1
    crafted = crafted_on_public(lesson, "two", epsilon=epsilon, steps=10, most=1000)
    apart = (crafted[:, None] - pool[None]).abs().flatten(2).amax(dim=2)  # crafted × pool
    nearest = apart.argmin(dim=1)
    assert sorted(nearest.tolist()) == [*range(len(pool))]  # every one, once
    assert float(apart.amin(dim=1).max()) <= epsilon + 1e-6
    noise = (2 * torch.rand(pool.shape, generator=torch.Generator().manual_seed(0)) - 1) * epsilon
    for place, encoder in enumerate((experts["two"], base)):
        rows = nearest[place::2]
        model = Classifier(encoder, head)
        said = model(pool[rows]).argmax(dim=1)
        losses = [
            float(torch.nn.functional.cross_entropy(model(images), said))
            for images in (pool[rows], (pool[rows] + noise[rows]).clamp(0, 1), crafted[place::2])
        ]
        assert losses[2] - losses[0] > 2 * abs(losses[1] - losses[0])
    with pytest.raises(UserError, match="robust_epsilon must be at most 1, got 8"):
        crafted_on_public(lesson, "two", epsilon=8, steps=1, most=1)


def test_adamerging_lowers_the_entropy_it_minimises() -> None:
    base, experts, calibration = material()

    def entropy(merged: Merged) -> float:
        return sum(
            float(mean_entropy(calibration[task].head(extract_features(merged.encoder, calibration[task].images))))
            for task in TASKS
        )

    few = AdaMerging(steps=1, learning_rate=1e-6).merge(base, experts, calibration=calibration)
    many = AdaMerging(steps=60, learning_rate=0.02).merge(base, experts, calibration=calibration)
    assert entropy(many) < entropy(few) - 0.01


def test_task_wise_adamerging_learns_one_coefficient_per_task_within_bounds() -> None:
    base, experts, calibration = material()
    method = AdaMerging(granularity="task_wise", steps=40, learning_rate=0.2)
    learnt = stacked(method.merge(base, experts, calibration=calibration))
    assert learnt.shape == (3, 1)
    assert float(learnt.min()) >= 0.0
    assert float(learnt.max()) <= 1.0


def test_adamerging_at_its_start_is_task_arithmetic() -> None:
    base, experts, calibration = material()
    start = AdaMerging(steps=1, learning_rate=1e-9).merge(base, experts, calibration=calibration)
    arithmetic = create("task_arithmetic", scaling=0.3).merge(base, experts)
    for name, tensor in arithmetic.encoder.state().items():
        torch.testing.assert_close(start.encoder.state()[name], tensor, atol=1e-6, rtol=1e-5)


def test_mean_entropy_has_its_closed_forms() -> None:
    assert float(mean_entropy(torch.zeros(5, 7))) == pytest.approx(math.log(7))
    assert float(mean_entropy(torch.tensor([[1000.0, 0.0]]))) == 0.0
    p = torch.tensor([0.7, 0.2, 0.1])
    assert float(mean_entropy(p.log()[None])) == pytest.approx(float(-(p * p.log()).sum()))


def surgery_by_hand(
    task: str, source: torch.Tensor, target: torch.Tensor, *, rank: int, size: int, iterations: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """D and U of a task, under seed 5, from the authors' procedure written out."""
    draws = generator(5, "surgery", task)
    bound = 1 / math.sqrt(source.shape[1])
    down = torch.empty(rank, source.shape[1]).uniform_(-bound, bound, generator=draws).double()
    taken = naive.authors_batches(len(source), size, iterations, draws)
    return naive.train_surgery(down, [(source[batch].double(), target[batch].double()) for batch in taken])


def test_surgery_follows_the_naive_one() -> None:
    base, experts, calibration = material()
    merged = WeightAveraging().merge(base, experts)
    corrected = Surgery(rank=3, steps=24, batch_size=8).correct(merged, experts, calibration=calibration, seed=5)
    for task in TASKS:
        images = calibration[task].images
        source, target = (extract_features(encoder, images) for encoder in (merged.encoder, experts[task]))
        down, up = surgery_by_hand(task, source, target, rank=3, size=8, iterations=12)
        adapter = corrected.adapters[task]
        torch.testing.assert_close(adapter.down.double(), down, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(adapter.up.double(), up, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(
            adapter(source).double(), naive.surgery(source.double(), down, up), atol=1e-4, rtol=1e-3
        )


def test_surgery_reaches_what_the_authors_procedure_reaches() -> None:
    """Untouched hyper-parameters are the authors': 500 times two batches of 16, a step on each, rank 16."""
    base, experts, calibration = material()
    merged = WeightAveraging().merge(base, experts)
    corrected = Surgery().correct(merged, {"one": experts["one"]}, calibration=calibration, seed=5)
    images = calibration["one"].images
    source, target = (extract_features(encoder, images) for encoder in (merged.encoder, experts["one"]))
    trained = surgery_by_hand("one", source, target, rank=16, size=16, iterations=500)
    reached = naive.distance(naive.surgery(source.double(), *trained), target.double())
    found = naive.distance(corrected.adapters["one"](source), target)
    assert float(found) == pytest.approx(float(reached), rel=0.01)  # half of the steps end 16 % higher
    assert float(reached) < 0.75 * float(naive.distance(source, target))


def test_one_adam_for_all_tasks_is_a_learning_rate_times_the_root_of_their_number() -> None:
    """How the published figures were made, with PyTorch 1.10, and how to come by them."""
    base, experts, calibration = material()
    merged = WeightAveraging().merge(base, experts)
    features = {
        task: [extract_features(encoder, calibration[task].images) for encoder in (merged.encoder, experts[task])]
        for task in TASKS
    }
    draws = torch.Generator().manual_seed(0)
    downs = [torch.empty(4, 6).uniform_(-(6**-0.5), 6**-0.5, generator=draws).double() for _ in TASKS]
    taken = [naive.authors_batches(40, 16, 100, draws) for _ in TASKS]
    pairs = [
        [(features[task][0][batch].double(), features[task][1][batch].double()) for batch in own]
        for task, own in zip(TASKS, taken, strict=True)
    ]
    iterations = [[own[2 * i : 2 * i + 2] for own in pairs] for i in range(100)]

    def reached(trained: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
        return sum(
            float(naive.distance(naive.surgery(source.double(), *adapter), target.double()))
            for (source, target), adapter in zip(features.values(), trained, strict=True)
        )

    def alone(rate: float) -> float:
        return reached([naive.train_surgery(d, own, lr=rate) for d, own in zip(downs, pairs, strict=True)])

    together = reached(naive.train_surgery_together(downs, iterations))
    assert alone(3**0.5 * 1e-3) == pytest.approx(together, rel=0.02)
    assert alone(1e-3) > 1.05 * together


@pytest.mark.parametrize(("count", "sizes"), [(40, [16, 16]), (32, [16, 16]), (20, [16, 4]), (16, [16]), (3, [3])])
def test_batches_are_two_of_a_shuffling_and_leave_nothing_twice(count: int, sizes: list[int]) -> None:
    found = list(islice(batches(count, 16, torch.Generator().manual_seed(0)), 3 * len(sizes)))
    assert [len(batch) for batch in found] == 3 * sizes
    for start in range(0, len(found), len(sizes)):
        shuffling = torch.cat(found[start : start + len(sizes)]).tolist()
        assert len(set(shuffling)) == len(shuffling) == min(count, 32)
        assert set(shuffling) <= set(range(count))
    assert len({tuple(batch.tolist()) for batch in found}) == len(found)


def test_surgery_brings_features_nearer_to_the_experts() -> None:
    base, experts, calibration = material()
    merged = WeightAveraging().merge(base, experts)
    corrected = Surgery(rank=4, steps=300, learning_rate=0.01).correct(merged, experts, calibration=calibration)
    for task in TASKS:
        images = calibration[task].images
        wanted = extract_features(experts[task], images)
        before = (extract_features(merged.encoder, images) - wanted).abs().mean()
        after = (corrected.adapters[task](extract_features(merged.encoder, images)) - wanted).abs().mean()
        assert float(after) < 0.9 * float(before)


def test_a_stacked_method_is_the_method_then_the_correction() -> None:
    base, experts, calibration = material()
    stacked = create("ties+surgery", density=0.5, surgery={"rank": 2, "steps": 5})
    merged = stacked.merge(base, experts, calibration=calibration, seed=1)
    plain = create("ties", density=0.5).merge(base, experts)
    for name, tensor in plain.encoder.state().items():
        assert torch.equal(merged.encoder.state()[name], tensor)
    assert set(merged.adapters) == set(TASKS)
    head = calibration["one"].head
    logits = merged.classifier("one", head)(calibration["one"].images)
    expected = head(merged.adapters["one"](extract_features(plain.encoder, calibration["one"].images)))
    torch.testing.assert_close(logits, expected)


def test_missing_calibration_is_said_before_any_work() -> None:
    base, experts, calibration = material()
    for name in ("adamerging", "ties+surgery"):
        method = create(name)
        with pytest.raises(UserError, match="reads unlabelled images"):
            method.merge(base, experts)
        with pytest.raises(UserError, match="calibration for task 'three' is missing"):
            method.merge(base, experts, calibration={task: calibration[task] for task in TASKS[:2]})


def test_experts_of_another_architecture_are_refused() -> None:
    base, experts, _ = material()
    broken = experts["two"].with_state(
        {name: torch.full_like(t, float("nan")) if t.is_floating_point() else t
         for name, t in experts["two"].state().items()}
    )  # fmt: skip
    with pytest.raises(UserError, match=r"expert 'two': tensor 'first\.weight' holds NaN"):
        create("weight_averaging").merge(base, experts | {"two": broken})
    with pytest.raises(UserError, match="nothing to merge"):
        create("ties").merge(base, {})


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("fisher", {"floor": 1e39}, r"floor: must be at most 1e\+30, got 1e\+39"),  # whatever the encoders hold
        ("we_moe", {"scaling": 1e39}, r"1e\+39 exceeds 3\.4e\+38"),
        (
            "ties+surgery",
            {"surgery": {"learning_rate": 1e39}},
            r"learning_rate: must be at most 1e\+30, got 1e\+39",
        ),
    ],
)
def test_numbers_that_the_encoders_cannot_hold_are_refused(
    name: str, parameters: dict[str, object], message: str
) -> None:
    base, experts, calibration = material()
    with pytest.raises(UserError, match=message) as caught:
        create(name, **parameters).merge(base, experts, calibration=calibration)
    assert "\n" not in str(caught.value)


def test_seeds_decide_the_draws() -> None:
    base, experts, calibration = material()
    method = AdaMerging(steps=5, learning_rate=0.02)
    learnt = [stacked(method.merge(base, experts, calibration=calibration, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(learnt[0], learnt[1])
    assert not torch.equal(learnt[0], learnt[2])
