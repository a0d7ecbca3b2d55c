"""Attacks that reach into the surrogate, against naive float64 transcriptions on hand-written networks.

The sharp comparison is in an L2 ball: there the step follows the gradient itself, not only its signs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mergerisk import attacks
from mergerisk.errors import UserError
from mergerisk.models import Classifier, Encoder, Head
from mergerisk.models.sources.vit import class_token, class_token_resized
from mergerisk.randomness import ImageRandom
from tests.naive import attacks as shared
from tests.naive import model_attacks as naive
from tests.naive.attacks.loop import ForEachImage, Task, Trace, iterate
from tests.naive.models import SmoothClassifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CLASSES = 5
MEAN, STD = (0.5, 0.4, 0.45), (0.25, 0.3, 0.2)
SEED = 11
INDICES = [9, 2]
"""The images' identities."""

BUDGETS: dict[str, dict[str, Any]] = {
    "linf": {"norm": "linf", "epsilon": 8 / 255},
    "l2": {"norm": "l2", "epsilon": 1.5},
}
STEPS = 3


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These tensors are tiny: with several workers, threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- small surrogates and their hand-written twins -------------------------------------------------------


@dataclass(frozen=True)
class Surrogate:
    """A classifier, the same in plain functions, and where its middle is."""

    classifier: Classifier
    network: naive.Network
    middle: int
    """Number of the block after which FIA and NAA cut by default."""
    layers: dict[str, int]
    """Names of modules that end where a block ends."""


def fill(module: nn.Module, seed: int) -> None:
    """Random weights, large enough for attention maps and activations to differ from token to token."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if name.endswith("running_var"):
            values = 0.5 + values.abs()
        elif "norm" in name and name.endswith("weight"):
            values = 1.0 + 0.2 * values
        elif tensor.ndim < 2 or "embeddings" in name.split(".")[-1]:
            values = 0.3 * values
        else:
            values = values * 1.3 / tensor[0].numel() ** 0.5
        tensor.copy_(values)


def assemble(backbone: nn.Module, width: int, side: int, features: Callable[..., Tensor], seed: int) -> Classifier:
    backbone = backbone.double()
    fill(backbone, seed)
    encoder = Encoder(backbone, width=width, image_size=side, mean=MEAN, std=STD, features=features).double()
    # The twin's constants must not be rounded to float32.
    encoder.mean.copy_(torch.tensor(MEAN, dtype=torch.float64).view(3, 1, 1))
    encoder.std.copy_(torch.tensor(STD, dtype=torch.float64).view(3, 1, 1))
    generator = torch.Generator().manual_seed(seed + 1)
    weight = torch.randn(CLASSES, width, generator=generator, dtype=torch.float64) * 1.5 / width**0.5
    head = Head(weight, torch.randn(CLASSES, generator=generator, dtype=torch.float64))
    return Classifier(encoder, head).requires_grad_(False).eval()


@cache
def vit() -> Surrogate:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=12,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=16,
        image_size=16,
        patch_size=4,
    )
    classifier = assemble(ViTModel(config, add_pooling_layer=False), 12, 16, class_token, 0)
    network = naive.vision_transformer(
        classifier.encoder.state(),
        (classifier.head.weight, classifier.head.bias),
        heads=3,
        patch=4,
        side=16,
        mean=MEAN,
        std=STD,
        eps=config.layer_norm_eps,
    )
    return Surrogate(classifier, network, 1, {f"encoder.backbone.layers.{i}": i for i in range(4)})


def embeds(backbone: nn.Module, pixels: Tensor) -> Tensor:
    found: Tensor = backbone(pixel_values=pixels).image_embeds
    return found


CLIP_NAMES = [
    ("vision_model.", ""),
    ("encoder.layers", "layers"),
    ("self_attn.out_proj", "attention.o_proj"),
    ("self_attn", "attention"),
    ("layer_norm1", "layernorm_before"),
    ("layer_norm2", "layernorm_after"),
    ("class_embedding", "cls_token"),
    ("patch_embedding.", "patch_embeddings.projection."),
    ("position_embedding.weight", "position_embeddings"),
    ("pre_layrnorm", "pre_layernorm"),
    ("post_layernorm", "layernorm"),
    ("visual_projection", "projection"),
]
"""CLIP's names → the ViT's, applied in this order."""


def vit_names(name: str) -> str:
    for old, new in CLIP_NAMES:
        name = name.replace(old, new)
    return name


@cache
def clip() -> Surrogate:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=12,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        projection_dim=8,
        image_size=16,
        patch_size=8,
    )
    classifier = assemble(CLIPVisionModelWithProjection(config), 8, 16, embeds, 5)
    network = naive.vision_transformer(
        {vit_names(name): tensor for name, tensor in classifier.encoder.state().items()},
        (classifier.head.weight, classifier.head.bias),
        heads=2,
        patch=8,
        side=16,
        mean=MEAN,
        std=STD,
        eps=config.layer_norm_eps,
        activation=naive.quick_gelu,
    )
    name = "encoder.backbone.vision_model.encoder.layers"
    return Surrogate(classifier, network, 0, {f"{name}.{i}": i for i in range(3)})


def pooled(backbone: nn.Module, pixels: Tensor) -> Tensor:
    found: Tensor = backbone(pixel_values=pixels).pooler_output
    return found.flatten(1)


@cache
def resnet(kind: str, depths: tuple[int, ...] = (2, 1, 2, 1)) -> Surrogate:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=6, hidden_sizes=[8, 12, 16, 16], depths=list(depths), layer_type=kind)
    classifier = assemble(ResNetModel(config), 16, 24, pooled, 3)
    network = naive.residual_network(
        classifier.encoder.state(),
        (classifier.head.weight, classifier.head.bias),
        depths=depths,
        side=24,
        mean=MEAN,
        std=STD,
    )
    name = "encoder.backbone.encoder.stages"
    return Surrogate(classifier, network, 2, {f"{name}.0.layers.0": 0, f"{name}.0": 1, f"{name}.2.layers.0": 3})


SURROGATES: dict[str, Callable[[], Surrogate]] = {
    "vit": vit,
    "clip": clip,
    "basic": lambda: resnet("basic"),
    "bottleneck": lambda: resnet("bottleneck"),
}
TRANSFORMERS = ["vit", "clip"]


def pictures(side: int = 16, count: int = 2) -> tuple[Tensor, Tensor]:
    """Images of which some pixels are 0 or 1, and labels."""
    generator = torch.Generator().manual_seed(side)
    images = torch.rand(count, 3, side, side, generator=generator, dtype=torch.float64) * 1.2 - 0.1
    return images.clamp(0, 1), torch.randint(0, CLASSES, (count,), generator=generator)


def craft(
    name: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: dict[str, Any],
    targets: Tensor | None = None,
    **parameters: Any,
) -> Tensor:
    """The package's attack, on all images at once."""
    attack = attacks.create(name, steps=STEPS, **parameters)
    indices = INDICES[: len(images)]
    return attack(model, images, labels, **budget, targets=targets, seed=SEED, indices=indices)


def transcribe(
    attack: Callable[..., Tensor],
    network: naive.Network,
    images: Tensor,
    labels: Tensor,
    budget: dict[str, Any],
    **parameters: Any,
) -> Tensor:
    """The naive attack, with the same random numbers."""
    draws = [ImageRandom(SEED, "attack", [index]) for index in INDICES[: len(images)]]
    return attack(network, images, labels, **budget, draws=draws, steps=STEPS, **parameters)


def compare(crafted: Tensor, expected: Tensor, *problem: Any) -> None:
    """Equal, and not because the attack's idea made no difference."""
    torch.testing.assert_close(crafted, expected, rtol=0, atol=1e-9)
    without = craft("mi_fgsm", *problem)
    assert float((expected - without).abs().amax(dim=(1, 2, 3)).min()) > 1e-3


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("side", [16, 30])
def test_the_hand_written_networks_are_those_of_transformers(name: str, side: int) -> None:
    surrogate = SURROGATES[name]()
    images, labels = pictures(side)
    leaf = images.clone().requires_grad_(True)
    logits = surrogate.classifier(leaf)
    expected = torch.stack([surrogate.network.logits(image) for image in images])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    (gradients,) = torch.autograd.grad(nn.functional.cross_entropy(logits, labels, reduction="sum"), leaf)
    for image, label, gradient in zip(images, labels.tolist(), gradients, strict=True):
        expected = surrogate.network.gradient(image, lambda z, label=label: torch.logsumexp(z, 0) - z[label])
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)
    assert float(gradients.abs().amax(dim=(1, 2, 3)).min()) > 1e-4


# --- equality with the transcriptions --------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize(
    ("norm", "side", "parameters"),
    [
        ("linf", 16, {}),
        ("l2", 16, {}),
        ("l2", 16, {"kept": 0.3, "regularization": 0.0}),
        ("l2", 16, {"kept": 1.0, "regularization": 0.4}),
        ("l2", 16, {"kept": 0.001, "patch_size": 2}),
        ("l2", 18, {"patch_size": 4}),  # the last patches are cut off
        ("l2", 32, {"kept": 0.5}),  # the surrogate's patches are twice as wide here
    ],
)
def test_pna_patchout(name: str, norm: str, side: int, parameters: dict[str, Any]) -> None:
    surrogate = SURROGATES[name]()
    problem = (*pictures(side), BUDGETS[norm])
    crafted = craft("pna_patchout", surrogate.classifier, *problem, **parameters)
    own_patch = {"vit": 4, "clip": 8}[name] * side // 16
    own = {"kept": 0.7, "regularization": 0.1, "patch": parameters.get("patch_size", own_patch)}
    own |= {key: value for key, value in parameters.items() if key != "patch_size"}
    expected = transcribe(naive.pna_patchout, surrogate.network, *problem, **own)
    compare(crafted, expected, surrogate.classifier, *problem)


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize(
    ("norm", "parameters"),
    [
        ("linf", {}),
        ("l2", {}),
        ("l2", {"attention": 1.0, "qkv": 0.3, "mlp": 1.0}),
        ("l2", {"attention": 0.0, "qkv": 1.0, "mlp": 0.2}),
        ("l2", {"maps": "scores"}),
        ("l2", {"tokens": "outputs"}),
        ("l2", {"maps": "scores", "tokens": "outputs"}),  # public code
        ("linf", {"maps": "scores", "tokens": "outputs", "qkv": 0.3, "mlp": 0.9}),
    ],
)
def test_tgr(name: str, norm: str, parameters: dict[str, Any]) -> None:
    surrogate = SURROGATES[name]()
    problem = (*pictures(), BUDGETS[norm])
    crafted = craft("tgr", surrogate.classifier, *problem, **parameters)
    expected = transcribe(naive.tgr, surrogate.network, *problem, **parameters)
    compare(crafted, expected, surrogate.classifier, *problem)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize(
    ("norm", "parameters"), [("linf", {}), ("l2", {}), ("l2", {"keep": 0.2}), ("l2", {"keep": 0.0})]
)
def test_sgm(name: str, norm: str, parameters: dict[str, Any]) -> None:
    surrogate = SURROGATES[name]()
    problem = (*pictures(24), BUDGETS[norm])
    crafted = craft("sgm", surrogate.classifier, *problem, **parameters)
    expected = transcribe(naive.sgm, surrogate.network, *problem, **parameters)
    compare(crafted, expected, surrogate.classifier, *problem)


@pytest.mark.parametrize("name", ["basic", "bottleneck"])
@pytest.mark.parametrize(("norm", "keep"), [("linf", 0.2), ("l2", 0.2), ("l2", 0.7)])
def test_sgm_as_in_public_code(name: str, norm: str, keep: float) -> None:
    """What the hooks at ReLUs do, written out, against the branches of all blocks but the first of a stage."""
    surrogate = SURROGATES[name]()
    problem = (*pictures(24), BUDGETS[norm])
    parameters: dict[str, Any] = {"keep": keep, "first_blocks": False}
    crafted = craft("sgm", surrogate.classifier, *problem, **parameters)
    expected = transcribe(naive.sgm, surrogate.network, *problem, **parameters)
    compare(crafted, expected, surrogate.classifier, *problem)
    assert float((crafted - craft("sgm", surrogate.classifier, *problem, keep=keep)).abs().max()) > 1e-3


class OtherNames(nn.Module):
    """A residual block with the names of torchvision and timm, which are those of most code of one file."""

    def __init__(self, block: nn.Module, shortcut: str) -> None:
        super().__init__()
        for number, layer in enumerate(block.layer, 1):
            self.add_module(f"conv{number}", layer.convolution)
            self.add_module(f"bn{number}", layer.normalization)
        self.count, self.shortcut_name = len(block.layer), shortcut
        identity = isinstance(block.shortcut, nn.Identity)
        setattr(self, shortcut, None if identity and shortcut == "downsample" else block.shortcut)

    def forward(self, maps: Tensor) -> Tensor:
        hidden = maps
        for number in range(1, self.count + 1):
            hidden = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(hidden))
            hidden = torch.relu(hidden) if number < self.count else hidden
        beside = getattr(self, self.shortcut_name)
        return torch.relu(hidden + (maps if beside is None else beside(maps)))


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("shortcut", ["downsample", "shortcut"])
@pytest.mark.parametrize("first_blocks", [True, False])
def test_sgm_knows_residual_blocks_by_other_names(kind: str, shortcut: str, first_blocks: bool) -> None:
    """The same weights, under those names, are attacked alike."""
    classifier = resnet(kind).classifier
    other = copy.deepcopy(classifier)
    for stage in other.encoder.backbone.encoder.stages:
        stage.layers = nn.Sequential(*(OtherNames(block, shortcut) for block in stage.layers))
    problem = (*pictures(24), BUDGETS["l2"])
    parameters: dict[str, Any] = {"keep": 0.3, "first_blocks": first_blocks}
    expected = craft("sgm", classifier, *problem, **parameters)
    torch.testing.assert_close(craft("sgm", other, *problem, **parameters), expected, rtol=0, atol=1e-9)


def test_public_code_skips_the_eleventh_block_too() -> None:
    """Its ReLU is called ``10.relu``, which holds ``0.relu``."""
    surrogate = resnet("basic", (12, 1, 1, 1))
    problem = (*pictures(24), BUDGETS["l2"])
    crafted = craft("sgm", surrogate.classifier, *problem, keep=0.2, first_blocks=False)
    expected = transcribe(naive.sgm, surrogate.network, *problem, keep=0.2, first_blocks=False)
    compare(crafted, expected, surrogate.classifier, *problem)


def test_first_blocks_are_a_resnets() -> None:
    with pytest.raises(UserError, match="first_blocks"):
        craft("sgm", vit().classifier, *pictures(), BUDGETS["linf"], first_blocks=False)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize(
    ("attack", "norm", "layer", "parameters"),
    [
        ("fia", "linf", None, {"ensemble": 4}),
        ("fia", "l2", None, {}),
        ("fia", "l2", 0, {"ensemble": 3, "drop": 0.6}),
        ("fia", "l2", -1, {"ensemble": 1, "drop": 0.0}),
        ("fia", "l2", None, {"ensemble": 4, "importance": "probability", "decay": 0.0}),  # TransferAttack
        ("ilpd", "linf", None, {"decay": 1.0}),
        ("ilpd", "l2", 0, {"keep": 0.4, "noise": 0.5, "loss": "margin"}),
        ("naa", "linf", None, {"integration": 4}),
        ("naa", "l2", None, {}),
        ("naa", "l2", 0, {"integration": 3, "negative": 0.3}),
        ("naa", "l2", -1, {"integration": 1, "negative": 2.0}),
    ],
)
def test_features(attack: str, name: str, norm: str, layer: int | None, parameters: dict[str, Any]) -> None:
    """At the middle by default, or after a named layer, here the surrogate's first or last."""
    surrogate = SURROGATES[name]()
    problem = (*pictures(24, count=2 if parameters else 1), BUDGETS[norm])
    named = None if layer is None else list(surrogate.layers)[layer]
    block = surrogate.middle if named is None else surrogate.layers[named]
    crafted = craft(attack, surrogate.classifier, *problem, **parameters, layer=named)
    expected = transcribe(getattr(naive, attack), surrogate.network, *problem, **parameters, block=block)
    compare(crafted, expected, surrogate.classifier, *problem)


FEW: dict[str, dict[str, Any]] = {"fia": {"ensemble": 3}, "naa": {"integration": 3}}
"""Hyper-parameters that save time."""
NAIVE: dict[str, dict[str, Any]] = {
    "pna_patchout": {"patch": 4, "kept": 0.7, "regularization": 0.1},
    "fia": {"block": 1, "ensemble": 3},
    "naa": {"block": 1, "integration": 3},
    "ilpd": {"block": 1},
}
"""What the naive attacks need to be told about the ViT."""
REACHING = ["pna_patchout", "tgr", "sgm", "fia", "naa", "ilpd"]


@pytest.mark.parametrize("name", REACHING)
def test_with_an_input_transformation(name: str) -> None:
    """Rules hold at every view of a point; what FIA and NAA find out about the clean image needs no views."""
    problem = (*pictures(), BUDGETS["l2"])
    scales = [{"input": "si", "scales": 2}]
    crafted = craft(name, vit().classifier, *problem, inputs=scales, **FEW.get(name, {}))
    expected = transcribe(
        getattr(naive, name), vit().network, *problem, inputs=[shared.scaled(2)], **NAIVE.get(name, {})
    )
    compare(crafted, expected, vit().classifier, *problem)


@pytest.mark.parametrize("name", REACHING)
def test_targeted(name: str) -> None:
    """Towards the target; for FIA and NAA, by raising what speaks for it."""
    images, labels = pictures()
    problem = (images, labels, BUDGETS["l2"])
    targets = (labels + torch.tensor([1, 3])) % CLASSES
    crafted = craft(name, vit().classifier, *problem, targets=targets, targeted=True, **FEW.get(name, {}))
    expected = transcribe(getattr(naive, name), vit().network, *problem, targets=targets, **NAIVE.get(name, {}))
    compare(crafted, expected, vit().classifier, *problem)


@pytest.mark.parametrize("name", ["pna_patchout", "tgr", "sgm"])
@pytest.mark.parametrize("loss", ["margin", "logit"])
def test_with_another_loss(name: str, loss: str) -> None:
    problem = (*pictures(), BUDGETS["l2"])
    crafted = craft(name, vit().classifier, *problem, loss=loss)
    expected = transcribe(getattr(naive, name), vit().network, *problem, loss=loss, **NAIVE.get(name, {}))
    compare(crafted, expected, vit().classifier, *problem)


@pytest.mark.parametrize("name", ["fia", "naa"])
def test_a_loss_that_features_do_not_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="loss"):
        attacks.create(name, loss="margin")


# --- details that equality would not show ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["pna_patchout", "tgr"])
def test_eager_attention_gives_the_same(name: str) -> None:
    """The model's own choice of attention, which cannot be reached into when fused, must not matter."""
    problem = (vit().classifier, *pictures(), BUDGETS["l2"])
    fused = craft(name, *problem)
    config = vit().classifier.encoder.backbone.config
    before = config._attn_implementation
    try:
        config._attn_implementation = "eager"
        eager = craft(name, *problem)
        assert config._attn_implementation == "eager"
    finally:
        config._attn_implementation = before
    # transformers' eager softmax rounds to float32.
    torch.testing.assert_close(eager, fused, rtol=0, atol=1e-5)


def test_patches_follow_interpolated_position_embeddings() -> None:
    """A ViT that sees 32 px through 4 px patches, though pretrained at 16 px: they are 4 px of the image."""
    encoder = Encoder(
        vit().classifier.encoder.backbone,
        width=12,
        image_size=32,
        mean=MEAN,
        std=STD,
        features=class_token_resized,
    )
    classifier = Classifier(encoder.double(), vit().classifier.head)
    images = torch.full((2, 3, 32, 32), 0.5, dtype=torch.float64)
    attack = attacks.create("pna_patchout", kept=0.3, steps=1)
    crafted = attack(classifier, images, torch.tensor([0, 1]), epsilon=0.1, seed=SEED)
    for index, (image, found) in enumerate(zip(images, crafted, strict=True)):
        numbers = ImageRandom(SEED, "attack", [index]).uniform(64, like=images)[0]
        assert torch.equal(found != image, naive.patch_mask(image, numbers, 0.3, 4) > 0)


@pytest.mark.parametrize("name", ["fia", "naa"])
def test_nothing_after_the_layer_is_run_in_the_loop(name: str) -> None:
    head, images_and_labels, runs = vit().classifier.head, pictures(count=1), []
    for steps in (1, 4):
        calls: list[int] = []
        handle = head.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        attack = attacks.create(name, steps=steps, **FEW[name])
        attack(vit().classifier, *images_and_labels, epsilon=0.1)
        handle.remove()
        runs.append(len(calls))
        assert attack.gradients_per_image == steps + 3
    assert runs[0] == runs[1]


def test_naa_moves_black_images() -> None:
    """All attributions are 0 there; with negative = 1 they still have a slope."""
    problem = (torch.zeros(1, 3, 16, 16, dtype=torch.float64), torch.tensor([2]), BUDGETS["l2"])
    crafted = craft("naa", vit().classifier, *problem, integration=2)
    expected = transcribe(naive.naa, vit().network, *problem, block=1, integration=2)
    compare(crafted, expected, vit().classifier, *problem)


class InPlace(nn.Module):
    """``B (A x + x)``, where the sum overwrites what A put out, as in transformers' ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 12, bias=False, dtype=torch.float64)
        self.last = nn.Linear(12, CLASSES, bias=False, dtype=torch.float64)
        fill(self, 3)
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.first(pixels.flatten(1))
        hidden += pixels.flatten(1)
        logits: Tensor = self.last(hidden)
        return logits


@ForEachImage
def along(task: Task, *, rise: Callable[[Tensor, int], Tensor]) -> Trace:
    """The shared loop along any direction, given the point and the label."""
    return iterate(task, lambda point, _: rise(point, task.label))


def test_fia_at_a_layer_whose_output_is_overwritten() -> None:
    """Features are A x, before the sum: the weighted features fall along -Aᵀ B[y] all the way."""
    model = InPlace()
    images = torch.full((2, 3, 2, 2), 0.5, dtype=torch.float64)
    problem = (model, images, torch.tensor([1, 4]), {"epsilon": 0.3, "norm": "l2"})

    def fall(_: Tensor, label: int) -> Tensor:
        return -(model.first.weight.T @ model.last.weight[label]).view(3, 2, 2)

    crafted = craft("fia", *problem, layer="first", ensemble=2)
    torch.testing.assert_close(crafted, transcribe(along, *problem, rise=fall), rtol=0, atol=1e-9)


def test_naa_at_a_layer_whose_output_is_overwritten() -> None:
    """The same for attributions: features A x, of which black images have none."""
    model = InPlace()
    images = torch.rand(1, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problem = (model, images, torch.tensor([2]), {"epsilon": 0.3, "norm": "l2"})
    weights = torch.zeros(12, dtype=torch.float64)
    for m in range(1, 5):
        probabilities = model(images * m / 4)[0].softmax(dim=0)
        slope = probabilities[2] * (torch.eye(CLASSES, dtype=torch.float64)[2] - probabilities)
        weights += slope @ model.last.weight / 4

    def fall(point: Tensor, _: int) -> Tensor:
        attributions = model.first.weight @ point.flatten() * weights
        return -((torch.where(attributions > 0, 1.0, 0.5).double() * weights) @ model.first.weight).view(3, 2, 2)

    crafted = craft("naa", *problem, layer="first", integration=4, negative=0.5)
    torch.testing.assert_close(crafted, transcribe(along, *problem, rise=fall), rtol=0, atol=1e-9)


# --- the surrogate is only borrowed ----------------------------------------------------------------------


@pytest.mark.parametrize("name", REACHING)
def test_the_surrogate_is_left_as_it_was(name: str) -> None:
    """Neither its own gradients nor a later attack may feel that it was reached into."""
    problem = (vit().classifier, *pictures(), BUDGETS["l2"])
    before = craft("mi_fgsm", *problem)
    craft(name, *problem, **FEW.get(name, {}))
    assert torch.equal(craft("mi_fgsm", *problem), before)
    for module in vit().classifier.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert not module._backward_pre_hooks


def check_budget(images: Tensor, crafted: Tensor, *, norm: str, epsilon: float) -> Tensor:
    """No tolerance: sizes of the changes, all within ε, of images all within the box."""
    change = (crafted.double() - images.double()).flatten(1)
    sizes = change.abs().amax(dim=1) if norm == "linf" else change.norm(dim=1)
    assert bool((sizes <= epsilon).all())
    assert 0.0 <= float(crafted.min()) <= float(crafted.max()) <= 1.0
    return sizes


@pytest.mark.parametrize("name", REACHING)
def test_float32_images_stay_within_ball_and_box(name: str) -> None:
    classifier = copy.deepcopy(vit().classifier).float()
    images, labels = pictures()
    images = images.float()
    for budget in BUDGETS.values():
        crafted = craft(name, classifier, images, labels, budget, **FEW.get(name, {}))
        assert bool((check_budget(images, crafted, **budget) > budget["epsilon"] / 4).all())
        assert crafted.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("pna_patchout", {"patch_size": 4}),
        ("tgr", {}),
        ("sgm", {}),
        ("fia", {}),
        ("naa", {}),
        ("ilpd", {}),
        ("fia", {"layer": "no.such.layer"}),
        ("naa", {"layer": "no.such.layer"}),
    ],
)
def test_a_surrogate_without_what_the_attack_needs_is_refused(name: str, parameters: dict[str, Any]) -> None:
    images, labels = pictures()
    with pytest.raises(UserError) as caught:
        attacks.create(name, **parameters)(SmoothClassifier(3, 16, 16, seed=0), images, labels % 4, epsilon=0.1)
    assert "\n" not in str(caught.value)


def test_a_mistyped_layer_is_named() -> None:
    images, labels = pictures()
    with pytest.raises(UserError, match=r"encoder\.backbone\.layer\.1"):
        attacks.create("fia", layer="encoder.backbone.layer.1")(vit().classifier, images, labels, epsilon=0.1)


@pytest.mark.parametrize("name", ["pna_patchout", "tgr"])
def test_transformers_attacks_refuse_convolutions(name: str) -> None:
    images, labels = pictures()
    with pytest.raises(UserError) as caught:
        attacks.create(name)(resnet("basic").classifier, images, labels, epsilon=0.1)
    assert "\n" not in str(caught.value)


# --- ensembles -------------------------------------------------------------------------------------------

COMBINE = ["logits", "probabilities", "loss"]


@pytest.mark.parametrize("how", ["logits", "probabilities"])
def test_ensemble_logits(how: str) -> None:
    surrogates = [vit(), clip(), resnet("basic")]
    images, _ = pictures()
    combined = attacks.Ensemble([each.classifier for each in surrogates], combine=how)(images)
    each = [[surrogate.network.logits(image).tolist() for surrogate in surrogates] for image in images]
    expected = torch.tensor([naive.combine(logits, how) for logits in each], dtype=torch.float64)
    torch.testing.assert_close(combined, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("how", COMBINE)
def test_attack_on_an_ensemble(how: str) -> None:
    """The members' gradients, weighted as the combination's derivative says.

    The mean of losses is not the loss of mean log-probabilities, which is that of mean logits.
    """
    surrogates = [vit(), resnet("basic")]
    networks = [surrogate.network for surrogate in surrogates]
    ensemble = attacks.Ensemble([each.classifier for each in surrogates], combine=how)
    problem = (*pictures(), BUDGETS["l2"])

    def rise(point: Tensor, label: int) -> Tensor:
        each = torch.stack([network.logits(point) for network in networks])
        wanted = torch.eye(CLASSES, dtype=torch.float64)[label]
        shares = torch.full((len(networks), 1), 1 / len(networks), dtype=torch.float64)
        if how == "logits":
            slopes = shares * (each.mean(dim=0).softmax(dim=0) - wanted)
        else:
            probabilities = each.softmax(dim=1)
            if how == "probabilities":
                shares = probabilities[:, [label]] / probabilities[:, label].sum()
            slopes = shares * (probabilities - wanted)
        found = [naive.vjp(net.logits, [point], slope)[0] for net, slope in zip(networks, slopes, strict=True)]
        return torch.stack(found).sum(dim=0)

    expected = transcribe(along, networks[0], *problem, rise=rise)
    compare(craft("mi_fgsm", ensemble, *problem), expected, vit().classifier, *problem)


def test_gradients_are_changed_in_every_member() -> None:
    """SGM on a ViT and a ResNet at once: the mean of both losses' gradients, each with its branches shrunk."""
    surrogates = [vit(), resnet("basic")]
    problem = (*pictures(), BUDGETS["l2"])

    def rise(point: Tensor, label: int) -> Tensor:
        def loss(logits: Tensor) -> Tensor:
            return torch.logsumexp(logits, dim=0) - logits[label]

        rules = naive.Rules(branch=0.3)
        return torch.stack([each.network.gradient(point, loss, rules) for each in surrogates]).mean(dim=0)

    ensemble = attacks.Ensemble([each.classifier for each in surrogates], combine="loss")
    crafted = craft("sgm", ensemble, *problem, keep=0.3)
    compare(crafted, transcribe(along, vit().network, *problem, rise=rise), ensemble, *problem)


@pytest.mark.parametrize("how", COMBINE)
def test_an_ensemble_of_one_model_twice_is_that_model(how: str) -> None:
    problem = (*pictures(), BUDGETS["l2"])
    twice = craft("mi_fgsm", attacks.Ensemble([vit().classifier] * 2, combine=how), *problem)
    torch.testing.assert_close(twice, craft("mi_fgsm", vit().classifier, *problem), rtol=0, atol=1e-9)


@pytest.mark.parametrize("how", COMBINE)
def test_members_that_are_certain_leave_finite_logits(how: str) -> None:
    """Of different classes, by more than a float32 probability can say."""
    certain = [[400.0, 0.0, 0.0, 0.0], [0.0, 400.0, 0.0, 0.0]]

    class Certain(nn.Module):
        def __init__(self, logits: list[float]) -> None:
            super().__init__()
            self.logits = torch.tensor(logits)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.logits.expand(len(pixels), 4)

    combined = attacks.Ensemble([Certain(logits) for logits in certain], combine=how)(torch.rand(2, 3, 4, 4))
    assert bool(torch.isfinite(combined).all())
    if how != "loss":
        torch.testing.assert_close(combined, torch.tensor([naive.combine(certain, how)] * 2))


def test_an_ensemble_refuses_what_it_cannot_combine() -> None:
    with pytest.raises(UserError):
        attacks.Ensemble([], combine="logits")
    with pytest.raises(UserError, match="median"):
        attacks.Ensemble([vit().classifier], combine="median")


# --- universal perturbations -----------------------------------------------------------------------------


def write(path: Path, perturbation: Tensor) -> Path:
    """One tensor in a file of the kind that its suffix says."""
    if path.suffix == ".npy":
        np.save(path, perturbation.numpy())
    elif path.suffix == ".npz":
        np.savez(path, perturbation=perturbation.numpy())
    elif path.suffix == ".safetensors":
        save_file({"perturbation": perturbation.contiguous()}, path)
    else:
        torch.save(perturbation, path)
    return path


SUFFIXES = [".npy", ".npz", ".safetensors", ".pt"]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("size", [(3, 16, 16), (1, 3, 16, 16), (3, 8, 8), (3, 24, 24), (1, 3, 40, 28)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_universal(tmp_path: Path, suffix: str, size: tuple[int, ...], norm: str) -> None:
    """Large ones are scaled to the budget as a whole; small ones are used as they are."""
    images, labels = pictures()
    generator = torch.Generator().manual_seed(1)
    drawn = torch.rand(size, generator=generator, dtype=torch.float64) * 2 - 1
    path = write(tmp_path / f"universal{suffix}", drawn)
    for epsilon in (0.05, 0.4, 1.0) if norm == "linf" else (0.5, 3.0, 25.0):
        crafted = attacks.create("universal", file=str(path))(
            vit().classifier, images, labels, epsilon=epsilon, norm=norm
        )
        perturbation = drawn.reshape(size[-3:])
        expected = [naive.universal(perturbation, image, epsilon=epsilon, norm=norm) for image in images]
        torch.testing.assert_close(crafted, torch.stack(expected), rtol=0, atol=1e-9)


def test_universal_on_images_that_are_not_square(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    perturbation = torch.randn(3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    path = write(tmp_path / "u.npy", perturbation)
    crafted = attacks.create("universal", file=str(path))(
        SmoothClassifier(3, 10, 14, seed=0), images, torch.tensor([0, 1]), epsilon=0.05
    )
    expected = [naive.universal(perturbation, image, epsilon=0.05, norm="linf") for image in images]
    torch.testing.assert_close(crafted, torch.stack(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 0.03, 1.0, 300.0])
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 8 / 255), ("linf", 0.3), ("l2", 0.5), ("l2", 20.0)])
def test_universal_is_never_outside_the_budget(tmp_path: Path, norm: str, epsilon: float, scale: float) -> None:
    """No tolerance, in float32, as for every attack."""
    images, labels = pictures()
    images = images.float()
    path = write(tmp_path / "u.npy", scale * torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(2)))
    model = SmoothClassifier(3, 16, 16, seed=0).float()
    crafted = attacks.create("universal", file=str(path))(model, images, labels % 4, epsilon=epsilon, norm=norm)
    assert bool((check_budget(images, crafted, norm=norm, epsilon=epsilon) > 0).all())


class Payload:
    """What a pickle could run on loading."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (RuntimeError, ("run on loading",))


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that hold no perturbation, by what is wrong with them."""
    good = torch.zeros(3, 16, 16)
    found = {
        "missing": folder / "missing.npy",
        "folder": folder / "folder.npy",
        "suffix": folder / "picture.png",
        "flat": write(folder / "flat.npy", torch.zeros(16, 16)),
        "several": write(folder / "several.npy", torch.zeros(2, 3, 16, 16)),
        "channels": write(folder / "channels.npy", torch.zeros(2, 16, 16)),
        "empty": write(folder / "empty.npy", torch.zeros(3, 0, 0)),
        "integers": write(folder / "integers.npy", torch.ones(3, 16, 16, dtype=torch.int64)),
        "nan": write(folder / "nan.npy", good + float("nan")),
        "infinite": write(folder / "infinite.pt", good + float("inf")),
        "two arrays": folder / "two.npz",
        "two tensors": folder / "two.safetensors",
        "no arrays": folder / "none.npz",
        "not a tensor": folder / "dict.pt",
        "pickle": folder / "pickle.pt",
        "pickled array": folder / "objects.npy",
        "text": folder / "text.npy",
    }
    found["folder"].mkdir()
    found["suffix"].write_bytes(b"\x89PNG")
    np.savez(found["two arrays"], a=good.numpy(), b=good.numpy())
    np.savez(found["no arrays"])
    save_file({"a": good, "b": good.clone()}, found["two tensors"])
    torch.save({"a": [1, 2]}, found["not a tensor"])
    torch.save(Payload(), found["pickle"])
    np.save(found["pickled array"], np.array([Payload()], dtype=object), allow_pickle=True)
    found["text"].write_text("words")
    for suffix in SUFFIXES:
        found[f"damaged {suffix}"] = folder / f"damaged{suffix}"
        found[f"damaged {suffix}"].write_bytes(write(folder / f"whole{suffix}", good).read_bytes()[:40])
    return found


def test_bad_perturbations_are_refused_in_one_line(tmp_path: Path) -> None:
    images, labels = pictures()
    for what, path in bad_files(tmp_path).items():
        with pytest.raises(UserError) as caught:
            attacks.create("universal", file=str(path))(vit().classifier, images, labels, epsilon=0.1)
        assert "\n" not in str(caught.value), what
        assert path.name in str(caught.value), what


def test_a_universal_perturbation_needs_no_gradients(tmp_path: Path) -> None:
    path = write(tmp_path / "u.npy", torch.zeros(3, 16, 16))
    assert attacks.create("universal", file=str(path)).gradients_per_image == 0


def test_the_naive_resizing_is_that_of_torch() -> None:
    """The transcription's own check, against PyTorch's antialiased interpolation."""
    image = torch.rand(3, 12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for size in [(12, 9), (5, 9), (24, 20), (7, 3), (1, 1)]:
        expected = nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(naive.resize(image, size), expected, rtol=0, atol=1e-12)
