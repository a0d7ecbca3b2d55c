"""What every attack is: a way to perturb a batch, within a budget, that knows no batch.

The contract that plugins implement is :meth:`Attack.perturb`; checks, batches, memory, evaluation mode, seeds and
the budget itself are settled here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mergerisk.attacks.budget import Norm, ball
from mergerisk.attacks.given import check_images, check_indices, check_labels, first_look
from mergerisk.errors import UserError
from mergerisk.memory import halved, in_portions
from mergerisk.models.core.checks import precision_named
from mergerisk.models.inside.hooks import frozen
from mergerisk.randomness import ImageRandom, drawing, generator
from mergerisk.seeds import derive_seed
from mergerisk.tasks.digests import file_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from mergerisk.attacks.budget import Ball
    from mergerisk.attacks.given import Labels
    from mergerisk.attacks.known import KnownGradients


@dataclass(frozen=True)
class Pool:
    """All the images of a call, which attacks may mix into each other.

    Attributes:
        images: in the order of their identities, so that what is drawn from them depends on no order.
        labels: int64, theirs.
    """

    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Problem:
    """A batch to attack.

    Attributes:
        classifier: pixels in [0, 1] → logits, in evaluation mode, its parameters frozen.
        images: N × C × H × W, floating, in [0, 1].
        labels: int64, N, the true labels.
        targets: int64, N, the labels to reach; None for an untargeted attack.
        ball: the budget around each image.
        random: one stream of random numbers per image.
        pool: all the images of the call.
        seed: of this batch, for code that draws from a generator of its own.
        after: numbers of steps whose iterates are asked for, of an attack that takes more.
        known: gradients of the classifier that were taken before, by other calls.
    """

    classifier: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor | None
    ball: Ball
    random: ImageRandom
    pool: Pool
    seed: int = 0
    after: frozenset[int] = frozenset()
    known: KnownGradients | None = None

    @property
    def epsilon(self) -> float:
        """The budget, in pixel units."""
        return self.ball.epsilon

    @property
    def classes(self) -> torch.Tensor:
        """The labels that the attack moves towards or away from."""
        return self.labels if self.targets is None else self.targets

    def each(self) -> Iterator[Problem]:
        """The images one by one, for attacks that do something for each that a batch cannot share."""
        kind = type(self.ball)
        for place, random in enumerate(self.random.each()):
            one = slice(place, place + 1)
            yield replace(
                self,
                images=self.images[one],
                labels=self.labels[one],
                targets=None if self.targets is None else self.targets[one],
                ball=kind(self.images[one], self.epsilon),
                random=random,
            )

    @property
    def sign(self) -> int:
        """1 for towards, −1 for away."""
        return -1 if self.targets is None else 1


@dataclass(frozen=True)
class Crafted:
    """Adversarial images and what crafting them met.

    Attributes:
        adversarial: N × C × H × W in [0, 1], within ε of the images.
        zero_gradients: int64, N: at how many steps an image's gradient was exactly zero everywhere, as happens
            when a float32 softmax saturates.
        targets: int64, N: the labels a targeted attack aimed at; None for an untargeted one.
        after: steps → the adversarial images after so many, for those asked for.
    """

    adversarial: torch.Tensor
    zero_gradients: torch.Tensor
    targets: torch.Tensor | None = None
    after: Mapping[int, torch.Tensor] = field(default_factory=dict)


class Attack(ABC):
    """An attack: a frozen dataclass of hyper-parameters that can :meth:`craft`.

    Implementations have a :meth:`perturb`; those that step along input gradients are best a
    :class:`~mergerisk.attacks.gradient_attack.GradientAttack`, which has it.
    """

    targeted: bool = False
    """Whether it aims at a label of its own rather than away from the true one."""

    @property
    def gradients_per_image(self) -> int:
        """Input gradients that one image costs: what the attack's time is made of."""
        return self.iterations

    @property
    def iterations(self) -> int:
        """Steps it takes."""
        return 1

    def brought(self) -> Mapping[str, object]:
        """The hyper-parameters that name what lies elsewhere, and what the content of each is known by, as plain
        data: results depend on that, not on the name. By default ``file``, where there is one, by its SHA-256.

        Raises:
            UserError: it cannot be read.
        """
        file = getattr(self, "file", None)
        return {} if file is None else {"file": file_digest(Path(file))}

    def check_files(self) -> None:  # noqa: B027  # most attacks name no file
        """Read what the attack names besides the classifier, before anything is trained for it.

        Raises:
            UserError: a file is missing or unsound.
        """

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:  # noqa: B027  # most take any
        """Refuse a classifier that the attack cannot reach into, before any work.

        Args:
            classifier: pixels in [0, 1] → logits, in evaluation mode, its parameters frozen.
            image: 1 × C × H × W, the first of those to attack.

        Raises:
            UserError: the classifier lacks what the attack needs.
        """

    def check_members(self, classifier: nn.Module) -> None:  # noqa: B027  # most ask what members say together
        """Refuse an ensemble whose members the attack cannot follow as its algorithm does.

        Raises:
            UserError: so it is.
        """

    @abstractmethod
    def perturb(self, problem: Problem) -> torch.Tensor | Crafted:
        """Adversarial images of one batch.

        PyTorch's global generator is seeded for the batch, and left as it was, so that code which draws from it is
        repeatable; what is drawn from ``problem.random`` belongs to the image besides, whatever its batch.

        Returns:
            The images; whatever leaves ball or box is put back by the caller. An attack of several
            :attr:`iterations` says more: images that lie in ball and box, zero gradients, and the iterates that
            ``problem.after`` asks for.
        """

    def __call__(
        self,
        classifier: nn.Module,
        images: torch.Tensor,
        labels: Labels,
        *,
        epsilon: float,
        norm: Norm = "linf",
        targets: Labels | None = None,
        seed: int = 0,
        indices: Sequence[int] | torch.Tensor | None = None,
        batch_size: int | None = None,
    ) -> torch.Tensor:
        """Adversarial images; see :meth:`craft`."""
        return self.craft(
            classifier,
            images,
            labels,
            epsilon=epsilon,
            norm=norm,
            targets=targets,
            seed=seed,
            indices=indices,
            batch_size=batch_size,
        ).adversarial

    @torch.inference_mode(False)
    @torch.enable_grad()
    def craft(
        self,
        classifier: nn.Module,
        images: torch.Tensor,
        labels: Labels,
        *,
        epsilon: float,
        norm: Norm = "linf",
        targets: Labels | None = None,
        seed: int = 0,
        indices: Sequence[int] | torch.Tensor | None = None,
        batch_size: int | None = None,
        after: Sequence[int] = (),
        only: tuple[int, int] | None = None,
        known: KnownGradients | None = None,
    ) -> Crafted:
        """Perturb ``images`` so that ``classifier`` mistakes them.

        It may be called anywhere, within ``torch.no_grad()`` and ``torch.inference_mode()`` too.

        Args:
            classifier: pixels in [0, 1] → logits; used in evaluation mode, left as it was.
            images: N × C × H × W, floating, in [0, 1]; gradients they require are none of the attack's.
            labels: N, the true labels.
            epsilon: budget in pixel units: in [0, 1] for L∞ (8/255, say), up to √(C H W) for L2.
            norm: ``linf`` or ``l2``: what ``epsilon`` bounds.
            targets: N: the labels a targeted attack aims at; by default one of the other classes, drawn
                from (seed, image index).
            seed: of the attack's randomness, which belongs to (seed, image index). A classifier that draws from
                PyTorch's global generator draws from (seed, index of the batch's first image) and leaves that
                generator as it was: its results repeat for one seed and batch size.
            indices: the images' identities; their positions 0 … N−1 by default.
            batch_size: images at a time, at most; fewer where memory is scarce. Results do not depend on it, but
                for a classifier that draws.
            after: numbers of steps whose iterates to keep as well, each below :attr:`iterations`.
            only: from the first of these positions to before the second; the other images are there to be mixed
                in, and nothing else. Where it starts at a multiple of the batch size, what comes is a part of what
                comes without it, to the byte.
            known: gradients of just this classifier that earlier calls took, whatever their attack and ε; what
                this one takes is added. What comes is the same without.

        Returns:
            Images that differ from ``images`` by at most ``epsilon``, exactly, and lie in [0, 1].

        Raises:
            UserError: images out of range, labels that do not fit, ε out of range, logits with NaN, weights of
                another precision than the images or made in inference mode, logits without a gradient, or a
                classifier the attack cannot reach into.
        """
        images = check_images(images)
        labels = check_labels("labels", labels, images)
        aims = None if targets is None else check_labels("targets", targets, images)
        identities = check_indices(indices, len(images))
        ball(norm, images[:1], epsilon)
        _check_after(after, self.iterations)
        first, last = (0, len(images)) if only is None else _check_only(only, len(images))
        if first == last:
            nothing = images[:0].clone()
            aims = None if aims is None else aims[:0]
            return Crafted(nothing, torch.zeros_like(labels[:0]), aims, dict.fromkeys(after, nothing))
        with frozen(classifier, "the classifier"):
            with (
                drawing(seed, "probe", device=images.device),
                precision_named(classifier, images, "the classifier"),
            ):
                self.check_members(classifier)
                self.check(classifier, images[:1])
                classes, most = first_look(classifier, images[:1], labels)
            if self.targeted:
                aims = _check_targets(aims, labels, identities, seed, classes)
            elif aims is not None:
                raise UserError("targets are given, but the attack is untargeted; create it with targeted=True")
            order = sorted(range(len(identities)), key=identities.__getitem__)
            pool = Pool(images[order], labels[order])

            def portion(start: int, stop: int) -> Crafted:
                part = slice(start, stop)
                problem = Problem(
                    classifier,
                    images[part],
                    labels[part],
                    None if aims is None else aims[part],
                    ball(norm, images[part], epsilon),
                    ImageRandom(seed, "attack", identities[part]),
                    pool,
                    derive_seed(seed, "batch", identities[start]),
                    frozenset(after),
                    known,
                )
                with drawing(seed, "batch", identities[start], device=images.device):
                    return _settled(self.perturb(problem), problem)

            batch = max(1, len(images)) if batch_size is None else batch_size
            size = batch if batch < 1 else halved(batch, most)
            parts = in_portions(portion, last, size, first=first, within=max(1, batch))
        return Crafted(
            torch.cat([part.adversarial for part in parts]),
            torch.cat([part.zero_gradients for part in parts]),
            None if aims is None else aims[first:last],
            {steps: torch.cat([part.after[steps] for part in parts]) for steps in after},
        )


def _settled(perturbed: torch.Tensor | Crafted, problem: Problem) -> Crafted:
    """What an attack gave for a batch, in ball and box."""
    if isinstance(perturbed, Crafted):
        return perturbed
    adversarial = problem.ball.project(perturbed.detach().to(problem.images))
    return Crafted(adversarial, torch.zeros_like(problem.labels))


def _check_after(after: Sequence[int], iterations: int) -> None:
    for steps in after:
        if not 1 <= steps < iterations:
            raise UserError(f"no iterate after {steps} steps can be kept: the attack takes {iterations}")


def _check_only(only: tuple[int, int], count: int) -> tuple[int, int]:
    first, last = only
    if not 0 <= first <= last <= count:
        raise UserError(f"only must be a range of the {count} images, got {first} to {last}")
    return first, last


def _check_targets(
    targets: torch.Tensor | None, labels: torch.Tensor, identities: Sequence[int], seed: int, classes: int
) -> torch.Tensor:
    """The labels to aim at: those given, or one of the other classes each."""
    if classes < 2:
        raise UserError("a targeted attack needs a classifier with at least two classes")
    if targets is None:
        away = [int(torch.randint(1, classes, (), generator=generator(seed, "target", i))) for i in identities]
        return (labels + torch.tensor(away, device=labels.device)) % classes
    if bool((targets < 0).any()) or bool((targets >= classes).any()):
        raise UserError(f"targets must lie in 0 … {classes - 1}, as the classifier has {classes} classes")
    if bool((targets == labels).any()):
        raise UserError(f"{int((targets == labels).sum())} targets are the true labels; nothing to aim at")
    return targets
