"""Adversarial images that anybody can make: crafted on what a merge is made of, for methods that look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mergerisk.attacks import catalogue as attacks
from mergerisk.errors import UserError
from mergerisk.models.core.classifier import Classifier
from mergerisk.seeds import derive_seed

if TYPE_CHECKING:
    from mergerisk.merging.learned import Lesson


def crafted_on_public(lesson: Lesson, task: str, *, epsilon: float, steps: int, most: int) -> torch.Tensor:
    """A task's calibration images, as PGD changes them on the models that attackers hold: those at even places on
    the task's expert, those at odd ones on the base, each away from what that model says of them.

    Args:
        lesson: what a method learns from.
        task: whose images.
        epsilon: the L∞ budget, in pixel units, at most 1.
        steps: of PGD.
        most: images that are crafted, chosen at random.

    Returns:
        N × 3 × H × W in [0, 1], on the CPU.

    Raises:
        UserError: the budget is out of range.
    """
    if epsilon > 1:
        raise UserError(f"robust_epsilon must be at most 1, got {epsilon:g}; pixels do, so 8/255 is written 8/255")
    pool, head = lesson.calibration[task].images, lesson.calibration[task].head
    chosen = torch.randperm(len(pool), generator=lesson.draws(task, "crafted"))[:most]
    images, attack = pool[chosen], attacks.create("pgd", steps=steps)
    crafted = images.clone()
    for place, encoder in enumerate((lesson.experts[task], lesson.base)):
        rows = slice(place, None, 2)
        part = images[rows].to(encoder.mean.device)
        if not len(part):
            continue
        model = Classifier(encoder.with_state(encoder.state()), head)
        with torch.no_grad():
            said = torch.cat([model(few).argmax(dim=1) for few in part.split(64)])
        seed = derive_seed(lesson.seed, lesson.stream, "crafted", task, place)
        crafted[rows] = attack(model, part, said, epsilon=epsilon, seed=seed, batch_size=64).cpu()
    return crafted
