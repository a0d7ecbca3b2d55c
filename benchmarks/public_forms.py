"""Attacks in this package's form and in that of public code, side by side: white-box success, as a Markdown table.

    python benchmarks/public_forms.py DIR

DIR holds vit-tiny-patch16-224/ (as transformers saves it) and tasks/eurosat.npz. TGR is made on the ViT under a
linear probe, the others on a small ResNet (three stages of three blocks, 64 px), trained here for a while. Images
are the first of the test split that the surrogate classifies correctly; intervals are Wilson's, of 95 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import mergerisk as mr
from mergerisk.finetuning import FineTuning
from mergerisk.statistics import wilson_interval
from mergerisk.validation import parse_fraction

if TYPE_CHECKING:
    from torch import nn

    from mergerisk.tasks.task import Task

FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tgr": ({}, {"maps": "scores", "tokens": "outputs"}),
    "sgm": ({"keep": 0.2}, {"keep": 0.2, "first_blocks": False}),
    "fia": ({}, {"importance": "probability", "decay": 0.0}),
    "bsr": ({}, {"smallest": 0.5}),
    "ssa": ({}, {"gradient_at": "view"}),
    "vni_fgsm": ({}, {"neighbours_of": "look_ahead"}),
}
"""Attack → hyper-parameters of both forms."""


def resnet(task: Task) -> nn.Module:
    """A small ResNet trained on the task, under a random, frozen head."""
    from transformers import ResNetConfig, ResNetModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = ResNetModel(
            ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[3, 3, 3], layer_type="basic")
        )
        weight = torch.randn(len(task.class_names), 64) / 4
    encoder = mr.models.Encoder(
        backbone.train(),
        width=64,
        image_size=64,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        features=lambda module, pixels: module(pixel_values=pixels).pooler_output.flatten(1),
    )
    head = mr.models.Head(weight, torch.zeros(len(weight)))
    recipe = FineTuning(epochs=8, learning_rate=2e-3)
    return mr.Classifier(mr.fine_tune(encoder, head, task, recipe=recipe), head)


def transformer(folder: Path, task: Task) -> nn.Module:
    """The pretrained ViT at 96 px under a linear probe."""
    encoder = mr.load_encoder(str(folder / "vit-tiny-patch16-224"), image_size=96)
    return mr.Classifier(encoder, mr.linear_probe(encoder, task, regularization=0.01))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--epsilon", default="2/255")
    options = parser.parse_args()
    torch.set_num_threads(1)
    epsilon = parse_fraction(options.epsilon)
    path = options.folder / "tasks" / "eurosat.npz"
    (task,) = mr.load_tasks(str(path)).values()
    surrogates = {"ResNet": resnet(task), "ViT-Ti/16": transformer(options.folder, task)}
    chosen = {}
    for name, surrogate in surrogates.items():
        right = mr.transfer.predict(surrogate, task.test.images) == task.test.labels
        print(f"{name}: {100 * float(right.float().mean()):.0f} % clean")
        index = right.nonzero()[: options.images, 0]
        chosen[name] = (task.test.images[index], task.test.labels[index])
    print("\n| attack | on | this form | ASR, % | public form | ASR, % |\n|---|---|---|---|---|---|")
    for attack, forms in FORMS.items():
        name = "ViT-Ti/16" if attack == "tgr" else "ResNet"
        images, labels = chosen[name]
        cells = []
        for parameters in forms:
            made = mr.attacks.create(attack, **parameters)
            adversarial = made(surrogates[name], images, labels, epsilon=epsilon)
            fooled = int((mr.transfer.predict(surrogates[name], adversarial) != labels).sum())
            low, high = wilson_interval(np.array([fooled]), np.array([len(labels)]))
            cells += [
                str(parameters or "defaults"),
                f"{100 * fooled / len(labels):.1f} [{100 * low[0]:.0f}, {100 * high[0]:.0f}]",
            ]
        print(f"| `{attack}` | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
