"""The contract of a merging method: base + experts (+ unlabelled images) → merged model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch

from mergerisk.memory import check_room
from mergerisk.merging.batch_norm import check_batch_norm, reestimate_batch_norm
from mergerisk.merging.checks import check_calibration, check_range, check_single_precision, check_states
from mergerisk.merging.experts import LazyExperts, states_of
from mergerisk.merging.material import Merged, below
from mergerisk.models.on_disk.checkpoints import tensor_specs
from mergerisk.models.sources.siblings import check_computes_as
from mergerisk.randomness import drawing, generator
from mergerisk.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mergerisk.merging.batch_norm import BatchNormStatistics
    from mergerisk.merging.material import Calibration, Tensors
    from mergerisk.models.core.encoder import Encoder, State
    from mergerisk.tasks.images import Images

_STATISTICS = "batch_norm/"
"""Before the names of re-estimated statistics among a merge's parts; no method's own parts are called so."""


class MergingMethod(ABC):
    """A method with its hyper-parameters; implementations are frozen dataclasses."""

    needs_calibration: ClassVar[bool] = False
    """Whether :meth:`merge` reads images."""
    uses_seed: ClassVar[bool] = False
    """Whether a method that reads no images draws at random all the same."""
    encoder_per_task: ClassVar[bool] = False
    """Whether every task gets an encoder of its own."""
    changes_architecture: ClassVar[bool] = False
    """Whether what it gives is no point among the base's weights, but a model with parts of its own."""

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

    def cost(self, pools: Sequence[int]) -> Mapping[str, int]:
        """Images that :meth:`merge` passes through models: ``forward`` only, or to the weights and back, as in
        ``training``. Those for BatchNorm's statistics, which are no method's, are not among them.

        Args:
            pools: images that it may read, per task.
        """
        return {"training": sum(pools)} if self.needs_calibration else {}

    def held(self, count: int) -> float:
        """Memory that a merge of so many experts takes at most, the base's included, in models of the base's size.
        Measured by ``benchmarks/encoder_memory.py``, of experts that are not all in memory.
        """
        del count
        return 2.5

    def mixing(self, count: int) -> tuple[float, ...] | None:
        """The λ of a merge θ0 + Σ λt τt of so many experts, in their order; None where it is no such mix."""
        del count
        return None

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
        state = base.state()
        if base.mean.device.type == "cpu":  # elsewhere PyTorch keeps for itself what it has freed
            size = sum(spec.nbytes for spec in tensor_specs(state).values())
            what = f"merging {len(experts)} experts by {type(self).__name__}"
            check_room(int((self.held(len(experts)) - 1) * size), base.mean.device, what)  # the base is there
        check_states(state, states_of(experts))
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

    name: ClassVar[str] = "correction"
    """What messages call it, and part of its seeds. What a study calls it, says its entry."""
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

    def cost(self, pools: Sequence[int]) -> Mapping[str, int]:
        """Images that :meth:`fit` passes through models; see :meth:`MergingMethod.cost`. By default each once
        through the merge and once through its expert."""
        return {"forward": 2 * sum(pools)}

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


def _with_statistics(merged: Merged, statistics: State) -> Merged:
    """The same merge, its shared encoder with these BatchNorm statistics."""
    return replace(merged, shared=merged.encoder.with_state(merged.encoder.state() | statistics))
