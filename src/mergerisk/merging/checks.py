"""What must hold of experts, calibration images and hyper-parameters before anything is merged."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError
from mergerisk.merging.vectors import working_dtype
from mergerisk.models.core.checks import check_finite, check_same_architecture
from mergerisk.models.core.tied import tied_names
from mergerisk.tasks.images import check_pixels
from mergerisk.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mergerisk.merging.material import Calibration, Tensors
    from mergerisk.models.core.encoder import Encoder
    from mergerisk.models.on_disk.checkpoints import TensorSpec
    from mergerisk.tasks.images import Images


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


def check_range(method: object, specs: Mapping[str, TensorSpec]) -> None:
    """Hyper-parameters must be numbers of every dtype that tensors are merged in.

    Args:
        method: a merging method or a correction: a dataclass of its hyper-parameters.
        specs: what is merged, by name.

    Raises:
        UserError: one is too large.
    """
    dtypes = {working_dtype(spec.dtype) for spec in specs.values() if spec.dtype.is_floating_point}
    largest = min((torch.finfo(dtype).max for dtype in dtypes), default=math.inf)
    for name, value in vars(method).items():
        for number in _numbers(value):
            if isinstance(number, float) and abs(number) > largest:
                raise UserError(
                    f"{type(method).__name__}: {name} {number} exceeds {largest:.3g}, the largest number of the "
                    "tensors' dtype; lower it"
                )


def _numbers(value: object) -> Iterator[object]:
    """A value, or those of a list of experts or a mapping of layers."""
    if isinstance(value, tuple | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)
    else:
        yield value


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
