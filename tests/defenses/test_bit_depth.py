"""Rounded pixels against rounding by hand."""

from __future__ import annotations

import pytest
import torch

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.models import Head


class Flat(torch.nn.Module):
    """What it is shown, as logits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_pixels_are_rounded_to_evenly_spaced_levels(bits: int) -> None:
    images = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    levels = [level / (2**bits - 1) for level in range(2**bits)]
    expected = [min(levels, key=lambda level: abs(level - float(pixel))) for pixel in images.flatten()]
    found = mr.defenses.create("bit_depth", bits=bits).defend(Flat())(images)
    torch.testing.assert_close(found.flatten().double(), torch.tensor(expected).double(), atol=1e-6, rtol=0)


def test_bytes_pass_eight_bits_as_they_are() -> None:
    images = torch.arange(256).reshape(1, 1, 16, 16) / 255
    assert torch.equal(mr.defenses.create("bit_depth", bits=8).defend(Flat())(images), images.flatten(1))


def test_the_classifier_stays_as_it_was() -> None:
    base = mr.load_encoder("starter-vit")
    classifier = mr.Classifier(base, Head(torch.eye(10, base.width), torch.zeros(10)))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = classifier(images)
    mr.defenses.create("bit_depth").defend(classifier)(images)
    assert torch.equal(classifier(images), before)


@pytest.mark.parametrize(("given", "message"), [({"bits": 0}, "bits"), ({"bit": 3}, "bit: unknown field")])
def test_wrong_hyperparameters_are_said_in_a_line(given: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mr.defenses.create("bit_depth", **given)
