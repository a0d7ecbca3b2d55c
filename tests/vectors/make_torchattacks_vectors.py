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

Losses are means over the batch. That scales every gradient by 1/N, which sign and L1 normalisation undo.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import torch
import torchattacks
from safetensors.torch import save_file
from tests.naive.models import small_classifier
from torch import Tensor, nn
from torch.nn import functional as F

SEED = 20240917
COUNT = 16
EPSILON = 8 / 255
ALPHA = 2 / 255
STEPS = 10


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

    torchattacks_kwargs: dict[str, dict[str, float | int]] = {
        "fgsm": {"eps": EPSILON},
        "i_fgsm": {"eps": EPSILON, "alpha": ALPHA, "steps": STEPS},
        "mi_fgsm": {"eps": EPSILON, "alpha": ALPHA, "steps": STEPS, "decay": 1.0},
        "ni_fgsm": {"eps": EPSILON, "alpha": ALPHA, "steps": STEPS, "decay": 1.0},
        "ti_fgsm": {
            "eps": EPSILON,
            "alpha": ALPHA,
            "steps": STEPS,
            "decay": 1.0,
            "len_kernel": 15,
            "nsig": 3,
            "diversity_prob": 0.0,
        },
        "ti_fgsm_without_momentum": {
            "eps": EPSILON,
            "alpha": ALPHA,
            "steps": STEPS,
            "decay": 0.0,
            "len_kernel": 15,
            "nsig": 3,
            "diversity_prob": 0.0,
        },
    }
    classes = {
        "fgsm": torchattacks.FGSM,
        "i_fgsm": torchattacks.BIM,
        "mi_fgsm": torchattacks.MIFGSM,
        "ni_fgsm": torchattacks.NIFGSM,
        "ti_fgsm": torchattacks.TIFGSM,
        "ti_fgsm_without_momentum": torchattacks.TIFGSM,
    }
    ours: dict[str, dict[str, object]] = {
        "fgsm": {"attack": "fgsm"},
        "i_fgsm": {"attack": "i_fgsm", "steps": STEPS, "step_size": ALPHA},
        "mi_fgsm": {"attack": "mi_fgsm", "steps": STEPS, "step_size": ALPHA, "decay": 1.0},
        "ni_fgsm": {"attack": "ni_fgsm", "steps": STEPS, "step_size": ALPHA, "decay": 1.0},
        "ti_fgsm": {
            "attack": "ti_fgsm",
            "steps": STEPS,
            "step_size": ALPHA,
            "decay": 1.0,
            "kernel_size": 15,
            "sigma": 3.0,
        },
        "ti_fgsm_without_momentum": {
            "attack": "ti_fgsm",
            "steps": STEPS,
            "step_size": ALPHA,
            "decay": 0.0,
            "kernel_size": 15,
            "sigma": 3.0,
        },
    }

    tensors: dict[str, Tensor] = {f"weights.{name}": value for name, value in model.state_dict().items()}
    tensors["images"] = stored
    tensors["labels"] = labels
    for name, kwargs in torchattacks_kwargs.items():
        adversarial = classes[name](model, **kwargs)(images, labels)
        if not bool(torch.isfinite(adversarial).all()):
            raise SystemExit(f"{name}: not finite, an all-zero gradient gave 0/0; change the seed")
        tensors[f"adversarial.{name}"] = adversarial.contiguous()

    metadata = {
        "torchattacks": version("torchattacks"),
        "torch": torch.__version__,
        "seed": str(SEED),
        "epsilon": repr(EPSILON),
        "images": "uint8, divide by 255",
        "torchattacks_classes": json.dumps({name: kind.__name__ for name, kind in classes.items()}),
        "torchattacks_parameters": json.dumps(torchattacks_kwargs),
        "parameters": json.dumps(ours),
    }
    save_file(tensors, Path(__file__).with_name("torchattacks.safetensors"), metadata=metadata)


if __name__ == "__main__":
    main()
