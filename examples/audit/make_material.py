"""What somebody who releases a merged model has: a base, fine-tuned classifiers, labelled photographs.

Run it with: python examples/audit/make_material.py (about a minute); it writes material/ beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import ViTForImageClassification
from transformers.utils import logging

import mergerisk as mr
from mergerisk.tasks import Task

BASE = "starter-vit"
TASKS = ("traffic_signs", "street_numbers", "textures")
AUDITED = "traffic_signs"


def make_material(folder: Path, *, epochs: int = 8, images: int | None = None) -> None:
    """Write ``base``, ``experts/TASK`` as transformers saves them, and ``photos/CLASS/*.png`` into ``folder``.

    Args:
        folder: is made.
        epochs: of fine-tuning.
        images: training and test images, at most; None for all of them.
    """
    torch.set_num_threads(1)  # the model is small: more threads wait for one another
    logging.disable_progress_bar()
    base = mr.load_encoder(BASE)
    pretrained: Any = base.backbone
    pretrained.save_pretrained(folder / "base")
    tasks = {name: first(mr.load_task(name), images) for name in TASKS}
    for name, task in tasks.items():
        head = mr.linear_probe(base, task)
        expert = mr.fine_tune(base, head, task, recipe=mr.FineTuning(epochs=epochs), seed=0)
        save_classifier(folder / "experts" / name, expert, head, task.class_names)
    save_photos(folder / "photos", tasks[AUDITED])


def first(task: Task, images: int | None) -> Task:
    """The task with fewer training and test images."""
    return Task(task.name, task.class_names, task.train[:images], task.test[:images], task.calibration)


def save_classifier(
    folder: Path, encoder: mr.models.Encoder, head: mr.models.Head, classes: tuple[str, ...]
) -> None:
    """Encoder and head as one classifier that transformers' ``from_pretrained`` loads."""
    config: Any = encoder.backbone.config
    config = type(config)(**config.to_dict() | {"id2label": dict(enumerate(classes))})
    classifier = ViTForImageClassification(config)
    classifier.vit.load_state_dict(encoder.state())
    classifier.classifier.load_state_dict({"weight": head.weight, "bias": head.bias})
    classifier.save_pretrained(folder)


def save_photos(folder: Path, task: Task) -> None:
    """The test images, one folder per class."""
    pixels = (255 * task.test.images[:]).round().byte().permute(0, 2, 3, 1).numpy()
    for number, label in enumerate(task.test.labels.tolist()):
        place = folder / task.class_names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(place / f"{number:04d}.png")


if __name__ == "__main__":
    make_material(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "material")
