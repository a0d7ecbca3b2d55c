"""The one loop that every gradient attack shares, and its few hooks.

Each step takes the gradient of the loss at a point near the current images, as the classifier sees them through
the input transformations; filters it; accumulates it; and moves by α in its direction, within ball and box.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, InstanceOf, NonNegativeFloat, PositiveFloat, PositiveInt

from mergerisk.attacks.attack import Attack, Crafted
from mergerisk.attacks.ensemble import Ensemble
from mergerisk.attacks.gradients import gradient_sizes, normalised
from mergerisk.attacks.losses import Loss, closeness
from mergerisk.attacks.members import RunMembers
from mergerisk.attacks.parts import GradientFilter, InputTransform, parse_filters, parse_inputs
from mergerisk.attacks.watched import heard
from mergerisk.errors import UserError
from mergerisk.models.inside.hooks import gradient_edge
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from mergerisk.attacks.attack import Problem
    from mergerisk.attacks.ensemble_gradients import EnsembleAlgorithm

    Oracle = Callable[[torch.Tensor], torch.Tensor]
    """Images (N × C × H × W) → for each, the gradient of what the attack wants to grow."""


@dataclass
class Run:
    """Where the loop over one batch stands: the only thing in it that changes.

    Attributes:
        problem: what is attacked.
        inputs: what images go through on their way to the oracle.
        oracle: the surrogate's gradients.
        step_size: α, in pixel units.
        adversarial: the current images.
        momentum: the accumulated gradient; what the next step follows.
        last: whether the step being taken is the last.
        memory: what an attack carries from step to step besides.
        gathered: how several surrogates are followed, where not along the gradient of what they say together.
    """

    problem: Problem
    inputs: tuple[InputTransform, ...]
    oracle: Oracle
    step_size: float
    adversarial: torch.Tensor
    momentum: torch.Tensor
    last: bool = False
    memory: dict[str, torch.Tensor] = field(default_factory=dict)
    gathered: Oracle | None = None

    def gradient(self, points: torch.Tensor) -> torch.Tensor:
        """The gradient with respect to ``points``, averaged over the views that the input transformations give; of
        an ensemble with an algorithm, what that makes of such gradients."""
        return self.through(points, self.oracle) if self.gathered is None else self.gathered(points)

    def through(self, points: torch.Tensor, oracle: Oracle) -> torch.Tensor:
        """An oracle's gradient with respect to ``points``, averaged over their views."""
        if not self.inputs:
            return oracle(points)
        total: torch.Tensor | None = None
        count = 0
        with torch.enable_grad():
            leaf = points.detach().requires_grad_()
            shared = self.inputs[0].shared(leaf)
            start = leaf if shared is leaf else shared.detach().requires_grad_()
            for view in self._views(start):
                # Back through the classifier, then through the transformation, whose graph views may share.
                seen = oracle(view)
                (gradient,) = torch.autograd.grad(view, start, seen, retain_graph=True)
                # Not in place: a gradient that is the same everywhere may be one number in memory.
                total = gradient if total is None else total + gradient
                count += 1
            assert total is not None, "an input transformation gave no view"
            if start is not leaf:
                (total,) = torch.autograd.grad(shared, leaf, total)
        return total if count == 1 else total / count

    def views(self, points: torch.Tensor) -> Iterator[torch.Tensor]:
        """What the classifier is shown of points, through all input transformations."""
        return self._views(self.inputs[0].shared(points)) if self.inputs else iter([points])

    def _views(self, shared: torch.Tensor) -> Iterator[torch.Tensor]:
        """The same, of what the views of the first input transformation are made of."""
        first, *later = self.inputs
        for view in first.views_of(shared, self.problem):
            yield from self._further(view, later)

    def _further(self, images: torch.Tensor, inputs: list[InputTransform]) -> Iterator[torch.Tensor]:
        if not inputs:
            yield images
            return
        for view in inputs[0].views(images, self.problem):
            yield from self._further(view, inputs[1:])


_ORACLE = ("surrogate", "loss_gradient", "heard", "logits", "gradient_of", "computing", "estimate", "perturb")
"""What the gradient of the loss is made with, or within: an attack that overrides any of it may have gradients of
its own, by hooks in the classifier say."""


@hyperparameters
class GradientAttack(Attack):
    """An attack that follows input gradients.

    Implementations override :meth:`schedule` and the hooks they need. One that is an :class:`InputTransform` or a
    :class:`GradientFilter` as well applies itself, before what ``inputs`` and ``gradient`` add.

    Attributes:
        loss: what grows: ``cross_entropy``, ``margin`` or ``logit``.
        float64_logits: compute the loss in float64, without cancellation: right at gaps of logits up to
            about 100, beyond which the gradient underflows in the float32 classifier; ``margin`` never does.
        targeted: move towards a label of one's own rather than away from the true one.
        precision: of the classifier's computations: ``float32`` (whatever the weights are) or ``bfloat16``.
        inputs: transformations images go through before the classifier sees them, in that order: names, or
            mappings such as ``{input: di, probability: 0.7}``.
        gradient: filters of the gradient, before it is accumulated: names, or mappings such as
            ``{filter: ti, kernel_size: 7}``.
    """

    loss: Loss = "cross_entropy"
    float64_logits: bool = False
    targeted: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    inputs: Annotated[tuple[InstanceOf[InputTransform], ...], BeforeValidator(parse_inputs)] = ()
    gradient: Annotated[tuple[InstanceOf[GradientFilter], ...], BeforeValidator(parse_filters)] = ()

    @abstractmethod
    def schedule(self, epsilon: float) -> tuple[int, float]:
        """Number of steps and step size α at a budget."""

    @property
    def iterations(self) -> int:
        return self.schedule(1.0)[0]

    @property
    def gradients_per_image(self) -> int:
        views = 1
        for part in self._inputs():
            views *= part.copies
        return views * self.estimates()

    def estimates(self) -> int:
        """How often one image's loop asks for a gradient, views of the input transformations not counted."""
        return self.iterations

    def check_members(self, classifier: nn.Module) -> None:
        algorithm = classifier.algorithm if isinstance(classifier, Ensemble) else None
        reason = None if algorithm is None else unfit(self, algorithm)
        if reason is not None:
            raise UserError(f"{type(algorithm).__name__}: {reason}")

    def surrogate(self, problem: Problem) -> AbstractContextManager[Oracle]:
        """The source of gradients, for as long as the loop runs."""
        return nullcontext(self.loss_gradient(problem, problem.classifier))

    def prepare(self, problem: Problem) -> dict[str, torch.Tensor]:  # noqa: ARG002
        """What the loop remembers before its first step; found while nothing in the surrogate is changed yet."""
        return {}

    def start(self, problem: Problem) -> torch.Tensor:
        """Where the loop starts: at the images."""
        return problem.images.clone()

    def look_ahead(self, run: Run) -> torch.Tensor:
        """Where the gradient is taken: at the current images."""
        return run.adversarial

    def estimate(self, run: Run, point: torch.Tensor) -> torch.Tensor:
        """The gradient to follow, from as many of the surrogate's as the attack asks for."""
        return run.gradient(point)

    def accumulate(self, run: Run, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """The new momentum."""
        return gradient

    def direction(self, run: Run) -> torch.Tensor:
        """The step for α = 1."""
        return run.problem.ball.unit(run.momentum)

    def perturb(self, problem: Problem) -> Crafted:
        steps, step_size = self.schedule(problem.epsilon)
        kept = {}
        zero_gradients = torch.zeros_like(problem.labels)
        with torch.no_grad():
            memory = self.prepare(problem)
        with torch.no_grad(), self.surrogate(problem) as oracle:
            start = self.start(problem)
            still = torch.zeros_like(start)
            known = self._looked_up(oracle, problem)
            run = Run(problem, self._inputs(), known, step_size, start, still, memory=memory)
            run.gathered = self._gathering(run)
            for step in range(1, steps + 1):
                run.last = step == steps
                gradient = self.estimate(run, self.look_ahead(run))
                zero_gradients += gradient_sizes(gradient) == 0
                for part in self._filters():
                    gradient = part.filter(gradient)
                run.momentum = self.accumulate(run, gradient)
                moved = run.adversarial.add(self.direction(run), alpha=step_size)
                run.adversarial = problem.ball.project(moved)
                if step in problem.after:
                    kept[step] = run.adversarial
        return Crafted(run.adversarial, zero_gradients, after=kept)

    def _looked_up(self, oracle: Oracle, problem: Problem) -> Oracle:
        """The oracle, from what is known of the classifier where it gives nothing but the loss's gradient."""
        kind = type(self)
        plain = all(getattr(kind, name) is getattr(GradientAttack, name) for name in _ORACLE)
        if problem.known is None or not plain:
            return oracle
        what = (self.loss, self.float64_logits, self.precision, problem.sign)
        return problem.known.of(oracle, what, problem.classes)

    def _gathering(self, run: Run) -> Oracle | None:
        """What an ensemble's algorithm makes of the members' gradients; None without one."""
        ensemble = run.problem.classifier
        if not isinstance(ensemble, Ensemble) or ensemble.algorithm is None:
            return None
        return partial(ensemble.algorithm.gradient, RunMembers(self, run, ensemble))

    def loss_gradient(
        self,
        problem: Problem,
        classifier: Callable[[torch.Tensor], torch.Tensor],
        gained: Callable[[torch.Tensor], object] | None = None,
    ) -> Oracle:
        """Images → the gradient of the loss of what ``classifier`` says of them, less the alarm where one is
        watched; of an ensemble that combines losses, of its members' mean loss. ``gained`` is told every image's,
        N, whenever it is taken."""
        members = losses_averaged(classifier)

        def gain(images: torch.Tensor) -> torch.Tensor:
            said = [self.heard(member, images) for member in members]
            losses = [closeness(self.loss, logits, problem.classes) for logits, _ in said]
            each = problem.sign * torch.stack(losses).mean(dim=0)
            alarms = [alarm for _, alarm in said if alarm is not None]
            if alarms:
                each = each - torch.stack(alarms).sum(dim=0) / len(members)
            if gained is not None:
                gained(each.detach())
            # Summed, so that an image's gradient does not depend on its batch.
            return each.sum()

        return self.gradient_of(gain)

    def logits(self, classifier: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """What ``classifier`` says of images, in the precision that losses are computed in."""
        return self.heard(classifier, images)[0]

    def heard(
        self, classifier: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The same, and the alarm that they raise, where the classifier is watched."""
        logits, alarm = heard(classifier, images)
        return logits.double() if self.float64_logits else logits.to(images.dtype), alarm

    def gradient_of(self, gain: Callable[[torch.Tensor], torch.Tensor], layer: nn.Module | None = None) -> Oracle:
        """Images → the gradient of ``gain`` (images → one number) with respect to them, or to what ``layer`` puts
        out when it is given them."""

        def gradient(images: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad():
                leaf = images.detach().requires_grad_()
                with self.computing(leaf), gradient_edge(layer) if layer else nullcontext([leaf]) as places:
                    found = gain(leaf)
                differentiable = places and found.requires_grad
                sought = torch.autograd.grad(found, places, allow_unused=True) if differentiable else [None]
                if sought[0] is None:
                    raise UserError(
                        f"what is attacked does not depend on {type(layer).__name__}; name another layer"
                        if layer and found.requires_grad
                        else "the classifier's answer carries no gradient back to the pixels: its forward runs in "
                        "no_grad or inference_mode, detaches, or leaves PyTorch; attack the model inside it"
                    )
                return sought[0]

        return gradient

    def computing(self, images: torch.Tensor) -> AbstractContextManager[object]:
        """Within it, the classifier computes in the attack's precision."""
        lowered = self.precision == "bfloat16"
        return torch.autocast(images.device.type, torch.bfloat16) if lowered else nullcontext()

    def _inputs(self) -> tuple[InputTransform, ...]:
        own: tuple[Any, ...] = (self,) if isinstance(self, InputTransform) else ()
        return own + self.inputs

    def _filters(self) -> tuple[GradientFilter, ...]:
        own: tuple[Any, ...] = (self,) if isinstance(self, GradientFilter) else ()
        return own + self.gradient


@hyperparameters
class IterativeAttack(GradientAttack):
    """An attack of several equal steps.

    Attributes:
        steps: of size α.
        step_size: α in pixel units; None for ε/4 (2/255 at 8/255), so that it follows ε in a sweep.
        decay: μ of m ← μ m + g / mean|g|, the mean over an image's pixels; 0 for no momentum.
    """

    steps: PositiveInt = 10
    step_size: PositiveFloat | None = None
    decay: NonNegativeFloat = 0.0

    def schedule(self, epsilon: float) -> tuple[int, float]:
        return self.steps, epsilon / 4 if self.step_size is None else self.step_size

    def accumulate(self, run: Run, gradient: torch.Tensor) -> torch.Tensor:
        if self.decay == 0:
            return gradient
        return normalised(gradient).add_(run.momentum, alpha=self.decay)


def unfit(attack: Attack, algorithm: EnsembleAlgorithm) -> str | None:
    """Why an attack cannot follow an ensemble by an algorithm; None if it can. One that follows no gradient asks
    for what the members say together, whatever the algorithm."""
    if not isinstance(attack, GradientAttack):
        return None
    kind = type(attack)
    if kind.surrogate is not GradientAttack.surrogate or kind.perturb is not GradientAttack.perturb:
        return (
            f"{kind.__name__} takes gradients in a way of its own; leave the algorithm out, or take another attack"
        )
    if attack.targeted and not algorithm.targeted:
        return "it is defined for untargeted attacks alone; leave targeted out"
    return None


def losses_averaged(
    classifier: Callable[[torch.Tensor], torch.Tensor],
) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """Whose losses an attack averages: an ensemble's members where it combines losses, else the classifier's."""
    if isinstance(classifier, Ensemble) and classifier.combine == "loss":
        return list(classifier.members)
    return [classifier]
