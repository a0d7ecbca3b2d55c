"""The contract of a diagnostic: surrogate, target, images → columns of values.

Most are products of what probes say of the two models, each by itself: :class:`ImageCause` has a value per image,
:class:`SetCause` one per part of the models, over all images. :func:`measure` asks every model each question once,
however many diagnostics and pairs read the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from mergerisk.causes.given import checked, lacking, look
from mergerisk.causes.probe import asked
from mergerisk.causes.result import Measured, joined
from mergerisk.errors import UserError
from mergerisk.memory import fitting, in_portions, live_bytes
from mergerisk.models.inside.hooks import frozen
from mergerisk.randomness import drawing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

    from mergerisk.attacks.budget import Norm
    from mergerisk.attacks.given import Labels
    from mergerisk.causes.given import Given, Need
    from mergerisk.causes.probe import Batch, Known, Parts, Probe, Reads
    from mergerisk.causes.result import Column, Per, Values


class Cause(ABC):
    """A diagnostic with its hyper-parameters; implementations are frozen dataclasses."""

    name: ClassVar[str]
    per: ClassVar[Per]
    columns: ClassVar[tuple[Column, ...]]
    needs: ClassVar[frozenset[Need]]
    """What a call has to give besides the target."""

    @abstractmethod
    def answer(self, given: Given) -> Measured:
        """The columns, from arguments that have been checked."""

    @property
    def surrogate_reads(self) -> frozenset[Reads]:
        """What is read of the surrogate."""
        return frozenset()

    @property
    def target_reads(self) -> frozenset[Reads]:
        """What is read of the target."""
        return frozenset()

    @property
    def made_by(self) -> tuple[str, ...]:
        """Name and version of the installed packages whose code it calls besides its own: an attack's, say."""
        return ()

    def passes_per_image(self, experts: int) -> Mapping[str, int]:  # noqa: ARG002  # most read weights alone
        """Passes through models that :meth:`answer` makes by itself per image, beside what models are asked:
        ``forward`` ones, and ``gradient`` ones to the pixels.

        Args:
            experts: how many were merged.
        """
        return {}

    def check_pair(self, surrogate: Any, target: Any) -> None:  # noqa: B027  # most compare any two
        """Whether two models that can answer can be compared; called before anything expensive.

        Raises:
            UserError: they cannot.
        """

    def refuses(self, surrogate: Any, target: Any) -> str | None:
        """Why there is nothing to say of a pair, as far as can be told without running a model: a black box has no
        gradients, say. None if there is."""
        sides = [(target, self.target_reads, "the target")]
        sides = ([(surrogate, self.surrogate_reads, "the surrogate")] if "surrogate" in self.needs else []) + sides
        for model, reads, who in sides:
            if (reason := lacking(model, reads, who)) is not None:
                return reason
        try:
            self.check_pair(surrogate, target)
        except UserError as error:
            return str(error)
        return None

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __call__(
        self,
        surrogate: Any,
        target: Any,
        images: torch.Tensor | None = None,
        labels: Labels | None = None,
        *,
        epsilon: float = 4 / 255,
        norm: Norm = "linf",
        seed: int = 0,
        indices: Sequence[int] | torch.Tensor | None = None,
        base: Any = None,
        experts: Mapping[str, Any] | None = None,
        coefficients: Mapping[str, float] | None = None,
        batch_size: int = 64,
    ) -> Measured:
        """Measure one pair of models.

        Args:
            surrogate: the model that attacks are made on: an ingredient, for what compares weights; None for what
                does not look at one.
            target: the model that is attacked: the merge.
            images: N × C × H × W, floating, in [0, 1].
            labels: N, the true ones.
            epsilon: budget in pixel units.
            norm: ``linf`` or ``l2``: what ``epsilon`` bounds.
            seed: of everything random, which belongs to (seed, image).
            indices: the images' identities; their positions by default.
            base: the pretrained model that surrogate and target come from.
            experts: name → expert that was merged.
            coefficients: name → λt of a merge θ0 + Σ λt τt.
            batch_size: images at a time, at most; fewer where memory is scarce. Results do not depend on it.

        Raises:
            UserError: something that is needed is not given, is out of range, or cannot be read of a model.
        """
        given = checked(
            self.name,
            self.needs,
            target=target,
            surrogate=surrogate,
            images=images,
            labels=labels,
            indices=indices,
            epsilon=epsilon,
            norm=norm,
            seed=seed,
            base=base,
            experts=experts,
            coefficients=coefficients,
            batch_size=batch_size,
        )
        return self.answer(given)


@dataclass(frozen=True)
class Seen:
    """What a pair of models said about a batch.

    Attributes:
        surrogate: the surrogate's answers, by what was asked.
        target: the target's.
        across: the target's answers about what the surrogate made of the images.
        labels: int64, N, the true ones.
    """

    surrogate: Known
    target: Known
    across: Parts
    labels: torch.Tensor


class ProbingCause(Cause):
    """A diagnostic that compares what probes say of the two models."""

    same_classes: ClassVar[bool] = False
    """Whether the two models must have as many classes."""

    @property
    def forwards_per_pair(self) -> int:
        """Forward passes of the target per image that cannot be shared between surrogates, at most."""
        return 0

    def of_surrogate(self) -> tuple[Probe, ...]:
        """What is asked of a surrogate, once whatever the targets."""
        return ()

    def of_target(self) -> tuple[Probe, ...]:
        """What is asked of a target, once whatever the surrogates."""
        return ()

    across_reads: ClassVar[frozenset[Reads]] = frozenset()
    """What :meth:`across` reads of a target."""

    def across(self, surrogate: Known, target: nn.Module, batch: Batch) -> Parts:  # noqa: ARG002
        """What has to be asked of the target about what the surrogate made of the images: by default nothing."""
        return {}

    @property
    def surrogate_reads(self) -> frozenset[Reads]:
        return _union(probe.reads for probe in self.of_surrogate())

    @property
    def target_reads(self) -> frozenset[Reads]:
        return _union(probe.reads for probe in self.of_target()) | self.across_reads

    def answer(self, given: Given) -> Measured:
        found = measured([self], {"the surrogate": given.surrogate}, {"the target": given.target}, given)
        return next(iter(found.values()))

    @abstractmethod
    def tally(self) -> Tally:
        """An empty one, for one pair of models."""


class Tally(Protocol):
    """Takes what a pair of models said, a batch after the other; then gives the result."""

    def add(self, seen: Seen) -> None: ...

    def finish(self, given: Given) -> Measured: ...


class ImageCause(ProbingCause):
    """A diagnostic with a value per image."""

    per: ClassVar[Per] = "image"

    @abstractmethod
    def compare(self, seen: Seen) -> Mapping[str, Values]:
        """The columns of a batch."""

    def tally(self) -> Tally:
        return _Rows(self, [])


class SetCause(ProbingCause):
    """A diagnostic with a value per part of the models, over all images: it makes a :class:`Tally` of its own."""

    per: ClassVar[Per] = "pair"


@dataclass(frozen=True)
class _Rows:
    """The columns of one batch after the other."""

    cause: ImageCause
    batches: list[Mapping[str, Values]]

    def add(self, seen: Seen) -> None:
        self.batches.append(self.cause.compare(seen))

    def finish(self, given: Given) -> Measured:
        names = self.batches[0] if self.batches else {}
        columns = {name: joined([batch[name] for batch in self.batches]) for name in names}
        return Measured(self.cause.name, "image", given.identities, columns)


@torch.inference_mode(False)
@torch.enable_grad()
def measure(
    causes: Sequence[ProbingCause],
    surrogates: Mapping[str, Any],
    targets: Mapping[str, Any],
    images: torch.Tensor,
    labels: Labels | None = None,
    *,
    epsilon: float = 4 / 255,
    norm: Norm = "linf",
    seed: int = 0,
    indices: Sequence[int] | torch.Tensor | None = None,
    batch_size: int = 64,
) -> dict[tuple[str, str, str], Measured]:
    """Several diagnostics of every pair of surrogate and target; no model is asked a question twice.

    Memory holds the answers of all models about one batch, whatever the number of images.

    Args:
        causes: diagnostics that compare what two models say.
        surrogates: name → model.
        targets: name → model.
        images: N × C × H × W in [0, 1]; this and the others as for one diagnostic's call.
        labels: N.
        epsilon: budget in pixel units.
        norm: what it bounds.
        seed: of everything random.
        indices: the images' identities.
        batch_size: images at a time, at most.

    Returns:
        (name of the diagnostic, surrogate, target) → its columns.

    Raises:
        UserError: a model cannot answer what a diagnostic reads; said before anything is computed.
    """
    given = checked(
        " and ".join(cause.name for cause in causes),
        _union(cause.needs for cause in causes) - {"surrogate"},
        target=None,
        surrogate=None,
        images=images,
        labels=labels,
        indices=indices,
        epsilon=epsilon,
        norm=norm,
        seed=seed,
        base=None,
        experts=None,
        coefficients=None,
        batch_size=batch_size,
    )
    return measured(causes, surrogates, targets, given)


def measured(
    causes: Sequence[ProbingCause],
    surrogates: Mapping[str, Any],
    targets: Mapping[str, Any],
    given: Given,
) -> dict[tuple[str, str, str], Measured]:
    """The same about images that are checked already; the models in ``given`` do not matter."""
    sides = (
        (
            surrogates,
            _together(cause.of_surrogate() for cause in causes),
            _union(cause.surrogate_reads for cause in causes),
        ),
        (
            targets,
            _together(cause.of_target() for cause in causes),
            _union(cause.target_reads for cause in causes),
        ),
    )
    most = given.batch_size
    name = " and ".join(cause.name for cause in causes)
    classes: tuple[dict[str, int | None], ...] = ({}, {})
    for (models, _, reads), found in zip(sides, classes, strict=True):
        for who, model in models.items():
            fit, found[who] = look(model, reads, given, name, who)
            most = min(most, fit)
    for cause, s, t in [(cause, s, t) for cause in causes for s in surrogates for t in targets]:
        if cause.same_classes and classes[0][s] != classes[1][t]:
            raise UserError(
                f"{cause.name}: {s} has {classes[0][s]} classes, {t} {classes[1][t]}; it compares models of one "
                "task"
            )
        cause.check_pair(surrogates[s], targets[t])
    tallies = {
        (cause.name, surrogate, target): cause.tally()
        for cause in causes
        for surrogate in surrogates
        for target in targets
    }

    def seen(start: int, stop: int) -> dict[tuple[str, str, str], Seen]:
        batch = given.batch(start, stop)
        known: tuple[dict[str, Known], ...] = tuple(
            {who: asked(model, probes, batch) for who, model in models.items()} for models, probes, _ in sides
        )
        return {
            (cause.name, s, t): Seen(
                known[0][s], known[1][t], cause.across(known[0][s], targets[t], batch), batch.labels.cpu()
            )
            for cause in causes
            for s in surrogates
            for t in targets
        }

    def repeatable(start: int, stop: int) -> dict[tuple[str, str, str], Seen]:
        with drawing(given.seed, "causes", given.identities[start], device=given.images.device):
            return seen(start, stop)

    def portion(start: int, stop: int) -> None:
        # All of it first: a portion that ran out of memory is begun anew.
        for key, of_pair in repeatable(start, stop).items():
            tallies[key].add(of_pair)

    with ExitStack() as stack:
        for who, model in {**surrogates, **targets}.items():
            stack.enter_context(frozen(model, who))
        if min(len(given.images), most) > 1:
            most = min(most, fitting(live_bytes(lambda: repeatable(0, 1)), given.images.device))
        in_portions(portion, len(given.images), most)
    return {key: tally.finish(given) for key, tally in tallies.items()}


def _together(groups: Iterable[tuple[Probe, ...]]) -> tuple[Probe, ...]:
    """Every probe once."""
    return tuple(dict.fromkeys(probe for group in groups for probe in group))


def _union(groups: Iterable[frozenset[Any]]) -> frozenset[Any]:
    return frozenset[Any]().union(*groups)
