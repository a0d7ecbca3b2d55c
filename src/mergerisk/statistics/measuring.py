"""How often an attack made on one model fools others, measured in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pandas as pd
import torch
from torch import nn

from mergerisk.attacks import ATTACKS, create
from mergerisk.errors import UserError, located
from mergerisk.models.core.checks import count_classes
from mergerisk.models.inside.hooks import evaluating
from mergerisk.models.sources.classifiers import LoadedClassifier
from mergerisk.statistics.measured import judged
from mergerisk.tasks.class_names import Classes
from mergerisk.tasks.images import check_pixels
from mergerisk.tasks.matching import matching_rows
from mergerisk.transfer.black_box import BlackBox
from mergerisk.transfer.evaluate import predict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.attacks import Attack, Norm
    from mergerisk.statistics.measured import Transfer
    from mergerisk.tasks.images import Images

Model: TypeAlias = nn.Module | LoadedClassifier
"""Pixels in [0, 1] → logits."""


def measure_transfer(
    surrogate: Model,
    target: Model | BlackBox,
    images: Images,
    labels: torch.Tensor,
    attack: Attack | str,
    *,
    epsilon: float | Sequence[float],
    norm: Norm = "linf",
    class_names: Sequence[str] | None = None,
    targets: torch.Tensor | None = None,
    seed: int = 0,
    indices: Sequence[int] | torch.Tensor | None = None,
    batch_size: int | None = None,
) -> Transfer:
    """Attack a surrogate with images, show them to a target, and count.

    Results do not depend on ``batch_size``; what is random belongs to (seed, image index).

    Args:
        surrogate: what the attacker holds: pixels in [0, 1] → logits. An ingredient's classifier, or the base's.
        target: what is attacked, likewise; or of which only the answers are known.
        images: N × 3 × H × W in [0, 1].
        labels: int64, N, the true ones.
        attack: an attack, or its name.
        epsilon: the budget in pixel units, or several, for ε50.
        norm: ``linf`` or ``l2``: what ``epsilon`` bounds.
        class_names: what the labels stand for, in order: a task's ``class_names``. Models that name their classes
            are matched with them by name, or else with the surrogate's.
        targets: int64, N: the labels a targeted attack aims at.
        seed: of the attack's randomness.
        indices: the images' identities; their positions by default.
        batch_size: images at a time, at most.

    Raises:
        UserError: pixels out of range; labels, budgets or classes that do not fit; whatever the attack refuses.
    """
    return measure_transfers(
        surrogate,
        {"target": target},
        images,
        labels,
        attack,
        epsilon=epsilon,
        norm=norm,
        class_names=class_names,
        targets=targets,
        seed=seed,
        indices=indices,
        batch_size=batch_size,
    )["target"]


def measure_transfers(
    surrogate: Model,
    models: Mapping[str, Model | BlackBox],
    images: Images,
    labels: torch.Tensor,
    attack: Attack | str,
    *,
    epsilon: float | Sequence[float],
    norm: Norm = "linf",
    class_names: Sequence[str] | None = None,
    targets: torch.Tensor | None = None,
    seed: int = 0,
    indices: Sequence[int] | torch.Tensor | None = None,
    batch_size: int | None = None,
) -> dict[str, Transfer]:
    """Attack a surrogate with images once, show them to several targets, and count for each.

    The same as :func:`measure_transfer` of each, but crafted once: images do not depend on who is attacked.

    Args:
        surrogate: what the attacker holds.
        models: the targets, by name.
        images: see :func:`measure_transfer`; and so are all others.
        labels: likewise.
        attack: likewise.
        epsilon: likewise.
        norm: likewise.
        class_names: likewise.
        targets: likewise: labels that a targeted attack aims at.
        seed: likewise.
        indices: likewise.
        batch_size: likewise.

    Raises:
        UserError: there are no targets; whatever :func:`measure_transfer` raises.
    """
    if not models:
        raise UserError("there is no target to attack; give models by name")
    made = create(attack) if isinstance(attack, str) else attack
    epsilons = _budgets(epsilon)
    check_pixels(images)
    if not len(images):
        raise UserError("there are no images to attack")
    pixels = images if isinstance(images, torch.Tensor) else images[:]
    place = next(
        (t.device for t in (*_module(surrogate).parameters(), *_module(surrogate).buffers())), pixels.device
    )
    pixels, labels = pixels.to(place), labels.to(place)
    first = _Player(surrogate, "surrogate")
    others = {name: _Player(model, name) for name, model in models.items()}
    names = class_names or next((one.names for one in (first, *others.values()) if one.names), None)
    for player in (first, *others.values()):
        player.learn(names, first, pixels[:1])
    _check_labels(labels, len(pixels), first)
    asked = batch_size or _BATCH
    surrogate_clean = first.predict(pixels, asked)
    clean = {name: player.predict(pixels, asked) for name, player in others.items()}
    blocks: dict[str, list[pd.DataFrame]] = {name: [] for name in others}
    for budget in epsilons:
        crafted = made.craft(
            first.module,
            pixels,
            first.rows[labels.cpu()].to(place),
            epsilon=budget,
            norm=norm,
            targets=None if targets is None else first.rows[targets.cpu()].to(place),
            seed=seed,
            indices=indices,
            batch_size=batch_size,
        )
        changes = (crafted.adversarial.double() - pixels.double()).flatten(1)
        aims = (
            torch.full_like(labels, -1).cpu() if crafted.targets is None else first.labels[crafted.targets.cpu()]
        )
        said = first.predict(crafted.adversarial, asked)
        for name, player in others.items():
            blocks[name].append(
                pd.DataFrame(
                    {
                        "task": "task",
                        "attack": _name_of(made),
                        "surrogate": "surrogate",
                        "target": name,
                        "epsilon": budget,
                        "seed": seed,
                        "steps": made.iterations,
                        "image": range(len(pixels)) if indices is None else [int(index) for index in indices],
                        "label": labels.cpu().numpy(),
                        "surrogate_clean": surrogate_clean.numpy(),
                        "target_clean": clean[name].numpy(),
                        "surrogate_adversarial": said.numpy(),
                        "target_adversarial": player.predict(crafted.adversarial, asked).numpy(),
                        "aimed_at": aims.numpy(),
                        "l2": changes.norm(dim=1).cpu().numpy(),
                        "linf": changes.abs().amax(dim=1).cpu().numpy(),
                        "zero_gradients": crafted.zero_gradients.cpu().numpy(),
                    }
                )
            )
    return {name: judged(pd.concat(rows, ignore_index=True), epsilons, norm) for name, rows in blocks.items()}


class _Player:
    """A model, and how its rows correspond to the labels.

    Attributes:
        names: what it calls its classes; None if it names none.
        rows: by label, the model's row.
        labels: by row, the label.
    """

    def __init__(self, model: Model | BlackBox, role: str) -> None:
        self._model = model if isinstance(model, BlackBox) else _module(model)
        self._role = role
        found = getattr(model, "class_names", None)
        self.names = None if found is None else tuple(map(str, found))
        self.rows = self.labels = torch.empty(0, dtype=torch.int64)

    @property
    def module(self) -> nn.Module:
        assert isinstance(self._model, nn.Module)
        return self._model

    def learn(self, names: Sequence[str] | None, first: _Player, image: torch.Tensor) -> None:
        """Find out how the model's classes correspond to those the labels stand for.

        Args:
            names: of the labels' classes; None if nobody names them: the first model's rows then.
            first: the surrogate, which has learnt already or is the one that does.
            image: 1 × 3 × H × W.

        Raises:
            UserError: the classes are not the same.
        """
        count = len(self.names or ()) if isinstance(self._model, BlackBox) else self._count(image)
        if self.names is not None and len(self.names) != count:
            raise UserError(f"{self._role}: {len(self.names)} class names for {count} logits")
        wanted = (
            [str(row) for row in range(count if first is self else len(first.rows))] if names is None else names
        )
        classes = Classes(self.names, count, f"the {self._role}")
        rows = matching_rows(classes, wanted, self._role, "the task", "measure models of the task's classes")
        self.rows = torch.tensor(rows)
        self.labels = self.rows.argsort()

    def _count(self, image: torch.Tensor) -> int:
        tensors = (*self.module.parameters(), *self.module.buffers(), image)
        with torch.no_grad(), evaluating(self.module):
            return count_classes(self.module(image.to(tensors[0].device)), self._role)

    def predict(self, images: torch.Tensor, batch_size: int) -> torch.Tensor:
        """Predicted labels, int64, N, on the CPU."""
        with located(self._role):
            if isinstance(self._model, BlackBox):
                found = self._model.predict(images.cpu())
            else:
                found = predict(self._model, images, batch_size=batch_size)
        return self.labels[found]


_BATCH = 256
"""Images that are predicted at once."""


def _module(model: Model) -> nn.Module:
    return model.module if isinstance(model, LoadedClassifier) else model


def _name_of(attack: Attack) -> str:
    try:
        return ATTACKS.name_of(type(attack))
    except KeyError:
        return type(attack).__name__


def _budgets(epsilon: float | Sequence[float]) -> list[float]:
    """Different budgets, rising.

    Raises:
        UserError: there are none, or one is not above 0.
    """
    given = [epsilon] if isinstance(epsilon, int | float) else [float(value) for value in epsilon]
    if not given or not all(value > 0 for value in given):
        raise UserError(f"epsilon must be above 0, one budget or several, got {epsilon!r}")
    return sorted({float(value) for value in given})


def _check_labels(labels: torch.Tensor, count: int, surrogate: _Player) -> None:
    classes = len(surrogate.rows)
    if labels.shape != (count,) or labels.dtype != torch.int64:
        raise UserError(f"labels must be int64, one per image, got {labels.dtype}, {tuple(labels.shape)}")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UserError(
            f"labels must lie in 0 to {classes - 1}, as the surrogate has {classes} classes, found "
            f"{int(labels.min())} to {int(labels.max())}"
        )
