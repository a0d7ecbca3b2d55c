"""One thing about a merge is changed, everything else left as it is, to see what moves with it.

What is changed are the task vectors before they are merged (:class:`VectorChange`), which ingredients are merged,
or how far the merge is from the base (:func:`on_path`). None of it is a method that anybody would deploy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import NonNegativeInt

from mergerisk.errors import UserError
from mergerisk.merging.batch_norm import is_statistic
from mergerisk.merging.experts import LazyExperts, states_of
from mergerisk.merging.vectors import working_dtype
from mergerisk.models.core.checks import check_same_architecture
from mergerisk.models.core.tied import tied_names
from mergerisk.models.inside.blocks import transformer_blocks
from mergerisk.models.on_disk.checkpoints import tensor_specs
from mergerisk.randomness import generator
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.merging.material import Tensors
    from mergerisk.models.core.encoder import Encoder, State


class VectorChange(ABC):
    """What becomes of task vectors τt = θt − θ0, tensor by tensor, before they are merged.

    Integer tensors and BatchNorm's running statistics stay the expert's own; a tied tensor is changed once.
    """

    name: ClassVar[str]

    def reaches(self, base: Encoder) -> str:
        """What the names of the tensors that are changed begin with.

        Raises:
            UserError: the model has no such part.
        """
        del base
        return ""

    @abstractmethod
    def move(self, vector: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        """One tensor of τt, in at least float32, → another of its shape and length."""


@hyperparameters
class Placebo(VectorChange):
    """Random directions: of each tensor of τt only the length ‖τt‖₂ remains, its direction is uniformly random.

    Such ingredients are as far from the base as the real ones, and know nothing of any task.
    """

    name: ClassVar[str] = "placebo"

    def move(self, vector: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        noise = torch.randn(vector.shape, generator=draws, dtype=torch.float64)
        size = torch.linalg.vector_norm(noise)
        length = torch.linalg.vector_norm(vector, dtype=torch.float64).cpu()
        return (noise * (length / size if size else 0.0)).to(vector)


@hyperparameters
class ShuffledBlock(VectorChange):
    """One block of the model is disordered: within each of its tensors the entries of τt change places at random.

    Their values stay, and so does the length; where they act does not.

    Attributes:
        block: which, counted from 0; blocks are the longest list of equal modules in the backbone.
    """

    name: ClassVar[str] = "shuffled_blocks"

    block: NonNegativeInt

    def reaches(self, base: Encoder) -> str:
        blocks = [*transformer_blocks(base.backbone)]
        if self.block >= len(blocks):
            raise UserError(f"{self.name}: {self.block}: the backbone has blocks 0 to {len(blocks) - 1}")
        return f"{blocks[self.block]}."

    def move(self, vector: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        order = torch.randperm(vector.numel(), generator=draws).to(vector.device)
        return vector.flatten()[order].view_as(vector)


def changed_experts(
    base: Encoder, experts: Mapping[str, Encoder], change: VectorChange, *, seed: int = 0
) -> LazyExperts:
    """Experts whose task vectors are changed; any method merges them like others.

    Args:
        base: the pretrained encoder.
        experts: task name → expert.
        change: what becomes of their task vectors.
        seed: of what is drawn: random numbers belong to (seed, task, tensor), so that experts differ, and what one
            is given does not depend on the others.

    Returns:
        θ0 + τ't by task. A tensor is made when it is asked for, and of :class:`LazyExperts` read then.

    Raises:
        UserError: the model lacks what is to be changed.
    """
    start, reached = base.state(), change.reaches(base)
    states = {
        task: _Changed(start, state, change, reached, (seed, task)) for task, state in states_of(experts).items()
    }
    return LazyExperts(base, states)


class _Changed(Mapping[str, torch.Tensor]):
    """An expert's tensors, changed when they are asked for."""

    def __init__(
        self, base: State, expert: Tensors, change: VectorChange, reached: str, draws: tuple[int, str]
    ) -> None:
        self._base, self._expert, self._change, self._draws = base, expert, change, draws
        tied = tied_names(base)
        self._firsts = {name: tied.get(name, name) for name in base}
        self._moved = {
            name
            for name, first in self._firsts.items()
            if base[name].is_floating_point() and not is_statistic(name, base) and first.startswith(reached)
        }
        self.specs = tensor_specs(expert)

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._expert[name]
        if name not in self._moved:
            return tensor
        first, (seed, task) = self._firsts[name], self._draws
        dtype = working_dtype(tensor.dtype)
        with torch.inference_mode(False), torch.no_grad():
            start = self._base[name].to(dtype)
            draws = generator(seed, self._change.name, task, first)
            return (start + self._change.move(tensor.to(dtype) - start, draws)).to(tensor.dtype)

    def __contains__(self, name: object) -> bool:
        return name in self.specs  # the inherited test would make the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)


def on_path(base: Tensors, merged: Tensors, at: float) -> State:
    """The point θ0 + a (θm − θ0) between a base and a merge of the same architecture.

    Args:
        base: θ0.
        merged: θm: the same names, shapes and dtypes.
        at: a in [0, 2]: 0 gives the base's floating tensors and 1 the merge's, to the bit; above, it is farther.

    Returns:
        New tensors; integers are the merge's. Half precision is mixed in float32 and rounded once. BatchNorm's
        running statistics are mixed like weights: estimate them anew where there are images to do it on.

    Raises:
        UserError: the merge is of another architecture, or ``at`` out of range.
    """
    if not 0 <= at <= 2:
        raise UserError(f"path: {at:g} must be from 0, the base, over 1, the merge, to 2")
    check_same_architecture(base, merged, "the merge")
    state: State = {}
    with torch.inference_mode(False), torch.no_grad():
        for name, spec in tensor_specs(base).items():
            end = merged[name].detach()
            if spec.dtype.is_floating_point:
                dtype = working_dtype(spec.dtype)
                state[name] = torch.lerp(base[name].detach().to(dtype), end.to(dtype), at).to(spec.dtype)
            else:
                state[name] = end.clone()
    return state
