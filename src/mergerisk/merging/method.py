"""The contract of a merging method: base + experts (+ unlabelled images) → merged model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from mergerisk.errors import UserError
from mergerisk.merging.batch_norm import check_batch_norm, reestimate_batch_norm
from mergerisk.merging.experts import LazyExperts, states_of
from mergerisk.merging.vectors import working_dtype
from mergerisk.models.checkpoints import tensor_specs
from mergerisk.models.checks import check_finite, check_same_architecture
from mergerisk.models.classifier import Classifier
from mergerisk.models.siblings import check_computes_as
from mergerisk.models.ties import tied_names
from mergerisk.randomness import drawing, generator
from mergerisk.tasks.images import check_pixels
from mergerisk.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from mergerisk.merging.batch_norm import BatchNormStatistics
    from mergerisk.models.checkpoints import TensorSpec
    from mergerisk.models.classifier import Head
    from mergerisk.models.encoder import Encoder, State
    from mergerisk.tasks.images import Images

Tensors = Mapping[str, torch.Tensor]
"""Tensors by name: a state dict, or a checkpoint that reads a tensor when it is asked for."""

_STATISTICS = "batch_norm/"
"""Before the names of re-estimated statistics among a merge's parts; no method's own parts are called so."""


@dataclass(frozen=True)
class Calibration:
    """What a data-driven method may read of one task.

    Attributes:
        images: unlabelled, N × 3 × H × W in [0, 1].
        head: the task's frozen head.
    """

    images: Images
    head: Head

    def __repr__(self) -> str:
        return f"Calibration({len(self.images)} images, {self.head!r})"


@dataclass(frozen=True)
class Merged:
    """A merged model: one encoder or one per task, and what else belongs to single tasks.

    Attributes:
        shared: the encoder of all tasks; None if each task has its own.
        per_task: encoders of single tasks, where a method has them. They may be made when asked for.
        adapters: per task, features → features, applied before the head.
        coefficients: what a data-driven method learnt, for the record: by tensor (or ``all``), a value per expert.
        parts: what :meth:`MergingMethod.restore` makes the model from again.
    """

    shared: Encoder | None
    parts: State
    per_task: Mapping[str, Encoder] = field(default_factory=dict)
    adapters: Mapping[str, nn.Module] = field(default_factory=dict)
    coefficients: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        kind = "one encoder for all tasks" if self.shared is not None else "an encoder per task"
        own = {"encoders": self.per_task, "adapters": self.adapters}
        tasks = [f"{name} of its own for {', '.join(parts)}" for name, parts in own.items() if parts]
        return f"Merged({'; '.join([kind, *tasks])})"

    @property
    def encoder(self) -> Encoder:
        """The encoder that all tasks share.

        Raises:
            UserError: there is none.
        """
        if self.shared is None:
            raise UserError("this merge has one encoder per task; ask for encoder_for(task)")
        return self.shared

    def encoder_for(self, task: str) -> Encoder:
        """The encoder that serves ``task``.

        Raises:
            UserError: the merge has none for it.
        """
        if task in self.per_task:
            return self.per_task[task]
        if self.shared is None:
            raise UserError(f"this merge has no encoder for task {task!r}; it has: {', '.join(self.per_task)}")
        return self.shared

    def classifier(self, task: str, head: Head) -> Classifier:
        """The merged model as a classifier for ``task``."""
        return Classifier(self.encoder_for(task), head, self.adapters.get(task)).eval()


class MergingMethod(ABC):
    """A method with its hyper-parameters; implementations are frozen dataclasses."""

    needs_calibration: ClassVar[bool] = False
    """Whether :meth:`merge` reads images."""
    reads_by: ClassVar[Literal["forward", "training"]] = "training"
    """How the images it reads pass through models: forward only, or to the weights and back."""
    uses_seed: ClassVar[bool] = False
    """Whether a method that reads no images draws at random all the same."""
    encoder_per_task: ClassVar[bool] = False
    """Whether every task gets an encoder of its own."""

    @abstractmethod
    def merge(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        *,
        calibration: Mapping[str, Calibration] | None = None,
        seed: int = 0,
        batch_norm: BatchNormStatistics = "reestimate",
    ) -> Merged:
        """Merge experts by task name.

        Args:
            base: the pretrained encoder all experts come from.
            experts: task name → expert; of :class:`LazyExperts`, one is in memory at a time.
            calibration: task name → unlabelled images and head; needed if ``needs_calibration``, and by
                encoders with BatchNorm.
            seed: of everything random in the method.
            batch_norm: what becomes of BatchNorm's running statistics, which no merge of weights preserves:
                ``reestimate`` them on the calibration images, or keep the experts' ``average``.

        Raises:
            UserError: no experts; experts of another architecture, or that compute otherwise than the base does
                with the same weights; NaN weights, missing calibration, or hyper-parameters that do not suit the
                experts.
        """

    @abstractmethod
    def restore(self, base: Encoder, parts: Tensors) -> Merged:
        """The model that :meth:`merge` gave, from the ``parts`` it named."""

    def check_count(self, count: int) -> None:  # noqa: B027  # most methods take any number
        """Whether the hyper-parameters suit so many experts; called before anything expensive.

        Raises:
            UserError: they do not.
        """


class EncoderMerging(MergingMethod):
    """A method of its own, not stacked on another: base and experts' encoders → merged model.

    Settled here, once for all of them: whether material and hyper-parameters fit, and what becomes of BatchNorm's
    running statistics. Re-estimated ones are kept beside the parts that :meth:`make` names, whatever those look
    like; :meth:`rebuild` never sees them.
    """

    def merge(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        *,
        calibration: Mapping[str, Calibration] | None = None,
        seed: int = 0,
        batch_norm: BatchNormStatistics = "reestimate",
    ) -> Merged:
        if self.needs_calibration:
            calibration = check_calibration(experts, calibration, type(self).__name__)
            check_single_precision(base, type(self).__name__)
        self.check_count(len(experts))
        check_range(self, tensor_specs(base.state()))
        anew = not self.encoder_per_task and check_batch_norm(base, experts, calibration, batch_norm)
        check_states(base.state(), states_of(experts))
        if not isinstance(experts, LazyExperts):  # which are all built like the base
            for task, expert in experts.items():
                check_computes_as(base, expert, f"expert {task!r}")
        with settled(seed, "merge", device=base.mean.device):
            merged = self.make(base, experts, calibration or {}, seed)
            if not anew or merged.shared is None:
                return merged
            statistics = reestimate_batch_norm(merged.shared, experts, calibration or {}, seed)
            parts = merged.parts | {f"{_STATISTICS}{name}": tensor for name, tensor in statistics.items()}
            return replace(_with_statistics(merged, statistics), parts=parts)

    def restore(self, base: Encoder, parts: Tensors) -> Merged:
        own = {name: tensor for name, tensor in parts.items() if not name.startswith(_STATISTICS)}
        merged = self.rebuild(base, own)
        statistics = below(_STATISTICS, parts)
        return replace(_with_statistics(merged, statistics), parts=dict(parts)) if statistics else merged

    @abstractmethod
    def make(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        calibration: Mapping[str, Calibration],
        seed: int,
    ) -> Merged:
        """The method itself, on material that :meth:`merge` has checked; see there."""

    def rebuild(self, base: Encoder, parts: State) -> Merged:
        """The model that :meth:`make` made, from the ``parts`` it named."""
        return Merged(base.with_state(parts), parts)


class Correction(ABC):
    """What is stacked on a merge with ``+``: per-task parts that pull its features towards the experts'."""

    name: ClassVar[str]
    changes_encoder: ClassVar[bool] = False
    """Whether the parts sit inside the encoder, so that each task needs a forward pass of its own."""

    def fit(
        self,
        merged: Merged,
        experts: Mapping[str, Encoder],
        *,
        calibration: Mapping[str, Calibration] | None,
        seed: int = 0,
    ) -> State:
        """The parts, by ``task/part``.

        Raises:
            UserError: calibration is missing for a task.
        """
        calibration = check_calibration(experts, calibration, self.name)

        def fit(task: str, images: Images) -> State:
            # In a function of its own, so that an expert is gone when the next one is loaded.
            encoder = merged.encoder_for(task)
            with settled(seed, self.name, task, "encoders", device=encoder.mean.device):
                expert = evaluated(experts[task])
                return self.fit_task(encoder, expert, images, generator(seed, self.name, task))

        return {
            f"{task}/{part}": tensor
            for task in experts
            for part, tensor in fit(task, calibration[task].images).items()
        }

    @abstractmethod
    def fit_task(self, encoder: Encoder, expert: Encoder, images: Images, draws: torch.Generator) -> State:
        """One task's parts by name, on the CPU.

        Args:
            encoder: the merged one that serves the task.
            expert: the task's, in evaluation mode.
            images: unlabelled, N × 3 × H × W in [0, 1].
            draws: of everything random.
        """

    @abstractmethod
    def apply(self, merged: Merged, parts: Tensors) -> Merged:
        """``merged`` with the parts that :meth:`fit` made, which become its own."""

    def correct(
        self,
        merged: Merged,
        experts: Mapping[str, Encoder],
        *,
        calibration: Mapping[str, Calibration] | None,
        seed: int = 0,
    ) -> Merged:
        """:meth:`fit`, then :meth:`apply`."""
        parts = self.fit(merged, experts, calibration=calibration, seed=seed)
        with torch.inference_mode(False):
            return self.apply(merged, parts)


@contextmanager
def settled(seed: int, *names: str, device: torch.device) -> Iterator[None]:
    """What merges compute in, whatever their caller has set: gradients where something is learnt, one thread, and
    PyTorch's global generators, which encoders of others may draw from, seeded and left as they were."""
    with torch.inference_mode(False), torch.enable_grad(), one_thread(), drawing(seed, *names, device=device):
        yield


def evaluated(encoder: Encoder) -> Encoder:
    """The same encoder in evaluation mode."""
    return encoder.with_state(encoder.state())


def check_states(base: Tensors, states: Mapping[str, Tensors]) -> None:
    """Names, shapes, dtypes and finiteness of what is to be merged.

    Raises:
        UserError: no states, or one does not fit the base.
    """
    if not states:
        raise UserError("nothing to merge: give at least one expert")
    for task, state in states.items():
        check_same_architecture(base, state, f"expert {task!r}")
    for alias, first in tied_names(base).items():
        for task, state in states.items():
            if not torch.equal(state[alias], state[first]):
                raise UserError(
                    f"expert {task!r}: {alias!r} is not {first!r}, though they are one tensor in the base; "
                    "untie them in the base, or tie them in the expert"
                )
    for where, state in {"base": base, **{f"expert {task!r}": state for task, state in states.items()}}.items():
        with one_thread():
            check_finite(state, where)


def below(prefix: str, parts: Tensors) -> State:
    """The parts whose names start with ``prefix``, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in parts.items() if name.startswith(prefix)}


def check_range(method: MergingMethod | Correction, specs: Mapping[str, TensorSpec]) -> None:
    """Hyper-parameters must be numbers of every dtype that tensors are merged in.

    Raises:
        UserError: one is too large.
    """
    dtypes = {working_dtype(spec.dtype) for spec in specs.values() if spec.dtype.is_floating_point}
    largest = min((torch.finfo(dtype).max for dtype in dtypes), default=math.inf)
    for name, value in vars(method).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and abs(number) > largest:
                raise UserError(
                    f"{type(method).__name__}: {name} {number} exceeds {largest:.3g}, the largest number of the "
                    "tensors' dtype; lower it"
                )


def check_single_precision(base: Encoder, method: str) -> None:
    """Raises:
    UserError: parameters are of half precision, in which nothing can be learnt.
    """
    for name, tensor in base.state().items():
        if tensor.is_floating_point() and tensor.dtype.itemsize < torch.float32.itemsize:
            raise UserError(
                f"{method} learns from images in single precision, but {name!r} is {tensor.dtype}; convert base "
                "and experts with .float()"
            )


def check_calibration(
    experts: Mapping[str, Encoder], calibration: Mapping[str, Calibration] | None, method: str
) -> Mapping[str, Calibration]:
    """Calibration for every expert, its images without the graph or the inference mode they may come from.

    Raises:
        UserError: it is missing for a task, or has no images, or its pixels are out of range.
    """
    if not calibration:
        raise UserError(f"{method} reads unlabelled images: pass calibration={{task: Calibration(images, head)}}")
    for task in experts:
        if task not in calibration:
            raise UserError(f"{method}: calibration for task {task!r} is missing")
        if len(calibration[task].images) == 0:
            raise UserError(f"{method}: calibration for task {task!r} has no images")
    return {
        task: replace(found, images=_plain(found.images, f"{method}: calibration images of task {task!r}"))
        for task, found in calibration.items()
    }


def _plain(images: Images, where: str) -> Images:
    check_pixels(images, where)
    if not isinstance(images, torch.Tensor):
        return images
    with torch.inference_mode(False):
        return images.clone() if images.is_inference() else images.detach()


def _with_statistics(merged: Merged, statistics: State) -> Merged:
    """The same merge, its shared encoder with these BatchNorm statistics."""
    return replace(merged, shared=merged.encoder.with_state(merged.encoder.state() | statistics))
