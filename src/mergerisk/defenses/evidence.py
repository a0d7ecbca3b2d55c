"""Attacks on a defended model, as its checks need them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from mergerisk.attacks import catalogue as attacks
from mergerisk.attacks.budget import ball
from mergerisk.attacks.given import check_images, check_labels
from mergerisk.attacks.losses import closeness
from mergerisk.attacks.rejected import REJECTED
from mergerisk.attacks.watched import answers, heard
from mergerisk.defenses.checks import FEWEST, Evidence
from mergerisk.errors import UserError
from mergerisk.models.inside.hooks import evaluating
from mergerisk.randomness import ImageRandom

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    from mergerisk.attacks.budget import Norm
    from mergerisk.attacks.given import Labels

_STEPS_FOR_LOSS = 10
"""The fewest of which a last tenth is one."""


def gather(
    defended: nn.Module,
    adaptive: nn.Module,
    images: torch.Tensor,
    labels: Labels,
    *,
    epsilon: float,
    norm: Norm = "linf",
    transferred: Mapping[str, torch.Tensor] | None = None,
    steps: int = 20,
    restarts: int = 3,
    queries: int = 500,
    seed: int = 0,
    fewest: int = FEWEST,
) -> Evidence:
    """Attack a defended model in all the ways that :func:`~mergerisk.defenses.checks.check` looks at.

    The white box is ``pgd`` from every start and ``apgd_ce``, both on ``adaptive`` with losses in float64; the
    query attack is ``square``, on the defended model itself. Budgets double up to one that holds every image.

    Args:
        defended: what is judged: pixels in [0, 1] → logits.
        adaptive: what the white box crafts on; see :meth:`mergerisk.defenses.Defense.adaptive`.
        images: N × C × H × W, floating, in [0, 1]; only those that ``defended`` names rightly count.
        labels: N, the true ones.
        epsilon: the budget in question, in pixel units.
        norm: what it bounds.
        transferred: by name, the images as attacks on other models changed them, within the budget.
        steps: of the white box.
        restarts: of ``pgd``.
        queries: per image.
        seed: of everything random.
        fewest: images that ``defended`` must name rightly; fewer than :data:`FEWEST` tell nothing by themselves,
            but :func:`~mergerisk.defenses.checks.pooled` with others.

    Raises:
        UserError: images or budget out of range, or too few images, steps or restarts to tell anything by.
    """
    if steps < _STEPS_FOR_LOSS or restarts < 2:
        raise UserError(f"checks need {_STEPS_FOR_LOSS} steps and 2 restarts at least, got {steps} and {restarts}")
    images, labels = check_images(images), check_labels("labels", labels, images)
    around = ball(norm, images, epsilon)
    with evaluating(defended):
        rows = (_answers(defended, images) == labels).nonzero()[:, 0]
        if len(rows) < fewest:
            raise UserError(
                f"checks need {fewest} images that the defended model names rightly, got {len(rows)} of "
                f"{len(images)}; give more"
            )
        kept, true, identities = images[rows], labels[rows], rows.tolist()

        def fooled(adversarial: torch.Tensor) -> NDArray[np.bool_]:
            said = _answers(defended, adversarial)
            return ((said != true) & (said != REJECTED)).cpu().numpy()

        pgd = attacks.create("pgd", steps=steps, float64_logits=True)
        apgd = attacks.create("apgd_ce", steps=steps, float64_logits=True)
        runs = [
            pgd.craft(
                adaptive,
                kept,
                true,
                epsilon=epsilon,
                norm=norm,
                seed=seed + number,
                indices=identities,
                after=range(1, steps),
            )
            for number in range(restarts)
        ]
        starts = np.stack([fooled(run.adversarial) for run in runs])
        path = [*(runs[0].after[number] for number in range(1, steps)), runs[0].adversarial]

        def followed(budget: float) -> NDArray[np.bool_]:
            return fooled(apgd(adaptive, kept, true, epsilon=budget, norm=norm, seed=seed, indices=identities))

        white = starts.any(axis=0) | followed(epsilon)
        largest = 1.0 if norm == "linf" else float(images[:1].numel()) ** 0.5
        budgets: list[float] = []
        while (last := budgets[-1] if budgets else epsilon) < largest:
            budgets.append(min(2 * last, largest))
        noise = around.start(ImageRandom(seed, "checks/noise", range(len(images))))[rows]
        square = attacks.create("square", queries=queries)
        asked = square(defended, kept, true, epsilon=epsilon, norm=norm, seed=seed, indices=identities)
        return Evidence(
            white_box=white,
            transferred={name: fooled(made[rows]) for name, made in (transferred or {}).items()},
            by_epsilon={epsilon: white} | {budget: followed(budget) for budget in budgets},
            by_steps={number: fooled(path[number - 1]) for number in sorted({1, steps // 2, steps})},
            noise=fooled(noise),
            queried=fooled(asked),
            flat_steps=np.sum([run.zero_gradients.cpu().numpy() for run in runs], axis=0),
            losses=np.stack([_losses(adaptive, points, true) for points in path], axis=1),
            restarts=starts,
        )


@torch.no_grad()
def _answers(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([answers(model, part) for part in images.split(64)])


@torch.no_grad()
def _losses(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> NDArray[np.float64]:
    """N: the cross-entropy, less the alarm where the model is watched."""
    found = []
    for part, true in zip(images.split(64), labels.split(64), strict=True):
        logits, alarm = heard(model, part)
        loss = -closeness("cross_entropy", logits.double(), true)
        found.append(loss if alarm is None else loss - alarm)
    return torch.cat(found).cpu().numpy()
