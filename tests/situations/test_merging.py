"""What surrounds a merge: whatever its caller has set, every method and correction gives the same bytes."""

from __future__ import annotations

import re
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from torch import nn

from mergerisk.merging import CORRECTIONS, METHODS, Calibration, create, merge_state_dicts
from mergerisk.merging.states import StateMerging
from mergerisk.models import Encoder, Head, load_encoder
from tests.situations.situation import Situation, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Mode = Callable[[], AbstractContextManager[object]]

TASKS = ("one", "two")
FEW: dict[str, dict[str, Any]] = {
    "fisher": {"examples": 3},
    "regmean": {"examples": 6},
    "regmean_plus_plus": {"examples": 6},
    "esm": {"examples": 6},
    "adamerging": {"steps": 2, "batch_size": 2},
    "adamerging_plus_plus": {"steps": 2, "batch_size": 2},
    "we_moe": {"steps": 2, "batch_size": 2},
}
NAMES = [
    *METHODS.names(),
    *(f"weight_averaging+{name}" for name in CORRECTIONS.names()),
    "emr+surgery",  # an encoder per task
]


@cache
def pretrained() -> Encoder:
    """A ViT that is wide enough for threads to share its sums."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=384,
        image_size=32,
        patch_size=8,
    )
    with torch.random.fork_rng(), TemporaryDirectory() as folder:
        torch.manual_seed(0)
        ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
        return load_encoder(folder)


def features_with_noise(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Of a model that draws whenever it is called, in evaluation mode too."""
    features: torch.Tensor = F.dropout(backbone(pixels).last_hidden_state[:, 0], 0.5, training=True)
    return features


@dataclass(frozen=True)
class Surroundings:
    """What a caller may have done before a merge.

    Attributes:
        made: what models, heads and images are made in.
        called: what methods are called in.
        changed: what becomes of the base, the experts and the images first.
        noisy: the models draw from PyTorch's global generator.
    """

    made: Mode = nullcontext
    called: Mode = nullcontext
    changed: Callable[[nn.Module, torch.Tensor], None] = lambda model, images: None  # noqa: ARG005
    noisy: bool = False

    def merge(self, name: str) -> dict[str, torch.Tensor]:
        """What a method is restored from, and its model's features and input gradients on two images."""
        with self.made():
            start = pretrained()
            base = start.with_state({key: tensor.clone() for key, tensor in start.state().items()})
            if self.noisy:
                base = base.with_features(features_with_noise)
            draws = torch.Generator().manual_seed(1)
            experts, calibration = {}, {}
            for task in TASKS:
                state = {k: t + 0.05 * torch.randn(t.shape, generator=draws) for k, t in base.state().items()}
                experts[task] = base.with_state(state)
                images = torch.rand(6, 3, 32, 32, generator=draws)
                head = Head(torch.randn(5, base.width, generator=draws), torch.zeros(5))
                calibration[task] = Calibration(images, head)
        for model, task in ((base, "one"), *((experts[task], task) for task in TASKS)):
            self.changed(model, calibration[task].images)
        own, _, correction = name.partition("+")
        parameters = FEW.get(own, {}) | ({correction: {"steps": 3, "batch_size": 4}} if correction else {})
        with self.called():
            merged = create(name, **parameters).merge(base, experts, calibration=calibration, seed=3)
            encoder = merged.encoder_for("two")
        found = dict(merged.parts)
        assert not any(tensor.requires_grad or tensor.is_inference() for tensor in found.values())
        assert all(found.images.grad is None for found in calibration.values())
        assert all(p.grad is None for model in (base, *experts.values()) for p in model.parameters())
        if not self.noisy:
            leaf = torch.rand(2, 3, 32, 32, generator=draws).requires_grad_()
            features = encoder(leaf)
            features.square().sum().backward()
            assert leaf.grad is not None
            found |= {"features": features.detach(), "gradient": leaf.grad}
        return found


@cache
def plain(name: str, *, noisy: bool = False) -> dict[str, torch.Tensor]:
    return Surroundings(noisy=noisy).merge(name)


def other_than_plain(surroundings: Surroundings) -> list[str]:
    """The methods that give something else, or fail."""
    other = []
    for name in NAMES:
        expected = plain(name, noisy=surroundings.noisy)
        try:
            found = surroundings.merge(name)
        except Exception as error:  # all methods are told of, not the first alone
            other.append(f"{name}: {type(error).__name__}: {error}")
            continue
        if found.keys() != expected.keys() or not all(torch.equal(found[key], expected[key]) for key in found):
            other.append(name)
    return other


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    with threadpool_limits(count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Another state of the global generator, which must be left as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        yield
        assert torch.equal(torch.random.get_rng_state(), before)


def trainable(model: nn.Module, images: torch.Tensor) -> None:
    model.requires_grad_(True)
    images.requires_grad_(True)


def in_training(model: nn.Module, images: torch.Tensor) -> None:  # noqa: ARG001
    model.train()


SURROUNDINGS = {
    "inside torch.no_grad()": Surroundings(called=torch.no_grad),
    "inside torch.inference_mode()": Surroundings(called=torch.inference_mode),
    "models, heads and images were made inside torch.inference_mode()": Surroundings(made=torch.inference_mode),
    "weights and images require gradients": Surroundings(changed=trainable),
    "models were left in training mode": Surroundings(changed=in_training),
    "with two threads for PyTorch and BLAS": Surroundings(called=lambda: threads(2)),
    "under another global seed": Surroundings(called=lambda: global_seed(5)),
    "a model that draws whenever it is called": Surroundings(called=lambda: global_seed(6), noisy=True),
}


def states_other_than_plain(called: Mode) -> list[str]:
    """The methods whose merge of plain states is another than outside of ``called``, or could not be learnt from."""
    draws = torch.Generator().manual_seed(2)
    shapes = {"layers.0.w": (300, 200), "layers.1.b": (70_000,)}
    base = {name: torch.randn(shape, generator=draws) for name, shape in shapes.items()}
    experts = [{k: t + 0.1 * torch.randn(t.shape, generator=draws) for k, t in base.items()} for _ in TASKS]
    other = []
    for name in METHODS.names():
        if not isinstance(create(name), StateMerging):
            continue
        expected = merge_state_dicts(name, base, experts, seed=3)
        with called():
            found = merge_state_dicts(name, base, experts, seed=3)
        if any(
            not torch.equal(found[key], tensor) or found[key].is_inference() for key, tensor in expected.items()
        ):
            other.append(name)
    return other


def merged_on(images: torch.Tensor, name: str) -> str:
    start = pretrained()
    calibration = {"one": Calibration(images, Head(torch.ones(2, start.width), torch.zeros(2)))}
    return refusal(lambda: create(name).merge(start, {"one": start}, calibration=calibration))


BYTES = torch.randint(256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
SITUATIONS = (
    *(
        Situation(words, lambda folder, surroundings=surroundings: other_than_plain(surroundings), [])  # noqa: ARG005
        for words, surroundings in SURROUNDINGS.items()
    ),
    *(
        Situation(
            f"plain states, merged {words}",
            lambda folder, called=surroundings.called: states_other_than_plain(called),  # noqa: ARG005
            [],
        )
        for words, surroundings in SURROUNDINGS.items()
        if surroundings.called is not nullcontext and not surroundings.noisy
    ),
    *(
        Situation(
            f"calibration images of {name} are {what}",
            lambda folder, images=images, name=name: merged_on(images, name),  # noqa: ARG005
            re.compile(r"calibration images of task 'one': (pixels )?must .*divide 8-bit"),
        )
        for what, images in (("bytes", BYTES), ("of 0 to 255", BYTES.float()), ("NaN", BYTES * torch.nan))
        for name in ("fisher", "weight_averaging+surgery")
    ),
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_situation(situation: Situation, tmp_path: Path) -> None:
    situation.check(tmp_path)
