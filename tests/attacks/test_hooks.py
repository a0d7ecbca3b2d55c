"""Attacks that reach into the classifier: that they reach, wherever it computes, and leave it as it was."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)

import mergerisk.attacks as at
from mergerisk.attacks.vision_transformers import (
    _without_extreme_entries,
    _without_extreme_tokens,
    patch_numbers,
)
from mergerisk.errors import UserError
from mergerisk.models import Classifier, Encoder, Head
from mergerisk.models.inside.attention import AttentionMaps
from mergerisk.models.inside.blocks import block_norms, find_layer, residual_branches
from mergerisk.randomness import ImageRandom

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.attacks.attack import Attack

SIDE = 16
CLASSES = 5
TRANSFORMERS = ["vit", "clip", "dinov2", "multihead", "weights"]
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIDE,
    "patch_size": 4,
    "initializer_range": 0.3,
}


class Block(nn.Module):
    """A pre-norm block with PyTorch's own attention."""

    def __init__(self, *, need_weights: bool) -> None:
        super().__init__()
        self.before = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.after = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.need_weights = need_weights

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        read = self.before(tokens)
        tokens = tokens + self.attention(read, read, read, need_weights=self.need_weights)[0]
        seen: torch.Tensor = tokens + self.mlp(self.after(tokens))
        return seen


class MultiHeadViT(nn.Module):
    """A small ViT out of ``nn.MultiheadAttention``: fused, or, to return its weights, eager."""

    def __init__(self, *, need_weights: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.blocks = nn.Sequential(*[Block(need_weights=need_weights) for _ in range(3)])

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        tokens = self.blocks(self.patches(pixels).flatten(2).mT)
        seen: torch.Tensor = tokens.mean(dim=1)
        return seen


def first_token(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    tokens: torch.Tensor = backbone(pixel_values=pixels).last_hidden_state
    return tokens[:, 0]


def pooled(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    features: torch.Tensor = backbone(pixel_values=pixels).pooler_output
    return features.flatten(1)


def classifier(kind: str, seed: int = 0, *, eager: bool = False) -> Classifier:
    """A random one in float64, nested as the package nests them."""
    features: Any = first_token
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        implementation = "eager" if eager else "sdpa"
        if kind == "vit":
            config = ViTConfig(**SIZES, attn_implementation=implementation)
            backbone: nn.Module = ViTModel(config, add_pooling_layer=False)
        elif kind == "clip":
            backbone = CLIPVisionModel(CLIPVisionConfig(**SIZES, attn_implementation=implementation))
        elif kind == "dinov2":
            backbone = Dinov2Model(Dinov2Config(**SIZES, mlp_ratio=2, attn_implementation=implementation))
        elif kind == "resnet":
            config = ResNetConfig(
                embedding_size=4, hidden_sizes=[4, 8, 12, 16], depths=[2, 2, 2, 2], layer_type="basic"
            )
            backbone, features = ResNetModel(config), pooled
        else:
            backbone, features = MultiHeadViT(need_weights=kind == "weights"), nn.Module.__call__
        head = Head(torch.randn(CLASSES, 16), torch.randn(CLASSES))
    encoder = Encoder(backbone, width=16, image_size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3, features=features)
    return Classifier(encoder, head).double().requires_grad_(False).eval()


def images(count: int = 3, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    pixels = torch.rand(count, 3, SIDE, SIDE, generator=draws, dtype=torch.float64)
    return pixels, torch.randint(CLASSES, (count,), generator=draws)


def problem(model: nn.Module, count: int = 3) -> at.Problem:
    pixels, labels = images(count)
    random = ImageRandom(0, "attack", range(count))
    return at.Problem(
        model, pixels, labels, None, at.ball("linf", pixels, 8 / 255), random, at.Pool(pixels, labels)
    )


def first_gradient(attack: Any, model: nn.Module, count: int = 3) -> torch.Tensor:
    """The surrogate's gradient at the images."""
    given = problem(model, count)
    with attack.surrogate(given) as oracle:
        found: torch.Tensor = oracle(given.images)
    return found


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_every_block_s_map_is_met_and_values_stay(kind: str) -> None:
    model = classifier(kind)
    pixels, _ = images()
    shapes = []

    def see(maps: torch.Tensor) -> torch.Tensor:
        shapes.append(maps.shape[-2:])
        torch.testing.assert_close(maps.sum(-1), torch.ones_like(maps[..., 0]))
        return maps

    with AttentionMaps(see) as attention:
        seen = model(pixels)
    torch.testing.assert_close(seen, model(pixels), rtol=1e-9, atol=1e-9)
    tokens = 16 if kind in {"multihead", "weights"} else 17
    assert attention.met == 3
    assert shapes == [(tokens, tokens)] * 3


@pytest.mark.parametrize(
    "named", [{}, {"is_causal": True}, {"scale": 0.3}, {"enable_gqa": True}, {"bool"}, {"add"}]
)
def test_explicit_attention_is_pytorch_s(named: Any) -> None:
    draws = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 5, 3, generator=draws)
    heads = 2 if named == {"enable_gqa": True} else 4
    key, value = torch.randn(2, 2, heads, 5, 3, generator=draws)
    if isinstance(named, set):
        mask = torch.randn(5, 5, generator=draws)
        named = {"attn_mask": (mask > 0) | torch.eye(5, dtype=torch.bool) if named == {"bool"} else mask}
    with AttentionMaps(lambda maps: maps) as attention:
        seen = F.scaled_dot_product_attention(query, key, value, **named)
    torch.testing.assert_close(seen, F.scaled_dot_product_attention(query, key, value, **named))
    assert attention.met == 1


def test_attention_with_dropout_is_refused() -> None:
    tokens = torch.zeros(1, 1, 2, 2)
    with AttentionMaps(lambda maps: maps), pytest.raises(UserError, match="at random"):
        F.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=0.1)


def test_a_softmax_over_something_else_is_left_alone() -> None:
    with AttentionMaps(lambda maps: maps * 0) as attention:
        F.softmax(torch.ones(2, 3), dim=-1)
        torch.ones(2, 3, 4, 5).softmax(1)
        F.softmax(torch.ones(2, 3, 4, 5), 1)
    assert attention.met == 0


@pytest.mark.parametrize("attack", [at.PNAPatchOut(), at.TGR(), at.ATT(tokens="inputs"), at.FPR()])
@pytest.mark.parametrize("kind", ["vit", "clip", "dinov2", "multihead"])
def test_fused_and_eager_attention_give_the_same_gradient(attack: Attack, kind: str) -> None:
    fused, eager = classifier(kind), classifier(kind, eager=True)
    if kind == "multihead":
        eager = classifier("weights")
    found = first_gradient(attack, fused)
    # transformers' eager softmax is float32 in some models.
    torch.testing.assert_close(
        found, first_gradient(attack, eager), rtol=1e-4, atol=1e-6 * float(found.abs().max())
    )
    plain = first_gradient(at.MIFGSM(), fused)
    assert not torch.allclose(found, plain, rtol=0.05, atol=0.01 * float(plain.abs().max()))


def test_pna_lets_gradients_through_values_only() -> None:
    class Frozen(MultiHeadViT):
        """Written out, with constant maps."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            tokens = self.patches(pixels).flatten(2).mT
            for block in self.blocks:
                read = block.before(tokens)
                packed = F.linear(read, block.attention.in_proj_weight, block.attention.in_proj_bias)
                query, key, value = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in packed.chunk(3, dim=2))
                maps = (query @ key.mT / 8**0.5).softmax(-1).detach()
                tokens = tokens + block.attention.out_proj((maps @ value).transpose(1, 2).flatten(2))
                tokens = tokens + block.mlp(block.after(tokens))
            return tokens.mean(dim=1)

    model = classifier("multihead")
    found = first_gradient(at.PNAPatchOut(), model)
    frozen = Frozen(need_weights=False).double()
    frozen.load_state_dict(model.encoder.backbone.state_dict())
    model.encoder.backbone = frozen
    torch.testing.assert_close(found, first_gradient(at.MIFGSM(), model), rtol=1e-8, atol=1e-10)


def test_patch_out_moves_only_the_kept_patches() -> None:
    attack = at.PNAPatchOut(steps=1, kept=0.3)
    pixels, labels = images()
    moved = (attack(classifier("vit"), pixels, labels, epsilon=0.1) - pixels).abs().amax(dim=1) > 0
    patches = moved.unflatten(2, (4, 4)).unflatten(1, (4, 4)).transpose(2, 3).flatten(3).any(3).flatten(1)
    assert patches.sum(dim=1).tolist() == [round(0.3 * 16)] * 3
    assert len({tuple(row.tolist()) for row in patches}) > 1


def test_patches_lie_on_the_attacked_image() -> None:
    """Attacked at 8 pixels, a model that sees 16 in patches of 4 has patches of 2; at 6 pixels, of 1.5."""
    model = classifier("vit")
    assert patch_numbers(model, torch.zeros(1, 3, 8, 8), None).tolist()[:3] == [
        [0, 0, 1, 1, 2, 2, 3, 3],
        [0, 0, 1, 1, 2, 2, 3, 3],
        [4, 4, 5, 5, 6, 6, 7, 7],
    ]
    assert patch_numbers(model, torch.zeros(1, 3, 6, 6), None)[0].tolist() == [0, 0, 1, 2, 2, 3]
    given = patch_numbers(model, torch.zeros(1, 3, 8, 8), 3)
    assert given[[0, 3, 7]].tolist() == [
        [0, 0, 0, 1, 1, 1, 2, 2],
        [3, 3, 3, 4, 4, 4, 5, 5],
        [6, 6, 6, 7, 7, 7, 8, 8],
    ]


def test_extremes_are_removed_per_image_and_head() -> None:
    draws = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 2, 4, 5, generator=draws)
    found = _without_extreme_entries(0.25, maps)
    tokens = torch.randn(3, 6, 4, generator=draws)
    tamed = _without_extreme_tokens(0.5, tokens)
    for image in range(3):
        for head in range(2):
            one = maps[image, head]
            entries = [(float(one[row, column]), row, column) for row in range(4) for column in range(5)]
            gone = [max(entries)[1:], min(entries)[1:]]
            for value, row, column in entries:
                removed = any(row == r or column == c for r, c in gone)
                assert found[image, head, row, column] == (0 if removed else 0.25 * value)
        for channel in range(4):
            values = tokens[image, :, channel].tolist()
            kept = [0.0 if value in (max(values), min(values)) else 0.5 * value for value in values]
            assert tamed[image, :, channel].tolist() == pytest.approx(kept)


def test_tgr_that_shrinks_all_to_nothing_is_sgm_that_keeps_nothing() -> None:
    """Both leave the residual path, which mean pooling leads to the pixels."""
    model = classifier("multihead")
    found = first_gradient(at.TGR(attention=0, qkv=0, mlp=0), model)
    torch.testing.assert_close(found, first_gradient(at.SGM(keep=0), model))
    assert float(found.abs().max()) > 0


ALL = [
    ("pna_patchout", "vit"),
    ("pna_patchout", "multihead"),
    ("tgr", "vit"),
    ("tgr", "clip"),
    ("sgm", "resnet"),
    ("sgm", "dinov2"),
    ("fia", "resnet"),
    ("fia", "clip"),
    ("naa", "resnet"),
    ("naa", "vit"),
    ("ilpd", "resnet"),
    ("ilpd", "clip"),
]
FEW: dict[str, dict[str, int]] = {
    "fia": {"ensemble": 3},
    "naa": {"integration": 3},
    "pna_patchout": {"patch_size": 4},
}


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_results_do_not_depend_on_the_batch_and_nothing_stays_hooked(name: str, kind: str) -> None:
    attack = at.create(name, steps=3, **FEW.get(name, {}))
    model = classifier(kind)
    pixels, labels = images()
    whole = attack(model, pixels, labels, epsilon=8 / 255)
    assert float((whole - pixels).abs().max()) > 1 / 255
    torch.testing.assert_close(whole, attack(model, pixels, labels, epsilon=8 / 255, batch_size=1))
    assert hooks(model) == 0


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_nothing_stays_hooked_after_an_error(name: str, kind: str) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = classifier(kind)
            self.calls = 0

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls > 6:
                raise RuntimeError("out of luck")
            seen: torch.Tensor = self.inner(pixels)
            return seen

    model = Failing()
    pixels, labels = images()
    with pytest.raises(RuntimeError, match="luck"):
        at.create(name, **FEW.get(name, {}))(model, pixels, labels, epsilon=8 / 255)
    assert hooks(model) == 0


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_composes_with_inputs_filters_targets_and_precision(name: str, kind: str) -> None:
    attack = at.create(
        name,
        steps=2,
        targeted=True,
        precision="bfloat16",
        inputs=["di", "si"],
        gradient=["ti"],
        **FEW.get(name, {}),
    )
    pixels, labels = images()
    crafted = attack.craft(classifier(kind).float(), pixels.float(), labels, epsilon=8 / 255)
    assert int(crafted.zero_gradients.sum()) == 0
    # Five scales at each of two steps; what comes before the loop sees the images alone.
    assert attack.gradients_per_image == 10 + (3 if name in {"fia", "naa"} else 0)


def test_a_cnn_has_no_attention() -> None:
    pixels, labels = images()
    for attack in (at.PNAPatchOut(patch_size=4), at.TGR()):
        with pytest.raises(UserError, match=r"no attention map was met in Classifier: .*vision transformers"):
            attack(classifier("resnet"), pixels, labels, epsilon=8 / 255)


def test_unknown_patches_and_blocks_are_refused() -> None:
    pixels, labels = images()
    with pytest.raises(UserError, match="set the attack's patch_size"):
        at.PNAPatchOut()(classifier("multihead"), pixels, labels, epsilon=8 / 255)
    post_norm = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    model = classifier("multihead")
    model.encoder.backbone.blocks = nn.Sequential(post_norm.double())
    for attack in (at.TGR(), at.SGM()):
        with pytest.raises(UserError, match="TransformerEncoderLayer is no pre-norm"):
            attack(model, pixels, labels, epsilon=8 / 255)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES)).double()
    with pytest.raises(UserError, match="no residual branch"):
        at.SGM()(plain, pixels, labels, epsilon=8 / 255)


def test_pytorch_s_own_pre_norm_block_is_reached() -> None:
    """It has no modules for its attention's and MLP's whole branch, but norms, and a fused path without gradients."""
    model = classifier("multihead")
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0, norm_first=True)
    model.encoder.backbone.blocks = nn.Sequential(layer.double().requires_grad_(False)).eval()
    pixels, labels = images()
    at.TGR(steps=2)(model, pixels, labels, epsilon=8 / 255)
    found = first_gradient(at.SGM(keep=0), model)
    model.encoder.backbone.blocks = nn.Identity()
    # Without branches the block is the identity; the loss still looks at what the block put out.
    assert not torch.allclose(found, first_gradient(at.MIFGSM(), model))
    assert float(found.abs().max()) > 0


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_sgm_that_keeps_all_is_mi_fgsm(kind: str) -> None:
    pixels, labels = images()
    model = classifier(kind)
    kept = at.SGM(keep=1)(model, pixels, labels, epsilon=8 / 255)
    assert torch.equal(kept, at.MIFGSM()(model, pixels, labels, epsilon=8 / 255))


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("keep", [0.0, 0.3])
def test_sgm_scales_the_gradient_of_branches(kind: str, keep: float) -> None:
    """Against branches scaled in the forward pass, f → keep f + (1 − keep) f held constant."""
    model = classifier(kind)
    found = first_gradient(at.SGM(keep=keep), model)

    def held(_: object, __: object, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        mixed = keep * first + (1 - keep) * first.detach()
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    wanted = {"layer"} if kind == "resnet" else {"attention", "mlp"}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in wanted:
            module.register_forward_hook(held)
    torch.testing.assert_close(found, first_gradient(at.MIFGSM(), model))


def test_branches_and_blocks_of_an_ensemble_are_those_of_its_members() -> None:
    both = at.Ensemble([classifier("clip"), classifier("vit", 1)])
    assert len(block_norms(both)) == 6
    assert len(residual_branches(both)) == 12
    assert len(residual_branches(classifier("resnet"))) == 8
    pixels, labels = images()
    at.TGR(steps=2)(both, pixels, labels, epsilon=8 / 255)
    with pytest.raises(UserError, match="has 2 lists of stages or of transformer blocks"):
        at.FIA()(both, pixels, labels, epsilon=8 / 255)


def test_the_middle_layer() -> None:
    resnet, vit = classifier("resnet"), classifier("vit")
    assert find_layer(resnet, None) is resnet.encoder.backbone.encoder.stages[1]
    assert find_layer(vit, None) is vit.encoder.backbone.layers[0]
    with pytest.raises(UserError, match=r"did you mean 'encoder.backbone'"):
        find_layer(vit, "encoder.backbon")


@pytest.mark.parametrize(
    "layer", ["encoder.backbone.encoder.stages.1", "encoder.backbone.encoder.stages.1.layers.0"]
)
@pytest.mark.parametrize("name", ["fia", "naa"])
def test_layers_after_the_chosen_one_are_run_for_weights_only(name: str, layer: str) -> None:
    model = classifier("resnet")
    calls = {"layer": 0, "later": 0}

    def count(key: str) -> Any:
        def hook(*_: object) -> None:
            calls[key] += 1

        return hook

    model.get_submodule(layer).register_forward_hook(count("layer"))
    model.encoder.backbone.encoder.stages[2].register_forward_hook(count("later"))
    pixels, labels = images()
    attack = at.create(name, steps=4, layer=layer, **FEW[name])
    attack(model, pixels, labels, epsilon=8 / 255)
    assert calls["later"] == 1 + 3  # to count the classes; for the weights
    assert calls["layer"] == 1 + 1 + 3 + (name == "naa") + 4  # to check, and for the black image, besides


def test_fia_against_its_definition() -> None:
    """With the layer's features in hand: the first stage as one model, the rest as another."""
    model = classifier("resnet")
    given = problem(model)
    random = ImageRandom(0, "attack", range(3))
    layer = model.encoder.backbone.encoder.stages[1]
    held: list[torch.Tensor] = []

    def replace(_: object, __: object, output: torch.Tensor) -> torch.Tensor:
        held.append(output.detach().requires_grad_())
        return held[-1]

    handle = layer.register_forward_hook(replace)
    weights = torch.zeros(3, 8, 2, 2, dtype=torch.float64)
    for _ in range(4):
        mask = random.noise(like=given.images) >= 0.3
        logits = model(given.images * mask)
        weights += torch.autograd.grad(logits[torch.arange(3), given.labels].sum(), held[-1])[0]
    handle.remove()
    weights /= weights.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()

    pixels = given.images.clone().requires_grad_()
    features: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda *parts: features.append(parts[2]))
    model(pixels)
    handle.remove()
    wanted = -torch.autograd.grad((weights * features[0]).sum(), pixels)[0]
    torch.testing.assert_close(first_gradient(at.FIA(ensemble=4), model), wanted)


def test_naa_against_a_linear_model() -> None:
    """Where everything is linear but the softmax, the attribution is known: weights are mean gradients of p."""
    draws = torch.Generator().manual_seed(0)
    first = torch.randn(6, 3 * SIDE * SIDE, generator=draws, dtype=torch.float64) / 100
    second = torch.randn(CLASSES, 6, generator=draws, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 6, bias=False), nn.Linear(6, CLASSES, bias=False)).double()
    model.load_state_dict({"1.weight": first, "2.weight": second})
    pixels, labels = images()
    for index, (pixel, label) in enumerate(zip(pixels.flatten(1), labels, strict=True)):
        weights = torch.zeros(6, dtype=torch.float64)
        for point in range(1, 8):
            p = (second @ first @ pixel * point / 7).softmax(0)
            weights += p[label] * (second[label] - p @ second) / 7
        attribution = first @ pixel * weights
        slope = torch.where(attribution > 0, 1.0, 0.5) * weights
        found = first_gradient(at.NAA(integration=7, layer="1", negative=0.5), model.requires_grad_(False))
        torch.testing.assert_close(found[index].flatten(), -(slope @ first))


def test_a_layer_may_put_out_a_tuple_or_a_model_output() -> None:
    model = classifier("clip")
    for layer in ("encoder.backbone.encoder", "encoder.backbone.encoder.layers.0.self_attn"):
        found = first_gradient(at.FIA(ensemble=2, layer=layer), model)
        assert float(found.abs().max()) > 0


def test_layers_that_cannot_be_attacked_are_refused() -> None:
    pixels, labels = images()
    model = classifier("vit")
    model.adapter = nn.Identity()
    model.unused = nn.Linear(2, 2)
    with pytest.raises(UserError, match="does not run the layer"):
        at.FIA(layer="unused")(model, pixels, labels, epsilon=8 / 255)
    with pytest.raises(UserError, match="has no layer 'stages'"):
        at.NAA(layer="stages")(model, pixels, labels, epsilon=8 / 255)
    with pytest.raises(UserError, match="0 lists of stages"):
        at.NAA()(nn.Sequential(nn.Flatten(), nn.Linear(768, CLASSES)).double(), pixels, labels, epsilon=8 / 255)
    clip = classifier("clip")
    clip.adapter = SideBranch()
    with pytest.raises(UserError, match="does not depend on Linear"):
        at.FIA(layer="adapter.side")(clip, pixels, labels, epsilon=8 / 255)
    with pytest.raises(UserError, match="loss cannot be chosen"):
        at.create("fia", loss="margin")


class SideBranch(nn.Module):
    """Runs a layer for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Linear(16, 2).double()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.side(features)
        return features


@pytest.mark.parametrize("combine", ["logits", "probabilities", "loss"])
def test_ensemble_combines(combine: Any) -> None:
    members = [classifier("vit"), classifier("resnet", 1)]
    pixels, labels = images()
    answers = [member(pixels) for member in members]
    found = at.Ensemble(members, combine)(pixels)
    if combine == "logits":
        torch.testing.assert_close(found, (answers[0] + answers[1]) / 2)
    elif combine == "probabilities":
        torch.testing.assert_close(found.exp(), (answers[0].softmax(1) + answers[1].softmax(1)) / 2)
    else:
        losses = [F.cross_entropy(answer, labels) for answer in answers]
        torch.testing.assert_close(F.nll_loss(found, labels), (losses[0] + losses[1]) / 2)
        same = F.cross_entropy((answers[0] + answers[1]) / 2, labels)
        torch.testing.assert_close(F.cross_entropy(found, labels), same)


def test_ensemble_refuses_what_cannot_answer_together() -> None:
    with pytest.raises(UserError, match="at least one"):
        at.Ensemble([])
    with pytest.raises(UserError, match="did you mean 'logits'"):
        at.Ensemble([nn.Identity()], "logit")  # type: ignore[arg-type]
    pixels, labels = images()
    members = [nn.Sequential(nn.Flatten(), nn.Linear(768, classes)).double() for classes in (4, 5)]
    with pytest.raises(UserError, match=r"same classes; these have \[4, 5\]"):
        at.MIFGSM()(at.Ensemble(members), pixels, labels % 4, epsilon=8 / 255)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """One perturbation in every kind of file."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (3, SIDE, SIDE))
    np.save(tmp_path / "a.npy", noise)
    np.savez(tmp_path / "a.npz", perturbation=noise[None])
    save_file({"perturbation": torch.from_numpy(noise)}, tmp_path / "a.safetensors")
    torch.save(torch.from_numpy(noise)[None], tmp_path / "a.pt")
    return {path.suffix: str(path) for path in tmp_path.iterdir()}


def test_universal_perturbation_is_scaled_as_a_whole(files: dict[str, str]) -> None:
    noise = torch.from_numpy(np.load(files[".npy"]))
    pixels, labels = images()
    model = classifier("vit")
    small = 0.3 * pixels + 0.35  # so that the box is far
    for file in files.values():
        attack = at.create("universal", file=file)
        assert attack.gradients_per_image == 0
        found = attack(model, small, labels, epsilon=8 / 255) - small
        torch.testing.assert_close(found, (noise * (8 / 255) / noise.abs().max()).expand(3, -1, -1, -1))
        found = attack(model, small, labels, epsilon=0.5, norm="l2") - small
        torch.testing.assert_close(found, (noise * 0.5 / noise.norm()).expand(3, -1, -1, -1))
        # What fits is not blown up.
        torch.testing.assert_close(attack(model, small, labels, epsilon=0.2) - small, noise.expand(3, -1, -1, -1))


def test_universal_perturbation_fits_the_images(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).uniform(-0.02, 0.02, (1, 8, 12))
    np.save(tmp_path / "grey.npy", wide)
    pixels, labels = images()
    attack = at.Universal(file=str(tmp_path / "grey.npy"))
    found = attack(classifier("vit"), pixels, labels, epsilon=0.1)
    wanted = F.interpolate(torch.from_numpy(wide)[None], (SIDE, SIDE), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, (pixels + wanted).clamp(0, 1))


def test_universal_refuses_other_files(tmp_path: Path) -> None:
    pixels, labels = images()
    good = np.zeros((3, 4, 4))
    np.save(tmp_path / "channels.npy", good[:2])
    np.save(tmp_path / "integers.npy", good.astype(np.uint8))
    np.save(tmp_path / "flat.npy", good[0])
    np.save(tmp_path / "several.npy", np.stack([good, good]))
    np.save(tmp_path / "nan.npy", good * np.nan)
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=good, b=good)
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "module.pt")
    (tmp_path / "code.pt").write_bytes(pickle.dumps(print, protocol=2))
    (tmp_path / "image.png").write_bytes(b"")
    for name, message in {
        "missing.npy": "cannot be read: No such file",
        "missing.pt": "cannot be read: No such file",
        "channels.npy": "2 channels, the images 3",
        "integers.npy": "found torch.uint8",
        "flat.npy": r"found torch.float64, \(4, 4\)",
        "several.npy": r"found torch.float64, \(2, 3, 4, 4\)",
        "nan.npy": "NaN or infinite",
        "objects.npy": "no .npy file of plain numbers",
        "two.npz": "holds 2 arrays",
        "broken.safetensors": "no .safetensors file of plain numbers",
        "module.pt": "no .pt file of plain numbers",
        "code.pt": "no .pt file of plain numbers",
        "image.png": "is read from .npy, .npz, .pt, .safetensors files",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            at.Universal(file=str(tmp_path / name))(classifier("vit"), pixels, labels, epsilon=0.1)
        assert "\n" not in str(caught.value)
