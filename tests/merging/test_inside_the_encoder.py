"""SurgeryV2 and WEMoE, which change what happens inside an encoder, against plain loops in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

import mergerisk as mr
from mergerisk import merging
from mergerisk.errors import UserError
from mergerisk.merging import Calibration
from mergerisk.merging.we_moe import MixtureMlp
from mergerisk.models import Encoder, Head, load_encoder
from mergerisk.randomness import generator
from tests.naive import merging as naive
from tests.tiny import tiny_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

TASKS = ("first", "second")


@pytest.fixture(scope="module")
def base(tiny_vit: Path) -> Encoder:
    return load_encoder(str(tiny_vit))


@pytest.fixture(scope="module")
def experts(base: Encoder) -> dict[str, Encoder]:
    draws = torch.Generator().manual_seed(1)
    return {
        task: base.with_state(
            {name: t + 0.05 * torch.randn(t.shape, generator=draws) for name, t in base.state().items()}
        )
        for task in TASKS
    }


@pytest.fixture(scope="module")
def calibration(base: Encoder) -> dict[str, Calibration]:
    draws = torch.Generator().manual_seed(2)
    return {
        task: Calibration(
            torch.rand(20, 3, 16, 16, generator=draws),
            Head(torch.randn(5, base.width, generator=draws), torch.zeros(5)),
        )
        for task in TASKS
    }


# --- SurgeryV2 -------------------------------------------------------------------------------------------


def corrected(tokens: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """z − U·ReLU(D·z), for each token."""
    return tokens - torch.relu(tokens @ down.mT) @ up.mT


def by_hand(encoder: Encoder, images: Tensor, adapters: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Token means after every corrected block, then the corrected class token, in the adapters' dtype."""
    model = encoder.backbone
    tokens = model.embeddings((images - encoder.mean) / encoder.std)
    seen = []
    for block, (down, up) in zip(model.layers, adapters[:-1], strict=True):
        tokens = corrected(block(tokens), down, up)
        seen.append(tokens.mean(dim=1))
    seen.append(corrected(model.layernorm(tokens)[:, 0], *adapters[-1]))
    return seen


def test_surgery_v2_corrects_every_block(base: Encoder, experts: dict[str, Encoder]) -> None:
    draws = torch.Generator().manual_seed(0)
    adapters = [(torch.randn(4, 32, generator=draws), 0.1 * torch.randn(32, 4, generator=draws)) for _ in range(3)]
    parts = {
        f"first/{position}/{name}": tensor
        for position, pair in enumerate(adapters)
        for name, tensor in zip(("down", "up"), pair, strict=True)
    }
    merged = merging.create("weight_averaging").merge(base, experts)
    images = torch.rand(6, 3, 16, 16, generator=draws)
    method = merging.CORRECTIONS.create("surgery_v2", {})
    given = method.apply(merged, parts).encoder_for("first")(images)
    torch.testing.assert_close(given, by_hand(merged.encoder, images, adapters)[-1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(given, merged.encoder(images))
    assert all(not block._forward_hooks for block in merged.encoder.backbone.layers)


def v2_by_hand(
    task: str, encoder: Encoder, expert: Encoder, images: Tensor, *, rank: int, size: int, iterations: int
) -> tuple[list[tuple[Tensor, Tensor]], Callable[[Sequence[tuple[Tensor, Tensor]]], float]]:
    """A task's adapters, under seed 7, from the authors' procedure written out in float64; and the objective over all
    images as a function of adapters."""
    draws = generator(7, "surgery_v2", task)
    bound = 1 / math.sqrt(32)
    downs = [torch.empty(rank, 32).uniform_(-bound, bound, generator=draws).double() for _ in range(3)]
    adapters = [(nn.Parameter(down), nn.Parameter(torch.zeros(32, rank).double())) for down in downs]
    model, expert = (
        e.with_state({n: t.double() for n, t in e.state().items()}).double() for e in (encoder, expert)
    )
    images = images.double()
    nothing = [(torch.zeros(1, 32).double(), torch.zeros(32, 1).double())] * 3
    with torch.no_grad():
        wanted = by_hand(expert, images, nothing)

    def objective(chosen: list[int], adapters: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        found = by_hand(model, images[chosen], adapters)
        distances = [naive.distance(a, b[chosen]) for a, b in zip(found, wanted, strict=True)]
        return torch.stack(distances).sum()

    optimizer = torch.optim.Adam([p for pair in adapters for p in pair], lr=1e-3)
    for chosen in naive.authors_batches(len(images), size, iterations, draws):
        optimizer.zero_grad()
        objective(chosen, adapters).backward()
        optimizer.step()
    everything = list(range(len(images)))
    return (
        [(down.detach(), up.detach()) for down, up in adapters],
        lambda adapters: float(objective(everything, adapters).detach()),
    )


def v2_parts(parts: dict[str, Tensor], task: str) -> list[tuple[Tensor, Tensor]]:
    return [(parts[f"{task}/{p}/down"].double(), parts[f"{task}/{p}/up"].double()) for p in range(3)]


def test_surgery_v2_learns_by_the_sum_of_the_blocks_distances(
    base: Encoder, experts: dict[str, Encoder], calibration: dict[str, Calibration]
) -> None:
    merged = merging.create("weight_averaging").merge(base, experts)
    method = merging.CORRECTIONS.create("surgery_v2", {"steps": 4, "batch_size": 6, "rank": 3})
    parts = method.fit(merged, experts, calibration=calibration, seed=7)
    for task in TASKS:
        images = calibration[task].images
        adapters, _ = v2_by_hand(task, merged.encoder, experts[task], images, rank=3, size=6, iterations=2)
        for (down, up), (found_down, found_up) in zip(adapters, v2_parts(parts, task), strict=True):
            torch.testing.assert_close(found_down, down, rtol=0, atol=2e-5)
            torch.testing.assert_close(found_up, up, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_surgery_v2_reaches_what_the_authors_procedure_reaches(
    base: Encoder, experts: dict[str, Encoder], calibration: dict[str, Calibration]
) -> None:
    """Untouched hyper-parameters are the authors': 500 times two batches of 16, a step on each, rank 16."""
    merged = merging.create("weight_averaging").merge(base, experts)
    expert, images = experts["first"], torch.cat([found.images for found in calibration.values()])
    only = {"first": replace(calibration["first"], images=images)}
    parts = merging.CORRECTIONS.create("surgery_v2", {}).fit(merged, {"first": expert}, calibration=only, seed=7)
    adapters, objective = v2_by_hand("first", merged.encoder, expert, images, rank=16, size=16, iterations=500)
    nothing = [(down, torch.zeros_like(up)) for down, up in adapters]
    assert objective(v2_parts(parts, "first")) == pytest.approx(objective(adapters), rel=0.01)  # half: 23 % more
    assert objective(adapters) < 0.75 * objective(nothing)


def test_surgery_v2_starts_at_the_merge_and_comes_nearer_to_the_experts(
    base: Encoder, experts: dict[str, Encoder], calibration: dict[str, Calibration]
) -> None:
    merged = merging.create("task_arithmetic").merge(base, experts)
    better = merging.create("task_arithmetic+surgery_v2", surgery_v2={"steps": 60, "learning_rate": 0.01}).merge(
        base, experts, calibration=calibration
    )
    for task in TASKS:
        images = calibration[task].images
        wanted = experts[task](images)
        before = float((merged.encoder(images) - wanted).abs().mean())
        after = float((better.encoder_for(task)(images) - wanted).abs().mean())
        assert after < 0.8 * before


def test_what_has_no_blocks_is_refused() -> None:
    encoder = tiny_encoder()
    images = torch.rand(4, 3, 4, 4)
    calibration = {"a": Calibration(images, Head(torch.zeros(2, 6), torch.zeros(2)))}
    for name in ("we_moe", "weight_averaging+surgery_v2"):
        with pytest.raises(UserError, match="for transformers"):
            merging.create(name).merge(encoder, {"a": encoder}, calibration=calibration)


# --- WEMoE -----------------------------------------------------------------------------------------------


def test_a_mixture_mixes_weights_anew_for_every_image() -> None:
    draws = torch.Generator().manual_seed(3)
    mlp = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 6)).double()
    vectors = {n: torch.randn(3, *p.shape, generator=draws).double() for n, p in mlp.named_parameters()}
    mixture = MixtureMlp(mlp, vectors).double()
    with torch.no_grad():  # a router is made without values
        for parameter in mixture.router.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
    tokens = torch.randn(4, 5, 6, generator=draws).double()
    first, _, last = mixture.router
    for image, given in zip(tokens, mixture(tokens), strict=True):
        answers = [last.weight @ torch.relu(first.weight @ t + first.bias) + last.bias for t in image]
        shares = sum(answers) / len(answers)
        weights = {
            name: parameter + sum(share * vector for share, vector in zip(shares, vectors[name], strict=True))
            for name, parameter in mlp.named_parameters()
        }
        hidden = [nn.functional.gelu(weights["0.weight"] @ t + weights["0.bias"]) for t in image]
        wanted = torch.stack([weights["2.weight"] @ h + weights["2.bias"] for h in hidden])
        torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)


def test_routers_that_always_say_lambda_give_task_arithmetic(
    base: Encoder, experts: dict[str, Encoder], calibration: dict[str, Calibration]
) -> None:
    merged = merging.create("we_moe", steps=1).merge(base, experts, calibration=calibration)
    for module in merged.encoder.modules():
        if isinstance(module, MixtureMlp):
            for parameter in module.router.parameters():
                parameter.zero_()
            module.router[-1].bias.fill_(0.3)
    plain = merging.create("task_arithmetic", scaling=0.3).merge(base, experts)
    images = calibration["first"].images
    torch.testing.assert_close(merged.encoder(images), plain.encoder(images), rtol=1e-4, atol=1e-5)


def entropy(encoder: Encoder, calibration: dict[str, Calibration]) -> float:
    total = 0.0
    for found in calibration.values():
        probabilities = found.head(encoder(found.images)).double().softmax(dim=1)
        total -= float((probabilities * probabilities.log()).sum(dim=1).mean())
    return total


def test_routers_learn_to_lower_entropy_and_images_do_not_share_weights(
    base: Encoder, experts: dict[str, Encoder], calibration: dict[str, Calibration]
) -> None:
    method = merging.create("we_moe", steps=30, learning_rate=3e-3)
    merged = method.merge(base, experts, calibration=calibration)
    start = merging.create("we_moe", steps=1, learning_rate=1e-12).merge(base, experts, calibration=calibration)
    assert entropy(merged.encoder, calibration) < entropy(start.encoder, calibration) - 0.01
    images = calibration["second"].images
    together = merged.encoder(images)
    alone = torch.cat([merged.encoder(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    again = method.merge(base, experts, calibration=calibration)
    assert torch.equal(again.encoder(images), together)
    assert torch.equal(method.restore(base, dict(merged.parts)).encoder(images), together)
    assert not any(parameter.requires_grad for parameter in merged.encoder.parameters())


def test_an_attack_sees_through_a_mixture(
    base: Encoder, experts: dict[str, Encoder], calibration: dict[str, Calibration]
) -> None:
    merged = merging.create("we_moe", steps=1).merge(base, experts, calibration=calibration)
    found = calibration["first"]
    labels = torch.zeros(len(found.images), dtype=torch.long)
    classifier = merged.classifier("first", found.head)
    adversarial = mr.attacks.create("fgsm")(classifier, found.images, labels, epsilon=8 / 255, seed=0)
    assert not torch.equal(adversarial, found.images)


# --- what holds for every method that yields an encoder --------------------------------------------------


@pytest.mark.parametrize(
    "name", ["weight_averaging+surgery", "weight_averaging+surgery_v2", "emr+surgery", "we_moe+surgery"]
)
def test_a_stacked_merge_comes_back_from_its_parts(
    name: str, base: Encoder, experts: dict[str, Encoder], calibration: dict[str, Calibration]
) -> None:
    method, _, correction = name.partition("+")
    own = {"steps": 2} if method == "we_moe" else {}
    stacked = merging.create(name, **own, **{correction: {"steps": 3}})
    with torch.no_grad():  # as a caller may have it
        merged = stacked.merge(base, experts, calibration=calibration)
    again = stacked.restore(base, dict(merged.parts))
    for task in TASKS:
        found = calibration[task]
        one, two = (m.classifier(task, found.head)(found.images) for m in (merged, again))
        assert torch.equal(one, two)
        assert not torch.equal(
            one,
            stacked.method.restore(base, stacked_parts(merged.parts)).classifier(task, found.head)(found.images),
        )


def stacked_parts(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("merge/"): t for name, t in parts.items() if name.startswith("merge/")}


@pytest.mark.parametrize("name", ["fisher", "regmean", "adamerging", "we_moe", "ties+surgery", "ties+surgery_v2"])
def test_nothing_is_learnt_in_half_precision(
    name: str, base: Encoder, calibration: dict[str, Calibration]
) -> None:
    half = base.with_state({n: t.half() for n, t in base.state().items()})
    with pytest.raises(UserError, match="single precision"):
        merging.create(name).merge(half, {"first": half}, calibration=calibration)


def test_experts_in_training_mode_are_seen_as_they_will_be_used(
    base: Encoder, experts: dict[str, Encoder], calibration: dict[str, Calibration]
) -> None:
    for name in ("weight_averaging+surgery", "weight_averaging+surgery_v2"):
        correction = name.partition("+")[2]
        method = merging.create(name, **{correction: {"steps": 2}})
        usual = method.merge(base, experts, calibration=calibration)
        for expert in experts.values():
            expert.train()
            expert.backbone.embeddings.dropout.p = 0.5
        trained = method.merge(base, experts, calibration=calibration)
        for expert in experts.values():
            expert.backbone.embeddings.dropout.p = 0.0
            expert.eval()
        for key, value in usual.parts.items():
            assert torch.equal(trained.parts[key], value), key


@pytest.mark.parametrize(
    ("name", "parameters", "count"),
    [
        ("slerp", {}, 3),
        ("slerp", {}, 1),
        ("consensus", {"agreement": 4}, 3),
        ("consensus", {"threshold": [0.2, 0.4]}, 3),
        ("weight_averaging", {"coefficients": [0.5, 0.5]}, 3),
        ("task_arithmetic", {"scaling": [0.1]}, 2),
        ("task_arithmetic+surgery", {"scaling": [0.1]}, 2),
    ],
)
def test_a_wrong_number_of_experts_is_known_at_once(name: str, parameters: dict[str, object], count: int) -> None:
    with pytest.raises(UserError):
        merging.create(name, **parameters).check_count(count)


def test_tensors_tied_in_the_base_alone_are_not_dropped() -> None:
    shared = torch.zeros(3)
    base = {"a": shared, "b": shared}
    with pytest.raises(UserError, match="'b' is not 'a'"):
        merging.merge_state_dicts("weight_averaging", base, [{"a": torch.ones(3), "b": torch.full((3,), 5.0)}])


def test_what_a_study_file_can_get_wrong_about_a_method_is_said() -> None:
    with pytest.raises(UserError, match="name: unknown field"):
        merging.create("ties", name="x")
    with pytest.raises(UserError, match="takes a mapping"):
        merging.create("ties+surgery", surgery=8)
