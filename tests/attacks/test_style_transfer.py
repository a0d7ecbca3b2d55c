"""STM's network, which the user brings: what is asked of it, and when."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from mergerisk import attacks
from mergerisk.errors import UserError
from tests.naive.attacks.styles import Tint
from tests.naive.models import Recorder, smooth_problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NETWORKS = """
import torch

asked = []

class Network(torch.nn.Module):
    draws = 2

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images, numbers):
        asked.append(numbers)
        return self.answer(images)

def plain():
    return Network(lambda images: 1 - images)

def silent():
    return torch.nn.Identity()

def small():
    return Network(lambda images: images[..., 1:])

def broken():
    return Network(lambda images: images / 0)

def failing():
    return Network(lambda images: images.no_such_thing)

def fixed():
    made = Network(lambda images: images.unflatten(-1, (4, 4)).flatten(-2))
    made.image_size = 16
    return made

def hungry():
    def answer(images):
        if len(images) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return 1 - images
    return Network(answer)

def nothing():
    return None
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ``styles_of_mine`` lies."""
    (tmp_path / "styles_of_mine.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "styles_of_mine", raising=False)
    return tmp_path


@pytest.mark.parametrize("given", [{}, {"style": ""}, {"style": None}], ids=str)
def test_it_says_what_to_bring(given: dict[str, str | None]) -> None:
    with pytest.raises(UserError) as caught:
        attacks.create("stm", **given)
    assert str(caught.value).count("\n") == 0
    assert "style: name a style-transfer network of yours, as package.module:function" in str(caught.value)


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ("styles_of_mine:none", "has no 'none'"),
        ("no_such_module_of_mine:plain", "cannot be imported"),
        ("styles_of_mine:nothing", "must return a torch.nn.Module"),
        ("styles_of_mine:silent", "draws is None"),
        ("styles_of_mine:small", "must return images as given"),
        ("styles_of_mine:broken", "NaN or infinity"),
        ("styles_of_mine:failing", "no_such_thing"),
        ("tests.naive.attacks.styles:tint@{}/absent.safetensors", "absent.safetensors"),
        ("tests.naive.attacks.styles:tint@{}/other.safetensors", "'colours' is none of the 1 of Tint"),
    ],
)
@pytest.mark.usefixtures("networks")
def test_what_is_no_style_network_is_refused_before_any_work(tmp_path: Path, style: str, said: str) -> None:
    save_file({"colours": torch.ones(3)}, tmp_path / "other.safetensors")
    attack = attacks.create("stm", style=style.format(tmp_path))
    classifier, images, labels = smooth_problem(2, 3, 6, 6)
    recorder = Recorder(classifier)
    for refuse in (attack.check_files, lambda: attack(recorder, images, labels, epsilon=0.1)):
        with pytest.raises(UserError, match=said):
            refuse()
    assert not recorder.seen


@pytest.mark.usefixtures("networks")
def test_a_network_of_one_size_is_tried_with_images_of_that_size() -> None:
    attacks.create("stm", style="styles_of_mine:fixed").check_files()


@pytest.mark.usefixtures("networks")
def test_the_network_is_asked_for_every_view_with_numbers_of_every_image() -> None:
    classifier, images, labels = smooth_problem(3, 3, 6, 6)
    attack = attacks.create("stm", style="styles_of_mine:plain", styles=4, steps=2)
    attack(classifier, images, labels, epsilon=0.1)
    _, *asked = sys.modules["styles_of_mine"].asked  # the first is that it answers at all
    assert [numbers.shape for numbers in asked] == [(3, 2)] * 4 * 2
    assert len(torch.stack(asked).unique()) == 3 * 2 * 4 * 2


@pytest.mark.usefixtures("networks")
def test_where_memory_runs_out_in_the_network_fewer_images_are_taken_at_once() -> None:
    classifier, images, labels = smooth_problem(5, 3, 6, 6)
    few, whole = (
        attacks.create("stm", style=f"styles_of_mine:{name}", styles=2, steps=2)(
            classifier, images, labels, epsilon=0.1
        )
        for name in ("hungry", "plain")
    )
    torch.testing.assert_close(few, whole, rtol=0, atol=1e-11)


def test_the_weights_are_the_files(tmp_path: Path) -> None:
    classifier, images, labels = smooth_problem(2, 3, 6, 6)

    def made(gains: tuple[float, ...]) -> tuple[Mapping[str, object], torch.Tensor]:
        save_file({"gains": torch.tensor(gains)}, tmp_path / "style.safetensors")
        attack = attacks.create(
            "stm", style=f"tests.naive.attacks.styles:tint@{tmp_path}/style.safetensors", styles=2
        )
        return attack.brought(), attack(classifier, images, labels, epsilon=0.1)

    own = attacks.create("stm", style="tests.naive.attacks.styles:tint", styles=2)
    known, adversarial = made(tuple(Tint().gains.tolist()))
    assert torch.equal(adversarial, own(classifier, images, labels, epsilon=0.1))
    other, changed = made((0.5, 0.5, 0.5))
    assert not torch.equal(adversarial, changed)
    assert known != other
    assert known == made(tuple(Tint().gains.tolist()))[0]
