"""The last block for the class token alone, and patches as a matrix product, against transformers' own forward."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from mergerisk.models import load_encoder
from mergerisk.models.inside.blocks import transformer_blocks
from mergerisk.models.inside.class_token import ClassTokenBlock, all_tokens, may_be_alone
from mergerisk.models.inside.hooks import hooked
from mergerisk.models.inside.patches import PatchProjection, project_patches
from tests.models.material import images, save_bare, save_classifier, save_clip

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.models import Encoder

READ = ("vit", "deit", "clip", "vit_mae")
"""Families whose features are the class token."""
TOKENS = {"deit": 18}
"""Of 4 × 4 patches, and a class token; DeiT has one more for distillation."""


def saved(folder: Path, family: str, **changes: Any) -> Encoder:
    save = {"clip": save_clip, "vit_mae": save_bare}.get(family, save_classifier)
    return load_encoder(str(save(folder) if save is save_clip else save(folder, family, **changes)))


def last_block(encoder: Encoder) -> nn.Module:
    return list(transformer_blocks(encoder.backbone).values())[-1]


def gradients(encoder: Encoder, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Of the features' squared length, with respect to pixels and every parameter; zeros where nothing depends."""
    leaf = pixels.detach().requires_grad_()
    places = [leaf, *encoder.backbone.parameters()]
    return list(torch.autograd.grad(encoder(leaf).square().sum(), places, materialize_grads=True))


@pytest.mark.parametrize("family", READ)
def test_the_class_token_alone_is_that_of_all_tokens(family: str, tmp_path: Path) -> None:
    encoder = saved(tmp_path / "model", family).double()
    encoder.requires_grad_(True)
    pixels = images().double()
    alone, rows = gradients(encoder, pixels), []
    with hooked([(last_block(encoder), lambda _, __, output: rows.append(output.shape))]):
        watched = encoder(pixels)
        everything = gradients(encoder, pixels)
    assert rows[0] == (3, TOKENS.get(family, 17), 32)
    torch.testing.assert_close(encoder(pixels), watched, rtol=1e-12, atol=1e-12)
    for one, other in zip(alone, everything, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert any(bool(gradient.any()) for gradient in alone[1:])


def test_only_the_class_token_passes_the_last_block(tmp_path: Path) -> None:
    encoder = saved(tmp_path / "model", "vit")
    kept: list[torch.Tensor] = []
    watch = (encoder.backbone.layernorm, lambda _, __, output: kept.append(output))  # past the last block
    with hooked([watch]):
        encoder(images())
        with all_tokens(encoder):
            encoder(images())
        encoder.backbone(pixel_values=encoder.prepare(images()))  # as anybody may call it
    assert [len(tokens[0]) for tokens in kept] == [1, 17, 17]
    torch.testing.assert_close(kept[0], kept[1][:, :1])


def test_what_is_made_of_an_encoder_computes_as_it_does(tmp_path: Path) -> None:
    encoder = saved(tmp_path / "model", "vit")
    for twin in (encoder.with_state(encoder), copy.deepcopy(encoder)):
        assert isinstance(last_block(twin), ClassTokenBlock)
        assert torch.equal(twin(images()), encoder(images()))
        assert twin.state().keys() == encoder.state().keys()


class _MeanOfTokens(nn.Module):
    """An MLP that looks at all tokens of an image, as a router does."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.mean(dim=1, keepdim=True).expand_as(tokens)


@pytest.mark.parametrize("family", READ)
def test_an_encoder_is_pickled_and_computes_as_before(family: str, tmp_path: Path) -> None:
    encoder = saved(tmp_path / "model", family)
    again = pickle.loads(pickle.dumps(encoder))
    assert type(last_block(again)) is type(last_block(encoder))
    assert isinstance(last_block(again), ClassTokenBlock)
    torch.testing.assert_close(again(images()), encoder(images()), rtol=0, atol=0)


def test_a_part_that_was_exchanged_is_given_all_tokens(tmp_path: Path) -> None:
    encoder = saved(tmp_path / "model", "vit")
    block: Any = last_block(encoder)
    block.mlp = _MeanOfTokens()
    found = encoder(images())
    with all_tokens(encoder):
        assert torch.equal(found, encoder(images()))


def test_blocks_of_which_more_is_read_stay_as_they_are(tmp_path: Path) -> None:
    for family in ("dinov2", "beit", "siglip"):
        encoder = saved(tmp_path / family, family)
        assert not any(isinstance(part, ClassTokenBlock) for part in encoder.modules())


def test_a_block_that_draws_at_random_stays_as_it_is(tmp_path: Path) -> None:
    encoder = saved(tmp_path / "model", "vit", hidden_dropout_prob=0.1)
    assert not isinstance(last_block(encoder), ClassTokenBlock)
    other = nn.TransformerEncoderLayer(8, 2)  # of another form
    may_be_alone(other)
    assert type(other) is nn.TransformerEncoderLayer


@pytest.mark.parametrize("side", [32, 48, 37])
def test_patches_are_the_convolution(side: int) -> None:
    """At 37 pixels five are over, which the convolution leaves out."""
    convolution = nn.Conv2d(3, 5, kernel_size=8, stride=8).double()
    product = nn.Sequential(copy.deepcopy(convolution))
    project_patches(product)
    assert type(product[0]) is PatchProjection
    found, expected = (images(side).double().requires_grad_() for _ in range(2))
    made, wanted = product(found), convolution(expected)
    torch.testing.assert_close(made, wanted, rtol=1e-12, atol=1e-12)
    (weights := torch.rand_like(wanted)).requires_grad_(False)
    (made * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(product[0].weight.grad, convolution.weight.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(product[0].bias.grad, convolution.bias.grad, rtol=1e-12, atol=1e-12)


def test_convolutions_that_overlap_pad_or_read_features_stay_as_they_are() -> None:
    others = nn.Sequential(
        nn.Conv2d(3, 4, 4, stride=2),
        nn.Conv2d(3, 4, 4, stride=4, padding=1),
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(8, 4, 2, stride=2),
    )
    project_patches(others)
    assert all(type(part) is nn.Conv2d for part in others)
