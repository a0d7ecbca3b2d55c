"""Write ``torchattacks.safetensors``: adversarial images made by torchattacks, an outside implementation.

torchattacks is not a dependency. To make the file again, in an environment of its own that has torch, numpy,
scipy, safetensors and tqdm, run from the repository root::

    pip install --no-deps torchattacks==3.5.1
    python -m tests.vectors.make_torchattacks_vectors

``--no-deps`` because its metadata asks for torchvision and an old requests; version 3.5.1 imports neither.

How torchattacks 3.5.1 maps to this project's definitions (read from its source):

FGSM     One step of eps with the label passed in, clipped to the box. Same.
BIM      Is I-FGSM. It clips to max(0, x - eps), then to x + eps, then to 1: the same set as ball, then box.
         It returns the last iterate. ``alpha`` is 2/255 whatever eps is, so it is passed here.
MIFGSM   g / mean|g| per image plus decay times momentum. Same, except that an all-zero gradient gives
         0/0 = NaN: the script refuses to write such an image.
NIFGSM   Gradient at x_adv + decay * alpha * momentum, not clipped. Same: this version keeps its momentum.
TIFGSM   Gaussian from linspace(-nsig, nsig, len_kernel), outer product, normalised to one, cast to float32;
         zero padding ("same"), applied before the L1 normalisation. It also applies input diversity
         (probability 0.5 by default) and has no momentum by default (decay=0.0). Run here with
         ``diversity_prob=0.0`` so that only TI is left, with decay 0.0 and with decay 1.0.
DIFGSM   Left out: one size, one offset and one coin for a whole batch from the global generator, where ours
         draws per image and from a seed. Its offsets exclude the last place, and with the default rate of
         0.9 the full size is never drawn.
PGD      BIM from x + uniform(-eps, eps), clipped to the box; without that start, I-FGSM. Same.
SINIFGSM Gradients of the m scaled look-aheads, averaged, back to x_adv. Same.
VMIFGSM  Neighbours x_adv + uniform(-beta * eps, beta * eps), not clipped. Same, except that it also visits those of
         the last step, whose variance nothing uses, so that the project draws fewer numbers.
VNIFGSM  The same again. Its neighbours lie around x_adv, and what is subtracted from their mean is the gradient at
         the look-ahead, as in the authors' code; the paper's variance V(x) subtracts the gradient at x itself.

What torchattacks would draw with ``Tensor.uniform_`` comes from stored bytes, u = byte / 256 for uniform numbers in
[0, 1), so that the project can be given the same draws. Every attack starts at the first of them.

Losses are means over the batch. That scales every gradient by 1/N, which sign and L1 normalisation undo.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch
import torchattacks
from safetensors.torch import save_file
from tests.naive.models import small_classifier
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 20240917
COUNT = 16
EPSILON = 8 / 255
ALPHA = 2 / 255
STEPS = 10
FEW_STEPS = 5  # of the attacks with neighbours, whose draws are stored
NEIGHBOURS = 5


@dataclass(frozen=True)
class Case:
    """One attack: torchattacks' class and parameters, and the project's attack and parameters."""

    kind: type[torchattacks.attack.Attack]
    theirs: dict[str, float | int | bool]
    ours: dict[str, str | float | int]


def cases() -> dict[str, Case]:
    """Every case by the name it is stored under."""
    their_steps = {"eps": EPSILON, "alpha": ALPHA, "steps": STEPS}
    our_steps = {"steps": STEPS, "step_size": ALPHA}
    their_blur = {"len_kernel": 15, "nsig": 3, "diversity_prob": 0.0}
    our_blur = {"kernel_size": 15, "sigma": 3.0}
    their_tuning = their_steps | {"steps": FEW_STEPS, "decay": 1.0, "N": NEIGHBOURS, "beta": 1.5}
    our_tuning = our_steps | {"steps": FEW_STEPS, "decay": 1.0, "neighbours": NEIGHBOURS, "radius": 1.5}
    decay = {"decay": 1.0}
    return {
        "fgsm": Case(torchattacks.FGSM, {"eps": EPSILON}, {"attack": "fgsm"}),
        "i_fgsm": Case(torchattacks.BIM, their_steps, {"attack": "i_fgsm"} | our_steps),
        "mi_fgsm": Case(torchattacks.MIFGSM, their_steps | decay, {"attack": "mi_fgsm"} | our_steps | decay),
        "ni_fgsm": Case(torchattacks.NIFGSM, their_steps | decay, {"attack": "ni_fgsm"} | our_steps | decay),
        "ti_fgsm": Case(
            torchattacks.TIFGSM,
            their_steps | decay | their_blur,
            {"attack": "ti_fgsm"} | our_steps | decay | our_blur,
        ),
        "ti_fgsm_without_momentum": Case(
            torchattacks.TIFGSM,
            their_steps | {"decay": 0.0} | their_blur,
            {"attack": "ti_fgsm"} | our_steps | {"decay": 0.0} | our_blur,
        ),
        "pgd": Case(torchattacks.PGD, their_steps | {"random_start": True}, {"attack": "pgd"} | our_steps),
        "pgd_without_start": Case(
            torchattacks.PGD, their_steps | {"random_start": False}, {"attack": "i_fgsm"} | our_steps
        ),
        "si_ni_fgsm": Case(
            torchattacks.SINIFGSM,
            their_steps | decay | {"m": 5},
            {"attack": "si_ni_fgsm"} | our_steps | decay | {"scales": 5},
        ),
        "vmi_fgsm": Case(torchattacks.VMIFGSM, their_tuning, {"attack": "vmi_fgsm"} | our_tuning),
        "vni_fgsm": Case(torchattacks.VNIFGSM, their_tuning, {"attack": "vni_fgsm"} | our_tuning),
    }


def make_images(generator: torch.Generator) -> Tensor:
    """Smooth random pictures plus fine noise, as bytes, with some pixels at 0 and at 255."""
    coarse = torch.rand(COUNT, 3, 4, 4, generator=generator)
    pictures = F.interpolate(coarse, size=(16, 16), mode="bilinear", align_corners=False)
    noisy = (pictures - 0.5) * 1.5 + 0.5 + 0.08 * torch.randn(COUNT, 3, 16, 16, generator=generator)
    return (noisy.clamp(0, 1) * 255).round().to(torch.uint8)


def make_classifier(generator: torch.Generator) -> nn.Sequential:
    """The small classifier with seeded weights of He scale."""
    model = small_classifier()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            fan_in = weight[0].numel() if name.endswith("weight") else 50
            weight.copy_(torch.randn(weight.shape, generator=generator) * (2.0 / fan_in) ** 0.5)
    return model.eval()


@contextmanager
def drawing(numbers: Tensor) -> Iterator[None]:
    """Within, ``Tensor.uniform_`` takes its numbers from ``numbers`` (uint8, draws × images × pixels)."""
    draws = iter(numbers.float() / 256)

    def uniform_(self: Tensor, low: float, high: float) -> Tensor:
        assert low == -high, "uniform around zero"
        return self.copy_(high * (2 * next(draws) - 1))

    with patch.object(Tensor, "uniform_", uniform_):
        yield


def main() -> None:
    """Make and write the vectors."""
    torch.set_num_threads(1)  # sums are then added in one order
    generator = torch.Generator().manual_seed(SEED)
    model = make_classifier(generator)
    stored = make_images(generator)
    images = stored.float() / 255
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    labels[::5] = (labels[::5] + 1) % 10  # some images are wrong from the start, as on real test sets
    shape = (FEW_STEPS * NEIGHBOURS, *stored.shape)
    numbers = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    tensors: dict[str, Tensor] = {f"weights.{name}": value for name, value in model.state_dict().items()}
    tensors |= {"images": stored, "labels": labels, "numbers": numbers}
    for name, case in cases().items():
        with drawing(numbers):
            adversarial = case.kind(model, **case.theirs)(images, labels)
        if not bool(torch.isfinite(adversarial).all()):
            raise SystemExit(f"{name}: not finite, an all-zero gradient gave 0/0; change the seed")
        tensors[f"adversarial.{name}"] = adversarial.contiguous()

    metadata = {
        "torchattacks": version("torchattacks"),
        "torch": torch.__version__,
        "seed": str(SEED),
        "epsilon": repr(EPSILON),
        "images": "uint8, divide by 255",
        "numbers": "uint8, divide by 256: uniform in [0, 1), in the order in which an attack draws them",
        "torchattacks_classes": json.dumps({name: case.kind.__name__ for name, case in cases().items()}),
        "torchattacks_parameters": json.dumps({name: case.theirs for name, case in cases().items()}),
        "parameters": json.dumps({name: case.ours for name, case in cases().items()}),
    }
    save_file(tensors, Path(__file__).with_name("torchattacks.safetensors"), metadata=metadata)


if __name__ == "__main__":
    main()
