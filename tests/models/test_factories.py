"""Backbones that the user's own code makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.models import backbone_identity, load_encoder, load_expert
from tests.models import factory_modules
from tests.models.material import images

HERE = "tests.models.factory_modules"


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    state = factory_modules.small().state_dict()
    return {
        name: torch.rand(t.shape, generator=draws) if t.is_floating_point() else t for name, t in state.items()
    }


@pytest.mark.parametrize("half", [False, True])
def test_a_factory_with_weights_is_that_module(half: bool, tmp_path: Path) -> None:
    stored = {n: t.half() if half and t.is_floating_point() else t for n, t in weights().items()}
    save_file(stored, tmp_path / "weights.safetensors")
    encoder = load_encoder(f"{HERE}:small@{tmp_path / 'weights.safetensors'}")
    reference = factory_modules.small().eval()
    reference.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in stored.items()})
    torch.testing.assert_close(encoder(images(12)), reference(images(12)))
    assert (encoder.width, encoder.image_size) == (5, 12)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.training
    other = weights(1)
    save_file(other, tmp_path / "expert.safetensors")
    expert = load_expert(encoder, tmp_path / "expert.safetensors")
    assert all(torch.equal(tensor, other[name]) for name, tensor in expert.state().items())
    images_seen = mr.merging.Calibration(images(12, 8), mr.models.Head(torch.ones(2, 5), torch.zeros(2)))
    merged = mr.merging.create("weight_averaging").merge(
        encoder, {"a": encoder, "b": expert}, calibration={"a": images_seen, "b": images_seen}, seed=0
    )
    assert merged.encoder(images(12)).shape == (3, 5)


def test_the_module_takes_pixels_unless_the_user_says_how_to_scale_them() -> None:
    pixels = images(12)
    # Attributes of these names are the module's own business: it may scale by them itself.
    for name in ("small", "scaling"):
        assert torch.equal(load_encoder(f"{HERE}:{name}").prepare(pixels), pixels)
    stated = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in stated.values())
    scaled = load_encoder(f"{HERE}:small", preprocessing=stated)
    torch.testing.assert_close(scaled.prepare(pixels), (pixels - mean) / std)


def test_the_size_is_the_modules_or_the_one_asked_for() -> None:
    assert load_encoder(f"{HERE}:sizeless", image_size=20).image_size == 20
    assert load_encoder(f"{HERE}:small", image_size=20).image_size == 20
    with pytest.raises(UserError, match="image_size is None; set it"):
        load_encoder(f"{HERE}:sizeless")


def test_weights_drawn_at_random_are_always_the_same() -> None:
    before = torch.random.get_rng_state()
    first = load_encoder(f"{HERE}:small").state()
    torch.rand(7)
    second = load_encoder(f"{HERE}:small").state()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    torch.random.set_rng_state(before)
    load_encoder(f"{HERE}:small")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_half_precision_modules_are_widened() -> None:
    assert load_encoder(f"{HERE}:half").state()["convolution.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maps", r"images × width, got \(1, 5, 10, 10\)"),
        ("tuples", "images × width, got tuple"),
        ("whole", "as floats, got int64"),
        ("fussy", "fails on an image of 12 × 12: RuntimeError"),
        ("poisoned", "'convolution.weight' holds NaN"),
        ("broken", "cannot be loaded: KeyError"),
        ("number", "must return a torch.nn.Module, got int"),
        ("absent", "has no 'absent'"),
    ],
)
def test_what_is_no_backbone_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        load_encoder(f"{HERE}:{name}")
    assert "\n" not in str(raised.value)


def test_weights_that_are_not_the_modules_are_refused(tmp_path: Path) -> None:
    good = weights()
    cases: dict[str, dict[str, torch.Tensor | None]] = {
        "'norm.bias' is missing": {"norm.bias": None},
        "'stranger' is none of the 7": {"stranger": torch.zeros(1)},
        r"'norm.bias' has shape \(4,\)": {"norm.bias": torch.zeros(4)},
        "'norm.bias' holds NaN": {"norm.bias": torch.full((5,), torch.nan)},
    }
    for message, change in cases.items():
        content = {name: tensor for name, tensor in (good | change).items() if tensor is not None}
        save_file(content, tmp_path / "bad.safetensors")
        with pytest.raises(UserError, match=message):
            load_encoder(f"{HERE}:small@{tmp_path / 'bad.safetensors'}")
    torch.save(good, tmp_path / "weights.pt")
    for file, message in (("weights.pt", "pickled weights are not read"), ("gone.safetensors", "no such file")):
        with pytest.raises(UserError, match=message):
            load_encoder(f"{HERE}:small@{tmp_path / file}")


def test_the_identity_is_that_of_the_source_and_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = Path("own_backbone_for_this_test.py")
    source.write_text("from tests.models.factory_modules import Small, small\ndef make():\n    return small()\n")
    name = "own_backbone_for_this_test:make"
    plain = backbone_identity(name)
    assert plain == backbone_identity(name)
    save_file(weights(), "one.safetensors")
    save_file(weights(1), "two.safetensors")
    one, two = (backbone_identity(f"{name}@{file}.safetensors") for file in ("one", "two"))
    assert len({tuple(found.values()) for found in (plain, one, two)}) == 3
    assert one.keys() == two.keys()
    source.write_text(source.read_text() + "# changed\n")
    assert backbone_identity(name) != plain
    # Re-exported: both files decide.
    assert len(backbone_identity("own_backbone_for_this_test:small")) == len(plain) + 1
