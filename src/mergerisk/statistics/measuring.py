"""How often an attack made on one model fools another, measured in one call: outcomes, rates, intervals, ε50."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import nn

from mergerisk.attacks import ATTACKS, create
from mergerisk.errors import UserError, located
from mergerisk.models.core.checks import count_classes
from mergerisk.models.inside.hooks import evaluating
from mergerisk.models.sources.classifiers import LoadedClassifier
from mergerisk.statistics.curves import epsilon50_of
from mergerisk.statistics.intervals import wilson_interval
from mergerisk.statistics.rate_tables import with_intervals
from mergerisk.tasks.class_names import Classes
from mergerisk.tasks.images import check_pixels
from mergerisk.tasks.matching import matching_rows
from mergerisk.text_tables import text_table
from mergerisk.transfer.black_box import BlackBox
from mergerisk.transfer.evaluate import predict
from mergerisk.transfer.rates import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.attacks import Attack, Norm
    from mergerisk.statistics.curves import Epsilon50
    from mergerisk.tasks.images import Images

Model: TypeAlias = nn.Module | LoadedClassifier
"""Pixels in [0, 1] → logits."""


@dataclass(frozen=True)
class Rate:
    """A rate, or a ratio of two, with its 95 % interval.

    Attributes:
        value: NaN where nothing counts.
        low: lower end.
        high: upper end.
        images: that it is of.
    """

    value: float
    low: float
    high: float
    images: int

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.images}" if self.images else "– of 0"


@dataclass(frozen=True, eq=False, repr=False)
class Transfer:
    """What became of every image at every budget, and what follows.

    Attributes:
        outcomes: one row per image and budget, with the columns of a study's ``outcomes.parquet``
            (:mod:`mergerisk.transfer.rates`).
        rates: one row per budget, with the columns of a study's ``results.csv``
            (:func:`mergerisk.statistics.rate_table`).
        epsilon50: the budget that fools half of the images that both models get right, with its interval.
        clean_accuracy: of ``surrogate`` and ``target`` on these images.
        norm: of the budgets.
    """

    outcomes: pd.DataFrame
    rates: pd.DataFrame
    epsilon50: Epsilon50
    clean_accuracy: Mapping[str, Rate]
    norm: str

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The budgets, rising, in pixel units."""
        return tuple(self.rates["epsilon"])

    def asr(self, epsilon: float | None = None) -> Rate:
        """Of the images that surrogate and target get right when clean, the share the target gets wrong under
        attack; Wilson's interval.

        Args:
            epsilon: one of the budgets; may be left out if there is one.

        Raises:
            UserError: it was not measured.
        """
        return self._rate("asr", "images_both_correct", epsilon)

    def asr_all(self, epsilon: float | None = None) -> Rate:
        """Of all images, the share the target gets wrong under attack, clean errors included; see :meth:`asr`."""
        return self._rate("asr_all", "images", epsilon)

    def surrogate_asr(self, epsilon: float | None = None) -> Rate:
        """The same as :meth:`asr`, on the surrogate itself."""
        row = self._row(epsilon)
        images = int(row["images_both_correct"])
        return _share(float(row["surrogate_asr"]), images)

    def relative_asr(self, epsilon: float | None = None) -> Rate:
        """ASR on the target over ASR on the surrogate; Bonett and Price's interval of paired ratios."""
        return self._rate("relative_asr", "images_both_correct", epsilon)

    def _rate(self, name: str, images: str, epsilon: float | None) -> Rate:
        row = self._row(epsilon)
        value, low, high = (float(row[column]) for column in (name, f"{name}_low", f"{name}_high"))
        return Rate(value, low, high, int(row[images]))

    def _row(self, epsilon: float | None) -> pd.Series[float]:
        if epsilon is None and len(self.rates) > 1:
            raise UserError(f"measured at {len(self.rates)} budgets, {self._budgets()}; say at which")
        near = np.isclose(
            self.rates["epsilon"], self.epsilons[0] if epsilon is None else epsilon, rtol=1e-9, atol=0
        )
        if not near.any():
            raise UserError(f"not measured at {self._budget(float(epsilon or 0))}; measured are {self._budgets()}")
        found: pd.Series[float] = self.rates.iloc[int(near.argmax())]
        return found

    def _budget(self, epsilon: float) -> str:
        return f"{255 * epsilon:.4g}/255" if self.norm == "linf" else f"{epsilon:.4g}"

    def _budgets(self) -> str:
        return ", ".join(map(self._budget, self.epsilons))

    def __repr__(self) -> str:
        accuracies = ", ".join(f"{name} {rate}" for name, rate in self.clean_accuracy.items())
        measures = {
            "ASR": self.asr,
            "the surrogate's": self.surrogate_asr,
            "relative ASR": self.relative_asr,
            "ASR of all images": self.asr_all,
        }
        rows = [["budget", *measures]]
        rows += [[self._budget(at), *(str(measure(at)) for measure in measures.values())] for at in self.epsilons]
        half = [f"ε50 {self._half()}"] if len(self.rates) > 1 else []
        about = f"Transfer of {self.rates['attack'][0]}, {self.norm}; clean accuracy: {accuracies}"
        return "\n".join([about, text_table(rows), *half])

    def _half(self) -> str:
        half, images = self.epsilon50, int(self.rates["images_both_correct"][0])
        if half.status == "no_images":
            return "– of 0"
        value = {"measured": half.value, "below_smallest": 0.0, "not_reached": np.inf}[half.status]
        return f"{self._bound(value)} [{self._bound(half.low)}, {self._bound(half.high)}] of {images}"

    def _bound(self, epsilon: float) -> str:
        """A budget, or beyond which of the measured ones it lies."""
        if epsilon == 0:
            return f"below {self._budget(self.epsilons[0])}"
        return f"above {self._budget(self.epsilons[-1])}" if np.isinf(epsilon) else self._budget(epsilon)


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
    players = {"surrogate": _Player(surrogate, "surrogate"), "target": _Player(target, "target")}
    names = class_names or players["surrogate"].names or players["target"].names
    for player in players.values():
        player.learn(names, players["surrogate"], pixels[:1])
    first, second = players.values()
    _check_labels(labels, len(pixels), first)
    asked = batch_size or _BATCH
    clean = {role: player.predict(pixels, asked) for role, player in players.items()}
    blocks = []
    identities = range(len(pixels)) if indices is None else [int(index) for index in indices]
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
        blocks.append(
            pd.DataFrame(
                {
                    "task": "task",
                    "attack": _name_of(made),
                    "surrogate": "surrogate",
                    "target": "target",
                    "epsilon": budget,
                    "seed": seed,
                    "steps": made.iterations,
                    "image": identities,
                    "label": labels.cpu().numpy(),
                    "surrogate_clean": clean["surrogate"].numpy(),
                    "target_clean": clean["target"].numpy(),
                    "surrogate_adversarial": first.predict(crafted.adversarial, asked).numpy(),
                    "target_adversarial": second.predict(crafted.adversarial, asked).numpy(),
                    "aimed_at": aims.numpy(),
                    "l2": changes.norm(dim=1).cpu().numpy(),
                    "linf": changes.abs().amax(dim=1).cpu().numpy(),
                    "zero_gradients": crafted.zero_gradients.cpu().numpy(),
                }
            )
        )
    return _judged(pd.concat(blocks, ignore_index=True), epsilons, norm)


def _judged(outcomes: pd.DataFrame, epsilons: Sequence[float], norm: str) -> Transfer:
    counted = count(outcomes)
    happened, images = counted.happened, len(outcomes) // len(epsilons)
    # One block of the same images per budget: who counts is the same in each.
    wrong = happened.target_wrong.reshape(len(epsilons), images).T
    half = epsilon50_of([(wrong[happened.counts[:images]], epsilons)])[0]
    accuracy = {
        role: _share(float(right[:images].mean()), images)
        for role, right in (("surrogate", happened.surrogate_right), ("target", happened.target_right))
    }
    return Transfer(outcomes, with_intervals(counted.rates), half, accuracy, norm)


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


def _share(value: float, images: int) -> Rate:
    successes = 0 if np.isnan(value) else round(value * images)
    low, high = wilson_interval(successes, images)
    return Rate(value, float(low), float(high), images)
