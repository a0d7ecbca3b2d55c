"""Models as arrays for the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray

    from mergerisk.models import Head
    from mergerisk.study.stage import Result


def to_arrays(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """A state, or parts of a merge."""
    return {name: tensor.cpu().numpy() for name, tensor in state.items()}


def kept_head(head: Head) -> Result:
    """What a stage that makes a head keeps; see :meth:`mergerisk.study.workbench.Workbench.head`."""
    from mergerisk.study.stage import Result

    return Result(to_arrays({"weight": head.weight, "bias": head.bias}), {"normalize": head.normalize})
