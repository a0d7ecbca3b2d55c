"""Attacks through skip connections and on the features of a layer; made for CNNs, open to transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager, nullcontext
from functools import partial, reduce
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveInt

from mergerisk.attacks.gradient_attack import IterativeAttack
from mergerisk.attacks.gradient_sign import MIFGSM
from mergerisk.attacks.losses import closeness
from mergerisk.errors import UserError
from mergerisk.models.inside.blocks import (
    block_norms,
    check_pre_norm,
    convolutional_branches,
    find_layer,
    residual_branches,
    stage_positions,
)
from mergerisk.models.inside.hooks import changed_gradient, changed_output, hooked, layer_output
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from torch import nn

    from mergerisk.attacks.attack import Problem
    from mergerisk.attacks.gradient_attack import Oracle


@hyperparameters
class SGM(MIFGSM):
    """Skip gradient method (Wu et al. 2020, arXiv 2002.05990, equation 5): of z + f(z), the gradient through f is
    shrunk.

    Branches are those of ResNets as transformers, torchvision and timm write them, and attention and MLP of
    pre-norm transformer blocks.

    Attributes:
        keep: share of the gradient through a residual branch that is kept, γ; the paper's 0.2 for ResNets of 50
            and more layers, 0.5 for DenseNets.
        first_blocks: whether the branch in the first block of each of a ResNet's stages is shrunk as well. Public
            code, the authors' included, does not: it multiplies by √γ at both ReLUs of every other block (by γ,
            where a branch has one), which is γ for its branch. What it does besides, at a block's last ReLU and
            by dividing by a standard deviation, scales the whole gradient. It finds first blocks by a ``0`` before
            the ReLU's name, so that the eleventh and twenty-first of a stage are among them.
    """

    keep: Annotated[float, Field(ge=0, le=1)] = 0.5
    first_blocks: bool = True

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:
        if not residual_branches(classifier):
            raise UserError(
                f"no residual branch was found in {type(classifier).__name__}: the attack knows the ResNets of "
                "transformers, torchvision and timm, and pre-norm transformer blocks"
            )
        check_pre_norm(classifier, image)
        if not self.first_blocks and block_norms(classifier):
            raise UserError(
                "first_blocks: false is for ResNets, whose stages have first blocks; "
                f"{type(classifier).__name__} has transformer blocks: leave first_blocks out"
            )

    @contextmanager
    def surrogate(self, problem: Problem) -> Iterator[Oracle]:
        shrink = changed_gradient(lambda gradient: self.keep * gradient)
        skipped: set[nn.Module] = set()
        if not self.first_blocks:
            branches = convolutional_branches(problem.classifier)
            places = stage_positions(problem.classifier)
            skipped = {branches[block] for block, place in places.items() if place % 10 == 0}
        hooks = [(branch, shrink) for branch in residual_branches(problem.classifier) if branch not in skipped]
        with hooked(hooks), super().surrogate(problem) as oracle:
            yield oracle


@hyperparameters
class _LayerAttack(MIFGSM, ABC):
    """MI-FGSM on what a layer puts out, in place of a loss: what speaks for the true class is lowered or, if the
    attack is targeted, what speaks for the target raised. Nothing after the layer is run in the loop.

    Attributes:
        layer: dotted name of a module of the classifier; None for the middle of a ResNet's stages or of a
            transformer's blocks.
    """

    layer: str | None = None

    def __post_init__(self) -> None:
        if self.loss != "cross_entropy":
            raise ValueError("loss cannot be chosen: the attack follows what a layer puts out, not the logits")

    @property
    @abstractmethod
    def preparation(self) -> int:
        """Gradients that one image costs before the loop."""

    @abstractmethod
    def evidence(self, problem: Problem, layer: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """What the layer puts out (N × …) → how strongly it speaks for the classes, summed over the images."""

    @property
    def gradients_per_image(self) -> int:
        return super().gradients_per_image + self.preparation

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:
        layer_output(classifier, find_layer(classifier, self.layer), image)

    def surrogate(self, problem: Problem) -> AbstractContextManager[Oracle]:
        layer = find_layer(problem.classifier, self.layer)
        evidence = self.evidence(problem, layer)

        def gain(images: torch.Tensor) -> torch.Tensor:
            return problem.sign * evidence(layer_output(problem.classifier, layer, images).to(images))

        return nullcontext(self.gradient_of(gain))

    def summed_gradients(
        self,
        problem: Problem,
        layer: nn.Module,
        value: Callable[[torch.Tensor], torch.Tensor],
        views: Iterable[torch.Tensor],
    ) -> torch.Tensor:
        """The gradients of ``value`` (logits → N numbers) with respect to what the layer puts out, summed over
        views of the images: N × …"""
        oracle = self.gradient_of(lambda images: value(self.logits(problem.classifier, images)).sum(), layer)
        return reduce(torch.add, (oracle(view).to(view) for view in views))


def _probability(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The softmax probability of the given classes."""
    return closeness("cross_entropy", logits, classes).exp()


@hyperparameters
class FIA(_LayerAttack):
    """Feature importance-aware attack (Wang et al. 2021, arXiv 2107.14185).

    A feature's importance is the gradient of what the model says of the true class with respect to it, summed over
    copies of the image with random values dropped, and divided by its L2 norm over the layer.

    Attributes:
        ensemble: copies.
        drop: probability that a copy drops a value (a pixel in one channel).
        importance: what is said of the true class: its ``logit``, as in the paper and the authors' code, or its
            softmax ``probability``, as in TransferAttack (which has no momentum either: ``decay=0``).
    """

    ensemble: PositiveInt = 30
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.3
    importance: Literal["logit", "probability"] = "logit"

    @property
    def preparation(self) -> int:
        return self.ensemble

    def evidence(self, problem: Problem, layer: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        images, draw = problem.images, problem.random.noise
        copies = (images * (draw(like=images) >= self.drop) for _ in range(self.ensemble))
        said = _probability if self.importance == "probability" else partial(closeness, "logit")
        importance = self.summed_gradients(problem, layer, lambda logits: said(logits, problem.classes), copies)
        length = torch.linalg.vector_norm(importance.flatten(1), dim=1)
        shape = (-1, *[1] * (importance.ndim - 1))
        importance = importance / length.where(length > 0, 1.0).view(shape)
        return lambda features: (importance * features).sum()


@hyperparameters
class NAA(_LayerAttack):
    """Neuron attribution-based attack (Zhang et al. 2022, arXiv 2204.00008).

    A neuron's attribution is its change since a black image, times the mean gradient of the true class's softmax
    probability with respect to it along the straight path from black to the image.

    Attributes:
        integration: points on the path, the image the last.
        negative: weight γ of negative attributions.
    """

    integration: PositiveInt = 30
    negative: NonNegativeFloat = 1.0

    @property
    def preparation(self) -> int:
        return self.integration

    def evidence(self, problem: Problem, layer: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        images, count = problem.images, self.integration
        path = (images * (point / count) for point in range(1, count + 1))
        total = self.summed_gradients(problem, layer, lambda logits: _probability(logits, problem.classes), path)
        with self.computing(images):
            # One for all: what a layer makes of a black image is the same beside every other.
            black = layer_output(problem.classifier, layer, torch.zeros_like(images[:1])).to(images)
        # With a slope of γ below 0: positive attributions, less γ times the size of the negative ones.
        return lambda features: F.leaky_relu((features - black) * total / count, self.negative).sum()


@hyperparameters
class ILPD(IterativeAttack):
    """Intermediate-level perturbation decay (Li et al. 2023, arXiv 2304.13410; as the authors' code computes it).

    The gradient of the loss of a classifier whose layer h puts out γ h(x_adv) + (1 − γ) h(x + n) in place of
    h(x_adv), where n is normal noise, drawn for every gradient. What is mixed in costs a forward pass up to the
    layer, and no gradient.

    Attributes:
        layer: dotted name of a module of the classifier; None for the middle of a ResNet's stages (of ResNet-50,
            the authors' layer) or of a transformer's blocks.
        keep: γ, the share of the perturbation that the layer passes on.
        noise: standard deviation of n, as a share of ε. The authors' 0.05 is 1.6 of their ε of 8/255.
        decay: the authors have no momentum, and 100 steps; TransferAttack has ``decay: 1``.
    """

    layer: str | None = None
    keep: Annotated[float, Field(ge=0, le=1)] = 0.1
    noise: NonNegativeFloat = 1.6
    decay: NonNegativeFloat = 0.0

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:
        layer_output(classifier, find_layer(classifier, self.layer), image)

    def surrogate(self, problem: Problem) -> AbstractContextManager[Oracle]:
        images, layer = problem.images, find_layer(problem.classifier, self.layer)
        deviation = problem.ball.per_pixel(self.noise * problem.epsilon)
        follow = self.loss_gradient(problem, problem.classifier)

        def oracle(points: torch.Tensor) -> torch.Tensor:
            noisy = images + deviation * problem.random.normal(like=images)
            with torch.no_grad(), self.computing(images):
                clean = layer_output(problem.classifier, layer, noisy)
            with hooked([(layer, changed_output(lambda seen: self.keep * seen + (1 - self.keep) * clean))]):
                return follow(points)

        return nullcontext(oracle)
