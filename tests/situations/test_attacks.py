"""How people call attacks, predictions, probes and fine-tuning from Python: each works, or is refused in one line."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mergerisk import attacks
from mergerisk.finetuning import FineTuning, fine_tune, linear_probe
from mergerisk.models import Classifier, Encoder, Head
from mergerisk.transfer import predict
from tests.situations.situation import Situation, refusal
from tests.tiny import TinyBackbone, tiny_encoder, tiny_task

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

TASK = tiny_task()
IMAGES, LABELS = TASK.test.images[:6], TASK.test.labels[:6]


class Drawing(TinyBackbone):
    """Dropout that acts in every mode, from PyTorch's global generator."""

    def forward(self, pixels: Tensor) -> Tensor:
        return F.dropout(super().forward(pixels), 0.5, training=True)


def encoder(backbone: nn.Module | None = None) -> Encoder:
    return (
        tiny_encoder()
        if backbone is None
        else Encoder(backbone, width=6, image_size=4, mean=(0.5,) * 3, std=(0.5,) * 3)
    )


@cache
def head() -> Head:
    return linear_probe(tiny_encoder(), TASK)


def classifier(backbone: nn.Module | None = None) -> Classifier:
    return Classifier(encoder(backbone), head())


def attack(model: nn.Module, images: Tensor = IMAGES, labels: Any = LABELS) -> Tensor:
    return attacks.create("mi_fgsm", steps=3)(model, images, labels, epsilon=0.1)


def tuned(base: Encoder) -> Tensor:
    """All the weights of an expert, one after the other."""
    expert = fine_tune(base, head(), TASK, recipe=FineTuning(epochs=1))
    return torch.cat([tensor.flatten().double() for tensor in expert.state().values()])


def within(
    mode: Callable[[], AbstractContextManager[Any]], call: Callable[[Any], Tensor], make: Callable[[], Any]
) -> Callable[[Path], bool]:
    """Whether a call on what was made outside gives the same within a mode as outside."""

    def measure(_: Path) -> bool:
        made = make()
        with mode():
            found = call(made)
        return torch.equal(found, call(made))

    return measure


def repeats(call: Callable[[Classifier], Tensor]) -> Callable[[Path], tuple[bool, bool]]:
    """Whether a call on a classifier that draws gives the same twice, and leaves the global generator as it was."""

    def measure(_: Path) -> tuple[bool, bool]:
        found, made = [], classifier(Drawing())
        with torch.random.fork_rng():
            for start in (1, 2):
                torch.manual_seed(start)
                before = torch.get_rng_state()
                found.append(call(made))
                left = torch.equal(torch.get_rng_state(), before)
        return torch.equal(*found), left

    return measure


def half(call: Callable[[nn.Module], object]) -> Callable[[Path], str]:
    return lambda _: refusal(lambda: call(classifier().half()))


def probe(model: Encoder) -> Tensor:
    return linear_probe(model, TASK).weight


def of_inference_mode(_: Path) -> str:
    with torch.inference_mode():
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    return refusal(lambda: attack(model))


def in_training_mode(_: Path) -> tuple[bool, bool]:
    """Whether statistics were kept, and the mode."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 4)).train()
    before = model[0].running_mean.clone()
    predict(model, IMAGES)
    return torch.equal(model[0].running_mean, before), model[0].training


class Cut(nn.Module):
    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1)[:, :4]


PRECISION = r"its weights are float16, the images float32; .*model\.to\(torch\.float32\)"

SITUATIONS = (
    Situation("an attack inside torch.inference_mode()", within(torch.inference_mode, attack, classifier), True),
    Situation("an attack inside torch.no_grad()", within(torch.no_grad, attack, classifier), True),
    Situation(
        "images that require gradients",
        lambda _: torch.equal(attack(classifier(), IMAGES.clone().requires_grad_()), attack(classifier())),
        True,
    ),
    Situation(
        "labels of 32 bits",
        lambda _: torch.equal(attack(classifier(), labels=LABELS.int()), attack(classifier())),
        True,
    ),
    Situation(
        "labels in a list",
        lambda _: torch.equal(attack(classifier(), labels=LABELS.tolist()), attack(classifier())),
        True,
    ),
    Situation("an attack on half-precision weights", half(attack), re.compile(PRECISION)),
    Situation(
        "predictions of half-precision weights", half(lambda model: predict(model, IMAGES)), re.compile(PRECISION)
    ),
    Situation(
        "a probe of a half-precision encoder", half(lambda model: probe(model.encoder)), re.compile(PRECISION)
    ),
    Situation(
        "fine-tuning a half-precision encoder", half(lambda model: tuned(model.encoder)), re.compile(PRECISION)
    ),
    Situation(
        "a surrogate loaded inside torch.inference_mode()",
        of_inference_mode,
        re.compile(r"'1\.weight' was made inside torch\.inference_mode\(\).*load the model outside"),
    ),
    Situation(
        "a surrogate whose forward is decorated with torch.inference_mode()",
        lambda _: refusal(lambda: attack(Cut())),
        re.compile("carries no gradient back to the pixels"),
    ),
    Situation("an attack on a classifier that draws", repeats(attack), (True, True)),
    Situation(
        "predictions of a classifier that draws",
        repeats(lambda model: predict(model, IMAGES)),
        (True, True),
    ),
    Situation("a probe of an encoder that draws", repeats(lambda model: probe(model.encoder)), (True, True)),
    Situation("fine-tuning an encoder that draws", repeats(lambda model: tuned(model.encoder)), (True, True)),
    Situation("a probe inside torch.inference_mode()", within(torch.inference_mode, probe, tiny_encoder), True),
    Situation(
        "fine-tuning inside torch.inference_mode()",
        within(torch.inference_mode, tuned, tiny_encoder),
        True,
    ),
    Situation("fine-tuning inside torch.no_grad()", within(torch.no_grad, tuned, tiny_encoder), True),
    Situation("predictions of a model in training mode", in_training_mode, (True, True)),
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_situation(situation: Situation, tmp_path: Path) -> None:
    situation.check(tmp_path)
