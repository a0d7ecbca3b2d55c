"""Experts that are not all in memory: encoders are built, and tensors read, when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from mergerisk.models.core.encoder import Encoder
from mergerisk.models.on_disk.checkpoints import pieces_of, tensor_specs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.merging.material import Tensors


class LazyExperts(Mapping[str, Encoder]):
    """Experts by task whose tensors are elsewhere, in checkpoints say.

    Every access builds an encoder, which nothing here keeps. Methods that need an expert's tensors alone read them
    one by one from :attr:`states`, without an encoder.

    Args:
        base: the encoder that the experts are built like.
        states: task → its expert's tensors: the base's names, shapes and dtypes.

    Attributes:
        states: the same, every tensor on the base's device.
    """

    def __init__(self, base: Encoder, states: Mapping[str, Tensors]) -> None:
        self._base = base
        self.states: Mapping[str, Tensors] = {
            task: _Placed(tensors, base.mean.device) for task, tensors in states.items()
        }

    def __getitem__(self, task: str) -> Encoder:
        return self._base.with_state(self.states[task])

    def __contains__(self, task: object) -> bool:
        return task in self.states  # the inherited test would build an encoder

    def __iter__(self) -> Iterator[str]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)


class _Placed(Mapping[str, torch.Tensor]):
    """Tensors on a device, each moved there when it is asked for."""

    def __init__(self, tensors: Tensors, device: torch.device) -> None:
        self._tensors = tensors
        self._device = device
        self.specs = tensor_specs(tensors)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name].to(self._device)

    def pieces(self, name: str, size: int) -> Iterator[torch.Tensor]:
        """See :func:`pieces_of`."""
        for piece in pieces_of(self._tensors, name, size):
            yield piece.to(self._device)

    def __contains__(self, name: object) -> bool:
        return name in self.specs  # the inherited test would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)


def states_of(experts: Mapping[str, Encoder]) -> Mapping[str, Tensors]:
    """θt by task. Those of :class:`LazyExperts` are read when they are asked for; encoders of any other mapping
    are asked for once and stay in memory."""
    if isinstance(experts, LazyExperts):
        return experts.states
    return {task: expert.state() for task, expert in experts.items()}
