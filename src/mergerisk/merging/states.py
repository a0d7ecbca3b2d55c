"""Methods that need no data: functions of state dicts that see one tensor at a time.

:class:`StateMerging` settles, once for all of them, what is no business of a method's equations: integer
buffers, tied tensors, half precision, BatchNorm's statistics. What a method's own ``combine`` gets are floating
tensors in at least float32, each once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Self, overload

import torch

from mergerisk.errors import UserError
from mergerisk.merging import per_layer
from mergerisk.merging.batch_norm import is_statistic
from mergerisk.merging.experts import states_of
from mergerisk.merging.material import Merged
from mergerisk.merging.method import EncoderMerging
from mergerisk.merging.vectors import working_dtype
from mergerisk.models.core.tied import tied_names
from mergerisk.models.on_disk.checkpoints import TensorSpec, pieces_of, tensor_specs
from mergerisk.threads import step_by_step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.merging.material import Calibration, Tensors
    from mergerisk.models.core.encoder import Encoder, State


class StateMerging(EncoderMerging):
    """A method that needs no data: base and experts' tensors → merged tensors."""

    @abstractmethod
    def combine(
        self, base: Tensors, experts: Sequence[Tensors], *, seed: int = 0
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Merge floating tensors, already checked.

        Args:
            base: θ0: floating tensors by name, in at least float32, none tied to another. Never to be written to.
            experts: θt, with the same names. Tensors may be read from disk at every access, so a method
                holds few of them at a time.
            seed: of everything random.

        Yields:
            Every name once, in any order, with a tensor that shares no memory with the inputs.
        """

    def at(self, name: str) -> Self:
        """The method as it merges one tensor: with one scaling, where layers have their own."""
        scaling = getattr(self, "scaling", None)
        if not isinstance(scaling, Mapping):
            return self
        return replace(self, scaling=per_layer.at(scaling, name))  # type: ignore[type-var]

    def check_names(self, names: Sequence[str]) -> None:
        """Whether the hyper-parameters suit the tensors that are merged, by their names.

        Raises:
            UserError: they say something of layers that the model does not have.
        """
        per_layer.check_patterns(self, names)

    def merge_states(self, base: Tensors, experts: Sequence[Tensors], *, seed: int = 0) -> State:
        """All merged tensors, in the base's order and dtypes; integer tensors are copies of the base's."""
        self.check_names(merged_names(base))
        merged = dict(self.stream(base, experts, seed=seed))
        return {name: merged[name] for name in base}

    def stream(
        self, base: Tensors, experts: Sequence[Tensors], *, seed: int = 0
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The merged tensors one after another, in any order.

        Integer tensors are copies of the base's. BatchNorm's running statistics are the experts' mean, since
        extrapolating a variance can make it negative. Tied tensors are merged once and stay tied. Half
        precision is merged in float32 and rounded once, at the end.
        """
        return step_by_step(self._stream(base, experts, seed), within=_without_gradients)

    def _stream(self, base: Tensors, experts: Sequence[Tensors], seed: int) -> Iterator[tuple[str, torch.Tensor]]:
        tied = tied_names(base)
        specs = tensor_specs(base)
        names = merged_names(base)
        for name, spec in specs.items():
            if not spec.dtype.is_floating_point:
                yield name, base[name].clone()
            elif is_statistic(name, base):
                yield name, torch.stack([expert[name].detach() for expert in experts]).mean(dim=0)
        working = [_Working(tensors, names) for tensors in (base, *experts)]
        for name, tensor in self.combine(working[0], working[1:], seed=seed):
            rounded = tensor.to(specs[name].dtype)
            for twin in (name, *(alias for alias, first in tied.items() if first == name)):
                yield twin, rounded

    def make(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        calibration: Mapping[str, Calibration],  # noqa: ARG002  # part of the contract
        seed: int,
    ) -> Merged:
        parts = self.merge_states(base.state(), list(states_of(experts).values()), seed=seed)
        return Merged(base.with_state(parts), parts)


def merged_names(state: Tensors) -> list[str]:
    """The tensors that methods combine: floating ones, no BatchNorm's statistics, those that are tied once."""
    tied = tied_names(state)
    return [
        name
        for name, spec in tensor_specs(state).items()
        if spec.dtype.is_floating_point and name not in tied and not is_statistic(name, state)
    ]


@contextmanager
def _without_gradients() -> Iterator[None]:
    """Not in inference mode, whose tensors could never be learnt from."""
    with torch.inference_mode(False), torch.no_grad():
        yield


class TensorMerging(StateMerging):
    """A method whose equations are about one tensor at a time."""

    @abstractmethod
    def merge_tensor(self, pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        """One tensor of θ0 and of every θt → the merged one, in new memory."""

    def combine(
        self,
        base: Tensors,
        experts: Sequence[Tensors],
        *,
        seed: int = 0,  # noqa: ARG002  # nothing is random
    ) -> Iterator[tuple[str, torch.Tensor]]:
        for name, pretrained in base.items():
            yield name, self.at(name).merge_tensor(pretrained, _Column(experts, name))


class _Working(Mapping[str, torch.Tensor]):
    """Some of a state's tensors, half precision widened to float32 when they are asked for."""

    def __init__(self, tensors: Tensors, names: Sequence[str]) -> None:
        self._tensors = tensors
        found = tensor_specs(tensors)
        self.specs = {name: TensorSpec(working_dtype(found[name].dtype), found[name].shape) for name in names}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name].detach().to(self.specs[name].dtype)

    def pieces(self, name: str, size: int) -> Iterator[torch.Tensor]:
        """See :func:`pieces_of`."""
        for piece in pieces_of(self._tensors, name, size):
            yield piece.to(self.specs[name].dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)


class _Column(Sequence[torch.Tensor]):
    """One tensor of every state, each read when it is asked for, so that few are in memory at once."""

    def __init__(self, states: Sequence[Tensors], name: str) -> None:
        self._states = states
        self._name = name

    @overload
    def __getitem__(self, position: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, position: slice) -> _Column: ...
    def __getitem__(self, position: int | slice) -> torch.Tensor | _Column:
        if isinstance(position, slice):
            return _Column(self._states[position], self._name)
        return self._states[position][self._name]

    def __len__(self) -> int:
        return len(self._states)


def one_each(value: float | tuple[float, ...], count: int, what: str) -> tuple[float, ...]:
    """A hyper-parameter per expert, from one for all or one for each.

    Raises:
        UserError: their number is not that of the experts; ``what`` names them.
    """
    values = value if isinstance(value, tuple) else (value,) * count
    if len(values) != count:
        raise UserError(f"{what}: {len(values)} values for {count} experts; give one each")
    return values
