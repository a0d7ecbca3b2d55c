"""EMR: one elected task vector, masked and rescaled for every task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch

from mergerisk.errors import UserError
from mergerisk.merging.batch_norm import is_statistic
from mergerisk.merging.experts import states_of
from mergerisk.merging.material import Merged
from mergerisk.merging.method import EncoderMerging
from mergerisk.merging.vectors import working_dtype
from mergerisk.models.core.encoder import Encoder
from mergerisk.models.core.tied import tied_names
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.merging.material import Calibration, Tensors
    from mergerisk.models.core.encoder import State


@hyperparameters
class Emr(EncoderMerging):
    """EMR-merging: elect, mask, rescale (Huang et al. 2024, arXiv 2405.17461, section 3).

    With task vectors τt = θt − θ0, entry by entry: γ = sign(Σ τt), ε the largest |τt| among the experts whose sign
    is γ, and τ = γ·ε the unified task vector. Task t gets an encoder of its own, θ0 + λt · mask_t ∘ τ, with
    mask_t = (τt·τ > 0) and λt = Σ|τt| / Σ|mask_t ∘ τ| over all parameters (1 if nothing is left of a task).

    So T encoders cost one task vector and a bit per parameter and task, beside that of the task asked for. Of
    BatchNorm's running statistics every task keeps its own expert's.

    The authors' code and FusionBench elect − where the sum is 0; here such entries stay at the base.

    Attributes:
        rescale: ``sum``, λt as above (the paper); ``tensor_mean`` adds up the means of single tensors instead of
            all entries, so that small tensors weigh as much as large ones (the authors' code and FusionBench).
    """

    encoder_per_task: ClassVar[bool] = True

    rescale: Literal["sum", "tensor_mean"] = "sum"

    def held(self, count: int) -> float:
        """With a byte per entry for every expert's mask."""
        return 3.5 + count / 4

    def make(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        calibration: Mapping[str, Calibration],  # noqa: ARG002  # part of the contract
        seed: int,  # noqa: ARG002  # nothing is random
    ) -> Merged:
        parts = self.merge_tasks(base.state(), states_of(experts))
        return self.rebuild(base, parts)

    def rebuild(self, base: Encoder, parts: State) -> Merged:
        """The model that :meth:`make` made; a task's encoder is built at every request for it."""
        return Merged(shared=None, parts=parts, per_task=_Encoders(base, parts))

    def merge_tasks(self, base: Tensors, experts: Mapping[str, Tensors]) -> State:
        """What :func:`task_state` makes every task's state from.

        Args:
            base: θ0.
            experts: task name → θt: the base's names, shapes and dtypes.

        Returns:
            ``unified/<name>``: τ, at least float32, in the parameter's shape; ``mask/<task>/<name>``: eight
            entries of a mask in a byte; ``rescaler``: λ, float64, one per task; ``own/<task>/<name>``: an expert's
            running statistics; ``tasks``: the tasks' names in the rescalers' order, UTF-8 with a zero byte
            between them. Tied tensors come under their first name only.
        """
        parts: State = {"tasks": torch.tensor(list("\0".join(experts).encode()), dtype=torch.uint8)}
        tied = tied_names(base)
        before, after = dict.fromkeys(experts, 0.0), dict.fromkeys(experts, 0.0)
        with torch.inference_mode(False), torch.no_grad():
            for name, tensor in base.items():
                if not tensor.is_floating_point() or name in tied:
                    continue
                if is_statistic(name, base):
                    parts |= {f"own/{task}/{name}": expert[name].clone() for task, expert in experts.items()}
                    continue
                pretrained = _widened(tensor)
                vectors = {task: _widened(expert[name]) - pretrained for task, expert in experts.items()}
                sign, largest = _elect(vectors)
                parts[f"unified/{name}"] = sign * largest
                share = 1 / max(1, tensor.numel()) if self.rescale == "tensor_mean" else 1.0
                for task, vector in vectors.items():
                    mask = vector * sign > 0
                    parts[f"mask/{task}/{name}"] = _packed(mask)
                    before[task] += share * float(vector.abs().sum(dtype=torch.float64))
                    after[task] += share * float(largest[mask].sum(dtype=torch.float64))
            parts["rescaler"] = torch.tensor(
                [before[task] / after[task] if after[task] else 1.0 for task in experts], dtype=torch.float64
            )
        return parts


def task_state(base: Tensors, parts: Tensors, task: str) -> State:
    """One task's state: θ0 + λt · mask_t ∘ τ, its expert's running statistics, the base's integers.

    Args:
        base: θ0.
        parts: from :meth:`Emr.merge_tasks`, on any device.
        task: one of the tasks merged.

    Returns:
        New tensors by the base's names, in its dtypes and on its devices; tied tensors stay tied.

    Raises:
        UserError: no such task among the parts.
    """
    tasks = _tasks(parts)
    if task not in tasks:
        raise UserError(f"emr: nothing was merged for task {task!r}; tasks: {', '.join(tasks)}")
    rescaler = float(parts["rescaler"][tasks.index(task)])
    firsts = tied_names(base)
    state: State = {}
    with torch.inference_mode(False), torch.no_grad():
        for name, tensor in base.items():
            if not tensor.is_floating_point():
                state[name] = tensor.clone()
            elif name in firsts:
                state[name] = state[firsts[name]]
            elif is_statistic(name, base):
                state[name] = parts[f"own/{task}/{name}"].to(tensor.device, copy=True)
            else:
                unified = parts[f"unified/{name}"].to(tensor.device)
                mask = _unpacked(parts[f"mask/{task}/{name}"], tensor)
                state[name] = (_widened(tensor) + rescaler * (mask * unified)).to(tensor.dtype)
    return state


class _Encoders(Mapping[str, Encoder]):
    """Encoders of single tasks, each built when it is asked for, so that no two need be in memory."""

    def __init__(self, base: Encoder, parts: Tensors) -> None:
        self._base = base
        self._parts = parts
        self._tasks = _tasks(parts)

    def __getitem__(self, task: str) -> Encoder:
        if task not in self._tasks:
            raise KeyError(task)
        with torch.inference_mode(False):
            return self._base.with_state(task_state(self._base.state(), self._parts, task))

    def __contains__(self, task: object) -> bool:
        return task in self._tasks  # the inherited test would build an encoder

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def _tasks(parts: Tensors) -> list[str]:
    return bytes(parts["tasks"].tolist()).decode().split("\0")


def _elect(vectors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """γ, the sign of the sum, and ε, the largest magnitude that has this sign."""
    first, *others = vectors.values()
    total = first.clone()
    for vector in others:
        total += vector
    sign = total.sign_()
    largest = torch.zeros_like(sign)
    for vector in vectors.values():
        largest = torch.maximum(largest, vector * sign)
    return sign, largest


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return tensor.to(working_dtype(tensor.dtype))


def _packed(mask: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.packbits(mask.flatten().cpu().numpy()))


def _unpacked(packed: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    bits = np.unpackbits(packed.cpu().numpy(), count=like.numel())
    return torch.from_numpy(bits).to(like.device, torch.bool).view(like.shape)
