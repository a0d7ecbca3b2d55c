"""Convolutional encoders: what every merge makes of BatchNorm's running statistics."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mergerisk.errors import UserError
from mergerisk.merging import METHODS, Calibration, EncoderMerging, Merged, create
from mergerisk.models import Encoder
from mergerisk.models.core.classifier import Head

if TYPE_CHECKING:
    from collections.abc import Mapping

TASKS = ("one", "two", "three")


class ConvBackbone(nn.Module):
    """Two convolutions with BatchNorm and a linear layer: 3 × 8 × 8 → 5 features."""

    counter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.bn2 = nn.BatchNorm2d(6)
        self.project = nn.Linear(6, 5)
        self.register_buffer("counter", torch.tensor(7))

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(pixels)))
        pooled = F.relu(self.bn2(self.conv2(hidden))).mean(dim=(2, 3))
        features: Tensor = self.project(pooled)
        return features


def conv_encoder(seed: int = 0) -> Encoder:
    """An encoder of 8×8 images; those of other seeds differ a little from that of seed 0, buffers too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = ConvBackbone()
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in backbone.state_dict().items():
            if name.endswith("num_batches_tracked"):
                tensor.fill_(10 + seed)
            elif name.endswith("running_var"):
                tensor.mul_(torch.rand(tensor.shape, generator=draws) + 0.5)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=draws) * 0.1)
    encoder = Encoder(backbone, width=5, image_size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    return encoder.requires_grad_(False).eval()


def conv_material(
    *, images: int = 12, tasks: tuple[str, ...] = TASKS
) -> tuple[Encoder, dict[str, Encoder], dict[str, Calibration]]:
    """Base, experts and calibration; tasks differ in brightness, so that each has statistics of its own."""
    experts = {task: conv_encoder(seed) for seed, task in enumerate(tasks, start=1)}
    calibration = {}
    for position, task in enumerate(tasks):
        draws = torch.Generator().manual_seed(100 + position)
        pixels = torch.rand(images, 3, 8, 8, generator=draws) * 0.5 + 0.2 * position
        head = Head(torch.randn(3 + position, 5, generator=draws), torch.zeros(3 + position))
        calibration[task] = Calibration(pixels, head)
    return conv_encoder(), experts, calibration


def copied(*encoders: Encoder) -> list[dict[str, Tensor]]:
    return [{name: tensor.clone() for name, tensor in encoder.state().items()} for encoder in encoders]


def assert_same_states(before: list[dict[str, Tensor]], *encoders: Encoder) -> None:
    for state, encoder in zip(before, encoders, strict=True):
        for name, tensor in encoder.state().items():
            assert torch.equal(tensor, state[name]), name


def everything(calibration: dict[str, Calibration]) -> Tensor:
    return torch.cat([found.images for found in calibration.values()])


def first_statistics(state: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance per channel of what enters the first BatchNorm, in float64."""
    pixels = (images.double() - 0.5) / 0.25
    activations = F.conv2d(pixels, state["conv1.weight"].double(), state["conv1.bias"].double(), padding=1)
    values = activations.transpose(0, 1).flatten(1)
    return values.mean(dim=1), values.var(dim=1)


def layer_outputs(encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
    """What the BatchNorm layers put out before scale and shift: channels × values, per layer."""
    found: dict[str, Tensor] = {}
    twin = copy.deepcopy(encoder)
    for name, layer in twin.backbone.named_modules():
        if isinstance(layer, nn.BatchNorm2d):

            def record(layer: nn.BatchNorm2d, _: Any, out: Tensor, name: str = name) -> None:
                plain = (out - layer.bias[:, None, None]) / layer.weight[:, None, None]
                found[name] = plain.transpose(0, 1).flatten(1)

            layer.register_forward_hook(record)
    with torch.no_grad():
        twin(images)
    return found


WEIGHT_SPACE = (
    "weight_averaging",
    "task_arithmetic",
    "ties",
    "dare",
    "della",
    "model_stock",
    "breadcrumbs",
    "tsv_m",
)
DATA_DRIVEN: dict[str, dict[str, Any]] = {
    "fisher": {},
    "regmean": {},
    "regmean_plus_plus": {},
    "esm": {},
    "adamerging": {"steps": 2, "batch_size": 4},
    "adamerging_plus_plus": {"steps": 2, "batch_size": 4},
}


@pytest.mark.parametrize("name", [*WEIGHT_SPACE, *DATA_DRIVEN])
def test_statistics_are_reestimated_by_default(name: str) -> None:
    base, experts, calibration = conv_material()
    merged = create(name, **DATA_DRIVEN.get(name, {})).merge(base, experts, calibration=calibration)
    state = merged.encoder.state()
    mean, variance = first_statistics(state, everything(calibration))
    torch.testing.assert_close(state["bn1.running_mean"].double(), mean, rtol=1e-4, atol=1e-5)
    # 36 × 64 values: dividing by one less of them changes 0.04 %.
    torch.testing.assert_close(state["bn1.running_var"].double(), variance, rtol=1e-3, atol=0)
    for own in ("bn1", "bn2"):
        counter = state[f"{own}.num_batches_tracked"]
        assert counter.dtype == torch.int64
        assert counter.shape == ()
    assert int(state["counter"]) == 7
    assert not any(module.training for module in merged.encoder.modules())
    # What is stored is what is served.
    restored = create(name).restore(base, merged.parts).encoder
    assert torch.equal(restored(calibration["one"].images), merged.encoder(calibration["one"].images))


@pytest.mark.parametrize("name", [*WEIGHT_SPACE, *DATA_DRIVEN])
def test_statistics_can_be_averaged_instead(name: str) -> None:
    base, experts, calibration = conv_material()
    given = calibration if name in DATA_DRIVEN else None
    method = create(name, **DATA_DRIVEN.get(name, {}))
    merged = method.merge(base, experts, calibration=given, batch_norm="average")
    state = merged.encoder.state()
    for own in ("bn1", "bn2"):
        for kind in ("running_mean", "running_var"):
            key = f"{own}.{kind}"
            expected = torch.stack([expert.state()[key].double() for expert in experts.values()]).mean(dim=0)
            torch.testing.assert_close(state[key].double(), expected, rtol=1e-6, atol=1e-7)
        assert torch.equal(state[f"{own}.num_batches_tracked"], base.state()[f"{own}.num_batches_tracked"])


@pytest.mark.parametrize("name", ["weight_averaging", "weight_averaging+surgery"])
def test_a_merge_is_restored_with_all_its_state(name: str) -> None:
    base, experts, calibration = conv_material()
    method = create(name)
    merged = method.merge(base, experts, calibration=calibration)
    restored = method.restore(base, dict(merged.parts))
    assert restored.parts.keys() == merged.parts.keys()
    for key, tensor in restored.encoder.state().items():
        assert torch.equal(tensor, merged.encoder.state()[key]), key


class Difference(EncoderMerging):
    """Weight averaging whose parts are no state dict: differences to the base, all in one tensor."""

    def make(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        calibration: Mapping[str, Calibration],  # noqa: ARG002  # part of the contract
        seed: int,  # noqa: ARG002
    ) -> Merged:
        average = create("weight_averaging").merge(base, experts, batch_norm="average").encoder.state()
        differences = [(average[name] - tensor).flatten() for name, tensor in base.state().items()]
        return self.rebuild(base, {"differences": torch.cat(differences)})

    def rebuild(self, base: Encoder, parts: dict[str, Tensor]) -> Merged:
        (differences,) = parts.values()
        pieces = differences.split([tensor.numel() for tensor in base.state().values()])
        pairs = zip(base.state().items(), pieces, strict=True)
        state = {name: (tensor + piece.view(tensor.shape)).to(tensor.dtype) for (name, tensor), piece in pairs}
        return Merged(base.with_state(state), parts)


def test_a_method_with_parts_of_its_own_keeps_the_statistics() -> None:
    base, experts, calibration = conv_material()
    images = calibration["one"].images
    merged = Difference().merge(base, experts, calibration=calibration)
    usual = create("weight_averaging").merge(base, experts, calibration=calibration)
    torch.testing.assert_close(merged.encoder(images), usual.encoder(images), rtol=1e-4, atol=1e-5)
    restored = Difference().restore(base, dict(merged.parts))
    assert torch.equal(restored.encoder(images), merged.encoder(images))
    assert restored.parts.keys() == merged.parts.keys()
    averaged = Difference().merge(base, experts, batch_norm="average")
    assert torch.equal(Difference().restore(base, averaged.parts).encoder(images), averaged.encoder(images))
    assert not torch.allclose(averaged.encoder(images), merged.encoder(images), rtol=1e-3)


def test_a_layer_under_two_names_is_restored() -> None:
    base, experts, calibration = conv_material()
    for encoder in (base, *experts.values()):
        encoder.backbone.again = encoder.backbone.bn1
    method = create("weight_averaging")
    merged = method.merge(base, experts, calibration=calibration)
    images = calibration["one"].images
    assert torch.equal(method.restore(base, dict(merged.parts)).encoder(images), merged.encoder(images))
    state = merged.encoder.state()
    assert torch.equal(state["again.running_var"], state["bn1.running_var"])
    mean, _ = first_statistics(state, everything(calibration))
    torch.testing.assert_close(state["bn1.running_mean"].double(), mean, rtol=1e-4, atol=1e-5)


def test_only_the_statistics_differ_between_the_two() -> None:
    base, experts, calibration = conv_material()
    method = create("weight_averaging")
    anew = method.merge(base, experts, calibration=calibration).encoder.state()
    averaged = method.merge(base, experts, batch_norm="average").encoder.state()
    assert list(anew) == list(averaged)
    for name, tensor in averaged.items():
        same = torch.equal(anew[name], tensor)
        assert same != name.startswith(("bn1.running", "bn2.running", "bn1.num", "bn2.num")), name


@pytest.mark.parametrize("name", ["weight_averaging", "ties"])
def test_without_images_it_says_what_to_do(name: str) -> None:
    base, experts, calibration = conv_material()
    empty = {task: replace(found, images=found.images[:0]) for task, found in calibration.items()}
    for given in (None, {}, empty):
        with pytest.raises(UserError, match="batch_norm='average'") as caught:
            create(name).merge(base, experts, calibration=given)
        assert "\n" not in str(caught.value)


def test_images_of_every_expert_are_asked_for() -> None:
    """Statistics of some tasks alone would serve the others badly, and silently."""
    base, experts, calibration = conv_material()
    some = {task: calibration[task] for task in TASKS[:2]}
    with pytest.raises(UserError, match="three"):
        create("weight_averaging").merge(base, experts, calibration=some)


def test_images_of_tasks_that_are_not_merged_are_not_used() -> None:
    base, experts, calibration = conv_material()
    pair = {task: experts[task] for task in TASKS[:2]}
    own = {task: calibration[task] for task in TASKS[:2]}
    one = create("weight_averaging").merge(base, pair, calibration=calibration).encoder.state()
    two = create("weight_averaging").merge(base, pair, calibration=own).encoder.state()
    torch.testing.assert_close(one["bn1.running_mean"], two["bn1.running_mean"], rtol=1e-5, atol=1e-6)


def test_an_unknown_choice_is_refused() -> None:
    base, experts, calibration = conv_material()
    wrong: Any = "averaged"
    with pytest.raises(UserError, match="batch_norm"):
        create("weight_averaging").merge(base, experts, calibration=calibration, batch_norm=wrong)


def test_one_image_is_enough_where_it_has_many_pixels() -> None:
    base, experts, calibration = conv_material(images=1, tasks=("one",))
    state = create("weight_averaging").merge(base, experts, calibration=calibration).encoder.state()
    mean, variance = first_statistics(state, everything(calibration))
    torch.testing.assert_close(state["bn1.running_mean"].double(), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state["bn1.running_var"].double(), variance, rtol=0.02, atol=0)


def test_a_layer_that_sees_one_value_is_a_users_error() -> None:
    """A variance cannot be estimated from one value per channel."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(12, 4)
            self.norm = nn.BatchNorm1d(4)

        def forward(self, pixels: Tensor) -> Tensor:
            out: Tensor = self.norm(self.first(pixels.flatten(1)))
            return out

    encoder = Encoder(Flat(), width=4, image_size=2, mean=(0.5,) * 3, std=(0.5,) * 3)
    encoder.requires_grad_(False).eval()
    head = Head(torch.ones(2, 4), torch.zeros(2))
    calibration = {"one": Calibration(torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)), head)}
    with pytest.raises(UserError, match="image"):
        create("weight_averaging").merge(encoder, {"one": encoder}, calibration=calibration)


def test_a_layer_that_features_do_not_pass_keeps_the_experts_mean() -> None:
    base, experts, calibration = conv_material()
    for position, encoder in enumerate((base, *experts.values())):
        encoder.backbone.unused = nn.BatchNorm2d(2)
        encoder.state()["unused.running_mean"].fill_(position)
        encoder.state()["unused.running_var"].fill_(1 + position)
    state = create("weight_averaging").merge(base, experts, calibration=calibration).encoder.state()
    assert state["unused.running_mean"].tolist() == pytest.approx([2, 2])
    assert state["unused.running_var"].tolist() == pytest.approx([3, 3])


def test_encoders_without_batch_norm_need_no_images() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(12, 4)

        def forward(self, pixels: Tensor) -> Tensor:
            out: Tensor = self.first(pixels.flatten(1))
            return out

    encoder = Encoder(Plain(), width=4, image_size=2, mean=(0.5,) * 3, std=(0.5,) * 3)
    merged = create("weight_averaging").merge(encoder.eval(), {"one": encoder})
    assert torch.equal(merged.encoder.state()["first.weight"], encoder.state()["first.weight"])


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ["weight_averaging", "ties", *DATA_DRIVEN])
def test_inputs_are_left_alone(name: str, training: bool) -> None:
    """Even in training mode, where a forward pass would write to running statistics."""
    base, experts, calibration = conv_material()
    encoders = (base.train(training), *(expert.train(training) for expert in experts.values()))
    before = copied(*encoders)
    images = {task: found.images.clone() for task, found in calibration.items()}
    merged = create(name, **DATA_DRIVEN.get(name, {})).merge(base, experts, calibration=calibration)
    with torch.no_grad():
        for tensor in merged.encoder.state().values():
            tensor.zero_()
    assert_same_states(before, *encoders)
    assert all(torch.equal(calibration[task].images, images[task]) for task in TASKS)
    assert all(module.training == training for encoder in encoders for module in encoder.modules())


def norms(encoder: Encoder) -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
    assert isinstance(encoder.backbone, ConvBackbone)
    return encoder.backbone.bn1, encoder.backbone.bn2


def test_momentum_is_restored_and_decides_nothing() -> None:
    base, experts, calibration = conv_material()
    plain = create("weight_averaging").merge(base, experts, calibration=calibration).encoder
    for encoder in (base, *experts.values()):
        norms(encoder)[0].momentum = 0.03
        norms(encoder)[1].momentum = None
    merged = create("weight_averaging").merge(base, experts, calibration=calibration).encoder
    assert [layer.momentum for layer in norms(merged)] == [0.03, None]
    assert [layer.momentum for layer in norms(base)] == [0.03, None]
    assert all(torch.equal(tensor, plain.state()[name]) for name, tensor in merged.state().items())


@pytest.mark.parametrize(
    ("images", "tolerance"),
    [
        # One batch holds all 36 images: only float rounding is left.
        (12, 1e-5),
        # About five batches of about 64. Which images share one moves the mean of the batches' variances by
        # the spread of their means: var(batch mean) / var is at most 1/64, seen once for each of five batches.
        (100, 0.02),
    ],
    ids=["one-batch", "several"],
)
def test_order_of_images_and_tasks_does_not_matter(images: int, tolerance: float) -> None:
    base, experts, calibration = conv_material(images=images)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(1))
    shuffled = {task: replace(calibration[task], images=calibration[task].images[order]) for task in TASKS[::-1]}
    one = create("weight_averaging").merge(base, experts, calibration=calibration).encoder.state()
    two = create("weight_averaging").merge(base, experts, calibration=shuffled).encoder.state()
    for own in ("bn1", "bn2"):
        deviation = one[f"{own}.running_var"].sqrt()
        gap = (one[f"{own}.running_mean"] - two[f"{own}.running_mean"]).abs() / deviation
        assert float(gap.max()) <= tolerance
        ratio = one[f"{own}.running_var"] / two[f"{own}.running_var"]
        assert float((ratio - 1).abs().max()) <= tolerance


def test_many_images_give_the_statistics_of_all_of_them() -> None:
    base, experts, calibration = conv_material(images=200)
    state = create("weight_averaging").merge(base, experts, calibration=calibration).encoder.state()
    mean, variance = first_statistics(state, everything(calibration))
    gap = (state["bn1.running_mean"].double() - mean).abs() / variance.sqrt()
    assert float(gap.max()) < 0.005  # batches of 66 and 67 images count the same
    ratio = state["bn1.running_var"].double() / variance
    assert float((ratio - 1).abs().max()) < 0.03  # less the batch means' own variance, at most 1/64


def test_the_same_seed_gives_the_same_bits() -> None:
    base, experts, calibration = conv_material(images=60)
    states = [
        create("weight_averaging").merge(base, experts, calibration=calibration, seed=seed).encoder.state()
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["bn1.running_var"], states[2]["bn1.running_var"])


def test_images_of_other_sizes_are_resized_as_the_encoder_does() -> None:
    base, experts, calibration = conv_material()
    draws = torch.Generator().manual_seed(5)
    large = torch.rand(12, 3, 11, 13, generator=draws)
    mixed = calibration | {"two": replace(calibration["two"], images=large)}
    state = create("weight_averaging").merge(base, experts, calibration=mixed).encoder.state()
    small = F.interpolate(large, (8, 8), mode="bilinear", align_corners=False, antialias=True)
    seen = torch.cat([calibration["one"].images, small, calibration["three"].images])
    mean, _ = first_statistics(state, seen)
    torch.testing.assert_close(state["bn1.running_mean"].double(), mean, rtol=1e-4, atol=1e-5)


def test_reestimated_statistics_repair_the_collapsed_variance() -> None:
    """Two experts whose first convolutions mostly cancel: averaged weights give activations of far smaller
    variance than either expert's, which averaged statistics do not know (arXiv 2211.08403, section 3)."""
    base, experts, calibration = conv_material(tasks=TASKS[:2])
    first, second = experts.values()
    with torch.no_grad():
        for name in ("conv1.weight", "conv2.weight"):
            theirs = dict(first.backbone.named_parameters())[name]
            dict(second.backbone.named_parameters())[name].copy_(-0.5 * theirs)
    # Each expert's own statistics are right before the merge.
    own = {
        task: create("weight_averaging").merge(base, {task: expert}, calibration={task: calibration[task]}).encoder
        for task, expert in experts.items()
    }
    for task in TASKS[:2]:
        for values in layer_outputs(own[task], calibration[task].images).values():
            torch.testing.assert_close(values.mean(dim=1), torch.zeros(len(values)), atol=1e-3, rtol=0)
            torch.testing.assert_close(values.var(dim=1), torch.ones(len(values)), atol=1e-2, rtol=0)
    images = everything(calibration)
    method = create("weight_averaging")
    anew = layer_outputs(method.merge(base, own, calibration=calibration).encoder, images)
    averaged = layer_outputs(method.merge(base, own, batch_norm="average").encoder, images)
    for name, values in anew.items():
        torch.testing.assert_close(values.mean(dim=1), torch.zeros(len(values)), atol=1e-3, rtol=0)
        torch.testing.assert_close(values.var(dim=1), torch.ones(len(values)), atol=1e-2, rtol=0)
        assert float(averaged[name].var(dim=1).max()) < 0.3, name


# --- every method on a convolutional encoder -------------------------------------------------------------

EVERY = [name for name in METHODS.names() if name != "we_moe"]


def shrunken(experts: dict[str, Encoder]) -> None:
    """Variances a tenth of the base's: θ0 + Σ τt would be negative."""
    for expert in experts.values():
        for name, tensor in expert.backbone.named_buffers():
            if name.endswith("running_var"):
                tensor.mul_(0.1)


@pytest.mark.parametrize("batch_norm", ["reestimate", "average"])
@pytest.mark.parametrize("name", EVERY)
def test_every_method_merges_convolutional_encoders(name: str, batch_norm: Any) -> None:
    tasks = TASKS[:2] if name == "slerp" else TASKS
    base, experts, calibration = conv_material(tasks=tasks)
    shrunken(experts)
    encoders = (base, *experts.values())
    before = copied(*encoders)
    large: dict[str, dict[str, Any]] = {
        "task_arithmetic": {"scaling": 1.0},
        "adamerging": {"steps": 2, "batch_size": 4, "initial": 1.0},
        "adamerging_plus_plus": {"steps": 2, "batch_size": 4, "initial": 1.0},
    }
    method = create(name, **large.get(name, {}))
    merged = method.merge(base, experts, calibration=calibration, batch_norm=batch_norm)
    for task in tasks:
        state = merged.encoder_for(task).state()
        assert list(state) == list(base.state())
        for key, tensor in base.state().items():
            assert (state[key].dtype, state[key].shape) == (tensor.dtype, tensor.shape), key
            if key == "counter" or (batch_norm == "average" and not tensor.is_floating_point()):
                assert torch.equal(state[key], tensor), key
            elif tensor.is_floating_point():
                assert bool(torch.isfinite(state[key]).all()), key
            if key.endswith("running_var"):
                assert float(state[key].min()) > 0, key
        logits = merged.classifier(task, calibration[task].head)(calibration[task].images)
        assert bool(torch.isfinite(logits).all())
    assert_same_states(before, *encoders)


@pytest.mark.parametrize("name", EVERY)
def test_every_method_leaves_a_convolutional_encoder_whose_experts_never_moved(name: str) -> None:
    """Then every task vector is 0, and every mean is of equal things."""
    tasks = TASKS[:2]
    base, _, calibration = conv_material(tasks=tasks)
    experts = {task: conv_encoder() for task in tasks}
    method = create(name, **DATA_DRIVEN.get(name, {}))
    merged = method.merge(base, experts, calibration=calibration, batch_norm="average")
    for task in tasks:
        for key, tensor in base.state().items():
            torch.testing.assert_close(merged.encoder_for(task).state()[key], tensor, rtol=1e-5, atol=1e-6)
