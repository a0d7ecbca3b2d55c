"""Fisher, RegMean, RegMean++, ESM and AdaMerging++ against the naive transcriptions, and properties that must hold for any data."""

from __future__ import annotations

import copy
import itertools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mergerisk.errors import UserError
from mergerisk.merging import Calibration, create
from mergerisk.merging.adamerging import draw
from mergerisk.models import Encoder, load_encoder
from mergerisk.models.core.classifier import Head
from mergerisk.randomness import generator
from tests.merging.test_batch_norm import conv_encoder
from tests.naive import data_methods as naive
from tests.naive import merging as naive_merging
from tests.tiny import tiny_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    State = dict[str, Tensor]

TASKS = ("one", "two", "three")
KINDS = ("mlp", "vit", "conv", "attention")
METHODS: dict[str, dict[str, Any]] = {
    "fisher": {},
    "regmean": {},
    "regmean_plus_plus": {},
    "esm": {"examples": 256},
    "adamerging_plus_plus": {"steps": 3, "batches": 1, "batch_size": 8},
}


class AttentionBackbone(nn.Module):
    """Tokens, PyTorch's own attention with packed weights, and a linear layer: 3 × 4 × 4 → 5 features."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.project = nn.Linear(8, 5)

    @staticmethod
    def patches(pixels: Tensor) -> Tensor:
        """N × 3 × 4 × 4 → N × 4 tokens × 12."""
        return pixels.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = torch.tanh(self.embed(self.patches(pixels)))
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        features: Tensor = self.project(tokens.mean(dim=1))
        return features

    def inputs(self, pixels: Tensor) -> dict[str, Tensor]:
        """What every linear map reads, token by token, from the equations of attention."""
        patches = self.patches(pixels)
        found = {"embed.weight": patches.flatten(0, 1)}
        tokens = torch.tanh(patches @ self.embed.weight.T + self.embed.bias)
        found["attention.in_proj_weight"] = tokens.flatten(0, 1)
        attended = []
        packed = self.attention.in_proj_weight.split(8), self.attention.in_proj_bias.split(8)
        for own in tokens:
            query, key, value = (own @ weight.T + bias for weight, bias in zip(*packed, strict=True))
            heads = [
                torch.softmax(query[:, part] @ key[:, part].T / 2.0, dim=1) @ value[:, part]
                for part in (slice(0, 4), slice(4, 8))
            ]
            attended.append(torch.cat(heads, dim=1))
        context = torch.stack(attended)
        found["attention.out_proj.weight"] = context.flatten(0, 1)
        out = self.attention.out_proj
        found["project.weight"] = (tokens + context @ out.weight.T + out.bias).mean(dim=1)
        return found


def moved(encoder: Encoder, seed: int, spread: float) -> Encoder:
    """A copy whose floating tensors are a little away."""
    draws = torch.Generator().manual_seed(seed)
    state = {
        name: tensor + torch.randn(tensor.shape, generator=draws) * spread
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in encoder.state().items()
    }
    return encoder.with_state(state)


def attention_encoder(seed: int = 0) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = AttentionBackbone()
    encoder = Encoder(backbone, width=5, image_size=4, mean=(0.5,) * 3, std=(0.5,) * 3)
    return moved(encoder, seed, 0.1)


@dataclass
class Material:
    base: Encoder
    experts: dict[str, Encoder]
    calibration: dict[str, Calibration]

    def merge(self, name: str, **parameters: Any) -> State:
        """The merged state; statistics averaged, so that nothing but the method itself is at work."""
        seed = parameters.pop("seed", 0)
        merged = create(name, **METHODS.get(name, {}) | parameters).merge(
            self.base, self.experts, calibration=self.calibration, seed=seed, batch_norm="average"
        )
        return merged.encoder.state()

    def with_images(self, change: Callable[[Tensor], Tensor]) -> Material:
        calibration = {
            task: replace(found, images=change(found.images)) for task, found in self.calibration.items()
        }
        return replace(self, calibration=calibration)

    def only(self, tasks: Sequence[str]) -> Material:
        return replace(self, experts={task: self.experts[task] for task in tasks})


@pytest.fixture
def material(tiny_vit: Path) -> Callable[..., Material]:
    def make(
        kind: str = "mlp",
        *,
        images: int = 8,
        tasks: Sequence[str] = TASKS[:2],
        dtype: torch.dtype = torch.float64,
    ) -> Material:
        seeds = range(len(tasks) + 1)
        if kind == "vit":
            start = load_encoder(str(tiny_vit))
            base, *experts = [moved(start, seed, 0.05) for seed in seeds]
        else:
            create_one = {"mlp": tiny_encoder, "conv": conv_encoder, "attention": attention_encoder}[kind]
            base, *experts = [create_one(seed) for seed in seeds]
        calibration = {}
        for position, task in enumerate(tasks):
            draws = torch.Generator().manual_seed(50 + position)
            pixels = torch.rand(images, 3, base.image_size, base.image_size, generator=draws)
            classes = 3 + position
            weight = torch.randn(classes, base.width, generator=draws)
            head = Head(weight, torch.randn(classes, generator=draws) * 0.1)
            calibration[task] = Calibration((pixels * 0.6 + 0.2 * position).clamp(0, 1), head)
        encoders = [encoder.to(dtype) for encoder in (base, *experts)]
        return Material(encoders[0], dict(zip(tasks, encoders[1:], strict=True)), calibration)

    return make


# --- the truth about a material --------------------------------------------------------------------------


def twin(encoder: Encoder) -> Encoder:
    """A copy in float64 whose parameters take gradients."""
    return copy.deepcopy(encoder).double().eval().requires_grad_(True)


def chosen(images: Tensor, examples: int, seed: int, *names: str) -> Tensor:
    """The first ``examples`` images of the seeded permutation."""
    return images[torch.randperm(len(images), generator=generator(seed, *names))[:examples]].double()


def task_fisher(
    encoder: Encoder, found: Calibration, images: Tensor, labels: Sequence[int] | None = None
) -> State:
    model = twin(encoder)
    weight, bias = found.head.weight.double(), found.head.bias.double()

    def classifier(pixels: Tensor) -> Tensor:
        logits: Tensor = model(pixels) @ weight.T + bias
        return logits

    return naive.diagonal_fisher(classifier, dict(model.backbone.named_parameters()), images, labels)


def doubles(encoder: Encoder) -> State:
    return {name: t.double() for name, t in encoder.state().items() if t.is_floating_point()}


def averaged(setting: Material) -> State:
    return {
        name: naive.mean([doubles(expert)[name] for expert in setting.experts.values()])
        for name in doubles(setting.base)
    }


def true_fisher(
    setting: Material, *, examples: int = 256, floor: float = 1e-6, flooring: str = "normalised", seed: int = 0
) -> State:
    fishers = [
        task_fisher(
            expert,
            setting.calibration[task],
            chosen(setting.calibration[task].images, examples, seed, "fisher", task),
        )
        for task, expert in setting.experts.items()
    ]
    states = [doubles(expert) for expert in setting.experts.values()]
    return averaged(setting) | naive.fisher(fishers, states, floor, flooring)


def linear_inputs(encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
    """Weight's name → every row that the linear layer reads, over all images and tokens."""
    model = twin(encoder)
    backbone = model.backbone
    if isinstance(backbone, AttentionBackbone):
        return {name: rows.detach() for name, rows in backbone.inputs((images - model.mean) / model.std).items()}
    rows: dict[str, list[Tensor]] = {}
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Linear):

            def record(_: nn.Module, given: tuple[Tensor], name: str = name) -> None:
                rows.setdefault(f"{name}.weight", []).append(given[0].detach().reshape(-1, given[0].shape[-1]))

            layer.register_forward_pre_hook(record)
    for image in images:
        model(image[None])
    return {name: torch.cat(found) for name, found in rows.items()}


def true_inputs(setting: Material, *, examples: int = 256, seed: int = 0) -> dict[str, list[Tensor]]:
    """Weight's name → the rows of every expert on its own task."""
    found = [
        linear_inputs(expert, chosen(setting.calibration[task].images, examples, seed, "regmean", task))
        for task, expert in setting.experts.items()
    ]
    return {name: [own[name] for own in found] for name in found[0]}


def true_regmean(setting: Material, *, examples: int = 256, non_diagonal: float = 0.95, seed: int = 0) -> State:
    merged = averaged(setting)
    for name, inputs in true_inputs(setting, examples=examples, seed=seed).items():
        weights = [doubles(expert)[name] for expert in setting.experts.values()]
        merged[name] = naive.regmean(inputs, weights, non_diagonal)
    return merged


def block_of(weight: str) -> str:
    """The block that a linear layer belongs to: a numbered one, PyTorch's attention, or the layer itself."""
    numbered = re.match(r"(.*?\.\d+)\.", weight)
    if numbered:
        return numbered[1]
    return "attention" if weight.startswith("attention.") else weight.removesuffix(".weight")


def true_regmean_plus_plus(
    setting: Material, *, examples: int = 256, non_diagonal: float = 0.95, seed: int = 0
) -> State:
    """Block after block, in the order in which they run: the whole model, merged up to there, with one expert's
    block in it."""
    merged = averaged(setting)
    whole = setting.base.state()
    images = {
        task: chosen(setting.calibration[task].images, examples, seed, "regmean_plus_plus", task)
        for task in setting.experts
    }
    read = linear_inputs(setting.base, next(iter(images.values()))[:1])
    for block in dict.fromkeys(block_of(name) for name in read):
        names = [name for name in whole if name.startswith(f"{block}.")]
        names += [name for name in whole if block == "again" and name.startswith("once_more.")]
        inputs: dict[str, list[Tensor]] = {}
        for task, expert in setting.experts.items():
            state = {name: merged.get(name, tensor) for name, tensor in whole.items()}
            state |= {name: expert.state()[name].to(state[name].dtype) for name in names}
            for name, rows in linear_inputs(setting.base.with_state(state), images[task]).items():
                if block_of(name) == block:
                    inputs.setdefault(name, []).append(rows)
        for name, own in inputs.items():
            weights = [doubles(expert)[name] for expert in setting.experts.values()]
            merged[name] = naive.regmean(own, weights, non_diagonal)
            if block == "again":
                merged["once_more.weight"] = merged[name]
    return merged


def true_esm(
    setting: Material,
    *,
    examples: int = 256,
    polarisation: float = 2.0,
    weighting: float = 0.0,
    scaling: float = 1.0,
    seed: int = 0,
) -> State:
    base, means = doubles(setting.base), averaged(setting)
    inputs = [
        linear_inputs(expert, chosen(setting.calibration[task].images, examples, seed, "esm", task))
        for task, expert in setting.experts.items()
    ]
    changes = {
        name: naive.esm_layer(
            [own[name] for own in inputs],
            [doubles(expert)[name] - base[name] for expert in setting.experts.values()],
            polarisation,
            weighting,
        )
        for name in inputs[0]
    }
    kinds: dict[str, list[str]] = {}
    for name in changes:
        kinds.setdefault("".join(part for part in name if not part.isdigit()), []).append(name)
    statistics = [name for name in base if "running_" in name]
    merged = {
        name: means[name] if name in statistics else tensor + scaling * (means[name] - tensor)
        for name, tensor in base.items()
    }
    for names in kinds.values():
        norms = [float(changes[name].square().sum()) ** 0.5 for name in names]
        for name, factor in zip(names, naive.relative(norms, polarisation), strict=True):
            merged[name] = base[name] + scaling * factor * changes[name]
    return merged


TRUTHS: dict[str, Callable[..., State]] = {
    "fisher": true_fisher,
    "regmean": true_regmean,
    "regmean_plus_plus": true_regmean_plus_plus,
    "esm": true_esm,
}


def assert_close(actual: State, expected: Mapping[str, Tensor], tolerance: float = 1e-9) -> None:
    for name, tensor in expected.items():
        found = actual[name].double()
        close = torch.allclose(found, tensor.double(), rtol=tolerance, atol=tolerance)
        assert close, f"{name}: {float((found - tensor).abs().max()):.2e} apart"


# --- the naive methods, checked by themselves ------------------------------------------------------------


def test_naive_fisher_has_its_closed_form() -> None:
    """For logits W x: F of W[c, j] is p_c (1 − p_c) x_j²."""
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, generator=draws, dtype=torch.float64, requires_grad=True)
    unused = torch.ones(2, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(5, 3, generator=draws, dtype=torch.float64)

    def classifier(x: Tensor) -> Tensor:
        return x @ weight.T

    found = naive.diagonal_fisher(classifier, {"w": weight, "unused": unused}, rows)
    p = torch.softmax(rows @ weight.detach().T, dim=1)
    expected = torch.einsum("nc,nj->cj", p * (1 - p), rows**2) / 5
    torch.testing.assert_close(found["w"], expected, rtol=1e-12, atol=0)
    assert found["unused"].tolist() == [0, 0]
    labels = [0, 3, 1, 1, 2]
    sampled = naive.diagonal_fisher(classifier, {"w": weight}, rows, labels)
    residual = F.one_hot(torch.tensor(labels), 4) - p
    torch.testing.assert_close(
        sampled["w"], torch.einsum("nc,nj->cj", residual**2, rows**2) / 5, rtol=1e-12, atol=0
    )


def test_naive_regmean_is_least_squares() -> None:
    draws = torch.Generator().manual_seed(1)
    inputs = [torch.randn(rows, 6, generator=draws, dtype=torch.float64) for rows in (20, 9, 35)]
    weights = [torch.randn(4, 6, generator=draws, dtype=torch.float64) for _ in inputs]
    merged = naive.regmean(inputs, weights, 1.0)
    torch.testing.assert_close(merged, naive.least_squares(inputs, weights), rtol=1e-10, atol=1e-12)
    best = naive.regression_error(inputs, weights, merged)
    for _ in range(20):
        step = torch.randn(4, 6, generator=draws, dtype=torch.float64) * 1e-3
        assert naive.regression_error(inputs, weights, merged + step) > best


def test_naive_elected_vectors_sum_to_ties() -> None:
    draws = torch.Generator().manual_seed(2)
    base = {"a": torch.randn(5, 6, generator=draws).double(), "b": torch.randn(7, generator=draws).double()}
    experts = [
        {name: t + torch.randn(t.shape, generator=draws).double() for name, t in base.items()} for _ in range(3)
    ]
    vectors = naive.elected_task_vectors(base, experts, 0.4)
    summed = {name: base[name] + sum(vector[name] for vector in vectors) for name in base}
    assert_close(summed, naive_merging.ties(base, experts, 1.0, 0.4, "sum"), 1e-12)
    for name in base:
        signs = torch.stack([vector[name].sign() for vector in vectors])
        assert bool(((signs >= 0).all(dim=0) | (signs <= 0).all(dim=0)).all())


def test_the_attention_written_out_is_pytorchs() -> None:
    encoder = attention_encoder(1).double()
    backbone = encoder.backbone
    assert isinstance(backbone, AttentionBackbone)
    pixels = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    features = backbone.project(backbone.inputs(pixels)["project.weight"])
    torch.testing.assert_close(features, backbone(pixels), rtol=1e-12, atol=1e-12)


# --- against the naive methods ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRUTHS)
def test_matches_naive(material: Callable[..., Material], name: str, kind: str) -> None:
    setting = material(kind, images=6 if kind == "vit" else 20)
    merged = setting.merge(name)
    expected = TRUTHS[name](setting)
    assert_close(merged, expected)
    assert set(merged) == set(setting.base.state())
    gap = max(float((expected[key] - averaged(setting)[key]).abs().max()) for key in expected)
    assert gap > 1e-3  # it is not the plain mean


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRUTHS)
def test_matches_naive_in_single_precision(material: Callable[..., Material], name: str, kind: str) -> None:
    setting = material(kind, images=4 if kind == "vit" else 12, dtype=torch.float32)
    merged = setting.merge(name)
    assert all(merged[key].dtype == tensor.dtype for key, tensor in setting.base.state().items())
    # Experts are 0.1 apart: a relative 1e-4 of the Fisher, and a Gram matrix's condition of about 1e3.
    assert_close(merged, TRUTHS[name](setting), 2e-5 if name == "fisher" else 2e-4)


@pytest.mark.parametrize("examples", [1, 5, 19])
@pytest.mark.parametrize("name", TRUTHS)
def test_examples_are_the_first_of_a_seeded_permutation(
    material: Callable[..., Material], name: str, examples: int
) -> None:
    setting = material(images=20)
    for seed in (0, 3):
        merged = setting.merge(name, examples=examples, seed=seed)
        assert_close(merged, TRUTHS[name](setting, examples=examples, seed=seed), 1e-8)


@pytest.mark.parametrize("name", TRUTHS)
def test_many_images_in_any_order_are_one_sum(material: Callable[..., Material], name: str) -> None:
    """However an implementation cuts 301 images into batches and chunks, with what remains at the end."""
    setting = material(images=301)
    merged = setting.merge(name, examples=301)
    assert_close(merged, TRUTHS[name](setting, examples=301), 1e-8)
    order = torch.randperm(301, generator=torch.Generator().manual_seed(9))
    assert_close(setting.with_images(lambda images: images[order]).merge(name, examples=301), merged)
    doubled = setting.with_images(lambda images: torch.cat([images, images]))
    assert_close(doubled.merge(name, examples=1000), merged)


@pytest.mark.parametrize("kind", ["vit", "conv", "attention"])
@pytest.mark.parametrize("name", TRUTHS)
def test_images_do_not_meet_in_a_batch(material: Callable[..., Material], name: str, kind: str) -> None:
    setting = material(kind, images=7)
    merged = setting.merge(name)
    doubled = setting.with_images(lambda images: torch.cat([images.flip(0)] * 3))
    assert_close(doubled.merge(name), merged)


@pytest.mark.parametrize("name", TRUTHS)
def test_tasks_may_have_images_of_different_sizes_and_numbers(
    material: Callable[..., Material], name: str
) -> None:
    setting = material(images=9)
    large = torch.rand(5, 3, 7, 6, generator=torch.Generator().manual_seed(4))
    setting.calibration["two"] = replace(setting.calibration["two"], images=large)
    assert_close(setting.merge(name), TRUTHS[name](setting), 1e-5)  # images are resized in single precision


@pytest.mark.parametrize("flooring", ["normalised", "raw", "added"])
@pytest.mark.parametrize("floor", [1e-12, 1e-3, 0.05, 1e3])
def test_fishers_floor_is_set_before_or_after_it_is_normalised(
    material: Callable[..., Material], floor: float, flooring: str
) -> None:
    setting = material()
    merged = setting.merge("fisher", floor=floor, flooring=flooring)
    assert_close(merged, true_fisher(setting, floor=floor, flooring=flooring), 1e-8)
    if floor == 1e3 and flooring == "normalised":
        assert_close(merged, averaged(setting))


@pytest.mark.parametrize(
    ("flooring", "first", "second"),
    [
        ("normalised", (0.6, 0.8, 0.1), (0.6, 0.8, 0.1)),  # alike, so that both experts weigh alike
        ("raw", (3 / 5, 4 / 5, 0.1 / 5), (0.1 / 0.05, 0.1 / 0.05, 0.1 / 0.05)),
        ("added", (3.1 / 5.1, 4.1 / 5.1, 0.1 / 5.1), (0.13 / 0.15, 0.14 / 0.15, 0.1 / 0.15)),
    ],
)
def test_what_a_floor_does_to_experts_of_different_confidence(
    flooring: str, first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    """Fisher information (3, 4, 0) and a hundredth of it, of norms 5 and 0.05, under a floor of 0.1."""
    for scale, expected in ((1.0, first), (0.01, second)):
        found = naive.floored({"w": torch.tensor([3.0, 4.0, 0.0]).double() * scale}, 0.1, flooring)
        torch.testing.assert_close(found["w"], torch.tensor(expected).double())


def test_sampled_fisher_draws_one_label_per_image(material: Callable[..., Material]) -> None:
    """Of all label sequences there could be, exactly one explains the merge."""
    setting = material(images=2)
    states = [doubles(expert) for expert in setting.experts.values()]
    options = [
        [
            task_fisher(setting.experts[task], found, found.images.double(), labels)
            for labels in itertools.product(range(len(found.head.weight)), repeat=2)
        ]
        for task, found in setting.calibration.items()
    ]
    candidates = [naive.fisher(pair, states) for pair in itertools.product(*options)]
    assert len(candidates) == 9 * 16
    for seed in range(5):
        merged = setting.merge("fisher", classes="sampled", seed=seed)
        fitting = [
            all(bool(torch.allclose(merged[name], value, rtol=1e-9, atol=1e-9)) for name, value in wanted.items())
            for wanted in candidates
        ]
        assert sum(fitting) == 1


def test_sampled_labels_follow_the_models_own_probabilities(material: Callable[..., Material]) -> None:
    setting = material(images=1)
    states = [doubles(expert) for expert in setting.experts.values()]
    options = [
        [
            task_fisher(setting.experts[task], found, found.images.double(), [label])
            for label in range(len(found.head.weight))
        ]
        for task, found in setting.calibration.items()
    ]
    candidates = [naive.fisher(pair, states)["first.weight"] for pair in itertools.product(*options)]
    seeds = 200
    counts = torch.zeros(len(candidates))
    for seed in range(seeds):
        weight = setting.merge("fisher", classes="sampled", seed=seed)["first.weight"]
        gaps = torch.stack([(weight - wanted).abs().max() for wanted in candidates])
        assert float(gaps.min()) < 1e-9
        counts[gaps.argmin()] += 1
    observed = counts.view(len(options[0]), len(options[1])) / seeds
    for axis, (task, found) in enumerate(setting.calibration.items()):
        logits = found.head(setting.experts[task](found.images))[0]
        share = torch.softmax(logits, dim=0).float()
        deviation = (share * (1 - share) / seeds).sqrt()
        assert bool(((observed.sum(dim=1 - axis) - share).abs() < 4 * deviation + 1e-9).all())


def test_expected_fisher_is_the_mean_of_sampled_ones() -> None:
    """The two transcriptions belong together: E over y ~ p of the sampled Fisher is the expected one."""
    encoder = tiny_encoder(1)
    draws = torch.Generator().manual_seed(3)
    found = Calibration(
        torch.rand(1, 3, 4, 4, generator=draws), Head(torch.randn(3, 6, generator=draws), torch.zeros(3))
    )
    images = found.images.double()
    share = torch.softmax(found.head(encoder(found.images))[0].double(), dim=0)
    sampled = [task_fisher(encoder, found, images, [label]) for label in range(3)]
    for name, value in task_fisher(encoder, found, images).items():
        mixed = sum(float(p) * own[name] for p, own in zip(share, sampled, strict=True))
        torch.testing.assert_close(value, mixed, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fisher_of_certain_models_is_still_a_merge(material: Callable[..., Material], dtype: torch.dtype) -> None:
    """One class, or logits so far apart that every other probability is 0: no information, no NaN."""
    setting = material(dtype=dtype)
    for task, found in setting.calibration.items():
        setting.calibration[task] = replace(found, head=Head(torch.ones(1, 6), torch.zeros(1)))
    assert_close(setting.merge("fisher"), averaged(setting), 1e-6)
    for task, found in setting.calibration.items():
        weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(8)) * 1e6
        setting.calibration[task] = replace(found, head=Head(weight, torch.zeros(4)))
    for classes in ("expected", "sampled"):
        merged = setting.merge("fisher", classes=classes)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in merged.values())


@pytest.mark.parametrize("non_diagonal", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_regmean_scales_what_is_off_the_diagonal(
    material: Callable[..., Material], kind: str, non_diagonal: float
) -> None:
    setting = material(kind, images=40, tasks=TASKS)
    merged = setting.merge("regmean", non_diagonal=non_diagonal)
    assert_close(merged, true_regmean(setting, non_diagonal=non_diagonal), 1e-8)


def test_regmean_with_the_whole_gram_matrix_is_least_squares(material: Callable[..., Material]) -> None:
    setting = material(images=40)
    merged = setting.merge("regmean", non_diagonal=1.0)
    for name, inputs in true_inputs(setting).items():
        weights = [doubles(expert)[name] for expert in setting.experts.values()]
        assert_close({"w": merged[name]}, {"w": naive.least_squares(inputs, weights)}, 1e-8)


def test_regmean_with_fewer_rows_than_inputs_still_minimises(material: Callable[..., Material]) -> None:
    """5 + 5 rows for 48 inputs: many minimisers, and none of them may be wild."""
    setting = material(images=5)
    merged = setting.merge("regmean", non_diagonal=1.0)
    for name, inputs in true_inputs(setting).items():
        weights = [doubles(expert)[name] for expert in setting.experts.values()]
        best = naive.regression_error(inputs, weights, naive.least_squares(inputs, weights))
        scale = naive.regression_error(inputs, weights, naive.mean(weights))
        assert naive.regression_error(inputs, weights, merged[name]) <= best + 1e-6 * scale
        assert float(merged[name].abs().max()) < 10 * float(torch.stack(weights).abs().max())


def test_regmean_of_the_diagonal_alone_is_a_mean_per_input(material: Callable[..., Material]) -> None:
    setting = material(images=30, tasks=TASKS)
    merged = setting.merge("regmean", non_diagonal=0.0)
    for name, inputs in true_inputs(setting).items():
        power = torch.stack([(rows**2).mean(dim=0) for rows in inputs])
        weights = torch.stack([doubles(expert)[name] for expert in setting.experts.values()])
        wanted = (power[:, None, :] * weights).sum(dim=0) / power.sum(dim=0)
        assert_close({"w": merged[name]}, {"w": wanted})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("non_diagonal", [0.0, 0.95, 1.0])
def test_regmean_survives_inputs_that_are_always_zero(
    material: Callable[..., Material], non_diagonal: float, dtype: torch.dtype
) -> None:
    """Of a dead input nothing is known: its weights are averaged; the others do not notice."""
    setting = material(images=60, dtype=dtype)

    def dim(images: Tensor) -> Tensor:
        dark = images.clone()
        dark[:, 0, 0, :2] = 0.5  # the encoder takes 0.5 away
        return dark

    dead = setting.with_images(dim)
    merged = dead.merge("regmean", non_diagonal=non_diagonal)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in merged.values())
    assert_close(
        merged,
        true_regmean(dead, non_diagonal=non_diagonal),
        1e-8 if dtype == torch.float64 else 1e-3,
    )
    first = merged["first.weight"][:, :2].double()
    torch.testing.assert_close(first, averaged(dead)["first.weight"][:, :2], rtol=1e-6, atol=1e-6)


def test_regmean_plus_plus_differs_from_regmean_once_something_merged_is_read(
    material: Callable[..., Material],
) -> None:
    setting = material("attention", images=20)  # all of which are read
    one, two = setting.merge("regmean"), setting.merge("regmean_plus_plus")
    assert_close(two, {"embed.weight": one["embed.weight"]})
    assert float((one["attention.in_proj_weight"] - two["attention.in_proj_weight"]).abs().max()) > 1e-4


@pytest.mark.parametrize("kind", ["vit", "attention"])
@pytest.mark.parametrize(
    "parameters",
    [{"polarisation": 0.0}, {"weighting": 0.15, "scaling": 0.5}, {"polarisation": 1.0, "examples": 3}],
)
def test_esm_with_other_hyper_parameters(
    material: Callable[..., Material], kind: str, parameters: dict[str, Any]
) -> None:
    setting = material(kind, images=6, tasks=TASKS)
    assert_close(setting.merge("esm", **parameters), true_esm(setting, **parameters), 1e-8)


def test_esm_of_one_task_is_its_matrix_with_a_flat_spectrum(material: Callable[..., Material]) -> None:
    """All directions are kept, whatever the images: ‖Δ‖ = mean σ · √rank, and Δ is as much along τ as it can be."""
    setting = material(images=60, tasks=TASKS[:1])
    merged = setting.merge("esm", polarisation=0.0)
    for name in ("first.weight", "second.weight"):
        tau = doubles(setting.experts["one"])[name] - doubles(setting.base)[name]
        values = torch.linalg.svdvals(tau)
        change = merged[name] - doubles(setting.base)[name]
        torch.testing.assert_close(
            torch.linalg.svdvals(change), values.mean().expand_as(values), rtol=1e-6, atol=0
        )
        along = float((change * tau).sum())
        assert along == pytest.approx(float(values.mean() * values.sum()), rel=1e-6)


class Odd(nn.Module):
    """A layer that runs twice, under two names, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 6)
        self.again = nn.Linear(6, 6)
        self.once_more = self.again
        self.unused = nn.Linear(6, 6)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(pixels.flatten(1)))
        features: Tensor = self.once_more(torch.tanh(self.again(hidden)))
        return features


def odd_material() -> Material:
    def one(seed: int) -> Encoder:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder = Encoder(Odd(), width=6, image_size=2, mean=(0.5,) * 3, std=(0.5,) * 3)
        return encoder.double().requires_grad_(False).eval()

    draws = torch.Generator().manual_seed(6)
    calibration = {}
    for task in TASKS[:2]:
        head = Head(torch.randn(4, 6, generator=draws), torch.zeros(4))
        calibration[task] = Calibration(torch.rand(25, 3, 2, 2, generator=draws), head)
    return Material(one(0), {"one": one(1), "two": one(2)}, calibration)


@pytest.mark.parametrize("name", TRUTHS)
def test_a_layer_that_runs_twice_counts_twice_and_one_that_never_runs_is_averaged(name: str) -> None:
    setting = odd_material()
    merged = setting.merge(name)
    expected = TRUTHS[name](setting)
    for own in ("weight", "bias"):
        expected[f"once_more.{own}"] = expected[f"again.{own}"]  # one tensor under two names
        assert_close({own: expected[f"unused.{own}"]}, {own: averaged(setting)[f"unused.{own}"]}, 1e-12)
    assert_close(merged, expected)


# --- AdaMerging++ ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.2, 0.6])
def test_adamerging_plus_plus_matches_naive(material: Callable[..., Material], density: float) -> None:
    setting = material(images=30, tasks=TASKS, dtype=torch.float32)
    method = create("adamerging_plus_plus", density=density, steps=6, learning_rate=0.02, batches=1, batch_size=8)
    merged = method.merge(setting.base, setting.experts, calibration=setting.calibration, seed=3)
    pretrained = doubles(setting.base)
    vectors = naive.elected_task_vectors(
        pretrained, [doubles(expert) for expert in setting.experts.values()], density
    )
    sharpened = [{name: pretrained[name] + vector[name] for name in vector} for vector in vectors]
    draws = {task: generator(3, "adamerging", task) for task in TASKS}
    steps = [
        [[(draw(setting.calibration[task].images, 8, draws[task]).double() - 0.5) / 0.5] for task in TASKS]
        for _ in range(6)
    ]
    heads = [
        lambda z, head=setting.calibration[task].head: z @ head.weight.double().T + head.bias.double()
        for task in TASKS
    ]
    lambdas, state = naive_merging.adamerging(
        tiny_encoder().backbone.double(), pretrained, sharpened, heads, steps, lr=0.02
    )
    learnt = torch.stack(list(merged.coefficients.values()), dim=1)
    assert learnt.shape == lambdas.shape == (3, 4)
    assert float((learnt - 0.3).abs().max()) > 0.01  # it did learn
    torch.testing.assert_close(learnt.double(), lambdas, atol=1e-5, rtol=0)
    assert_close(merged.encoder.state(), state, 1e-5)


def test_adamerging_plus_plus_starts_as_summed_ties(material: Callable[..., Material]) -> None:
    for kind in KINDS:
        setting = material(kind, tasks=TASKS, dtype=torch.float32)
        merged = setting.merge("adamerging_plus_plus", steps=1, learning_rate=1e-9)
        names = [name for name, _ in setting.base.backbone.named_parameters()]
        states = [
            {name: encoder.state()[name] for name in names}
            for encoder in (setting.base, *setting.experts.values())
        ]
        assert_close(merged, naive_merging.ties(states[0], states[1:], 0.3, 0.2, "sum"), 1e-6)


# --- properties ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(set(TRUTHS) - {"esm"}))  # which keeps a part of it
def test_copies_of_one_expert_merge_to_that_expert(
    material: Callable[..., Material], name: str, kind: str
) -> None:
    setting = material(kind, images=4, tasks=TASKS)
    setting.experts = {task: copy.deepcopy(setting.experts["one"]) for task in TASKS}
    assert_close(setting.merge(name), doubles(setting.experts["one"]))


@pytest.mark.parametrize("non_diagonal", [0.0, 0.95, 1.0])
def test_copies_merge_to_the_expert_however_few_the_images(
    material: Callable[..., Material], non_diagonal: float
) -> None:
    setting = material(images=1)
    setting.experts = {task: copy.deepcopy(setting.experts["one"]) for task in TASKS[:2]}
    merged = setting.with_images(lambda images: images.round()).merge("regmean", non_diagonal=non_diagonal)
    assert_close(merged, doubles(setting.experts["one"]), 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_order_of_experts_does_not_matter(material: Callable[..., Material], name: str, kind: str) -> None:
    learns = name == "adamerging_plus_plus"
    setting = material(kind, images=4, tasks=TASKS, dtype=torch.float32 if learns else torch.float64)
    merged = setting.merge(name, seed=1)
    turned = setting.only(TASKS[::-1])
    turned.calibration = {task: setting.calibration[task] for task in ("two", "three", "one")}
    if learns:
        # The softmax does not see a key's bias: its slope is rounding, which Adam scales to a full step.
        merged = {key: tensor for key, tensor in merged.items() if not key.endswith("k_proj.bias")}
    assert_close(turned.merge(name, seed=1), merged, 1e-6 if learns else 1e-9)


@pytest.mark.parametrize("classes", ["expected", "sampled"])
@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_bits(material: Callable[..., Material], name: str, classes: str) -> None:
    setting = material(images=30, dtype=torch.float32)
    parameters: dict[str, Any] = {} if name == "adamerging_plus_plus" else {"examples": 6}
    if name == "fisher":
        parameters["classes"] = classes
    one, two, other = (setting.merge(name, **parameters, seed=seed) for seed in (4, 4, 5))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    torch.manual_seed(1)  # nor does the global generator matter
    assert all(torch.equal(one[key], tensor) for key, tensor in setting.merge(name, **parameters, seed=4).items())


@pytest.mark.parametrize("name", METHODS)
def test_global_state_is_left_alone(material: Callable[..., Material], name: str) -> None:
    setting = material("attention", dtype=torch.float32)

    def settings() -> tuple[object, ...]:
        return (
            torch.random.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
            [torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()],
        )

    before = settings()
    setting.merge(name)
    assert settings() == before


@pytest.mark.parametrize("name", METHODS)
def test_integer_buffers_are_copied(material: Callable[..., Material], name: str) -> None:
    setting = material("conv", dtype=torch.float32)
    merged = setting.merge(name)
    for key, tensor in setting.base.state().items():
        if not tensor.is_floating_point():
            assert torch.equal(merged[key], tensor)
            assert merged[key].dtype == tensor.dtype
            assert merged[key].data_ptr() != tensor.data_ptr()


def hooks(encoder: Encoder) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in encoder.modules()
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_inputs_are_left_alone(material: Callable[..., Material], name: str, kind: str) -> None:
    setting = material(kind, images=4, dtype=torch.float32)
    encoders = [setting.base, *setting.experts.values()]
    before = [{key: tensor.clone() for key, tensor in encoder.state().items()} for encoder in encoders]
    images = {task: found.images.clone() for task, found in setting.calibration.items()}
    merged = create(name, **METHODS[name]).merge(
        setting.base, setting.experts, calibration=setting.calibration, batch_norm="average"
    )
    assert all(hooks(encoder) == 0 for encoder in (*encoders, merged.encoder))
    with torch.no_grad():
        for tensor in merged.encoder.state().values():
            tensor.zero_()
    for encoder, state in zip(encoders, before, strict=True):
        assert not encoder.training
        assert all(torch.equal(tensor, state[key]) for key, tensor in encoder.state().items())
        assert all(not p.requires_grad and p.grad is None for p in encoder.parameters())
    assert all(torch.equal(setting.calibration[task].images, images[task]) for task in images)


@pytest.mark.parametrize("name", METHODS)
def test_hooks_are_gone_after_a_failure_too(material: Callable[..., Material], name: str) -> None:
    setting = material().with_images(lambda images: images.repeat(1, 2, 1, 1))  # six channels
    with pytest.raises((RuntimeError, ValueError)):
        setting.merge(name)
    assert all(hooks(encoder) == 0 for encoder in (setting.base, *setting.experts.values()))


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_callers_gradient_mode_does_not_matter(
    material: Callable[..., Material], name: str, trainable: bool
) -> None:
    setting = material(dtype=torch.float32)
    plain = setting.merge(name)
    for encoder in (setting.base, *setting.experts.values()):
        encoder.requires_grad_(trainable)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            merged = setting.merge(name)
        assert all(torch.equal(tensor, plain[key]) for key, tensor in merged.items())
        assert not any(tensor.requires_grad or tensor.is_inference() for tensor in merged.values())
    assert all(p.requires_grad == trainable and p.grad is None for p in setting.base.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_missing_calibration_is_one_line_for_the_user(material: Callable[..., Material], name: str) -> None:
    setting = material()
    some = {"one": setting.calibration["one"]}
    empty = some | {"two": replace(setting.calibration["two"], images=setting.calibration["two"].images[:0])}
    for given, text in ((None, "unlabelled images"), ({}, "unlabelled images"), (some, "'two'"), (empty, "'two'")):
        with pytest.raises(UserError, match=text) as caught:
            create(name).merge(setting.base, setting.experts, calibration=given)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("fisher", {"examples": 0}),
        ("fisher", {"classes": "all"}),
        ("fisher", {"floor": 0.0}),
        ("fisher", {"flooring": "before"}),
        ("fisher", {"floor": -1e-6}),
        ("fisher", {"floor": float("nan")}),
        ("regmean", {"examples": 0}),
        ("regmean", {"non_diagonal": 1.5}),
        ("regmean", {"non_diagonal": -0.1}),
        ("regmean_plus_plus", {"non_diagonal": 1.5}),
        ("esm", {"polarisation": -1.0}),
        ("adamerging_plus_plus", {"density": 0.0}),
        ("adamerging_plus_plus", {"density": 1.1}),
        ("adamerging_plus_plus", {"steps": 0}),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(parameters))):
        create(name, **parameters)
