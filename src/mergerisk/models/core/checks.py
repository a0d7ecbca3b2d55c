"""What must hold of weights before anything is built on them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError, did_you_mean
from mergerisk.memory import ran_out_of_memory
from mergerisk.models.on_disk.checkpoints import tensor_specs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn


def check_finite(state: Mapping[str, torch.Tensor], where: str) -> None:
    """Raises:
    UserError: a tensor holds NaN or infinity; the message names it.
    """
    for name, tensor in state.items():
        # NaN and infinity survive a sum, which is far cheaper than looking at every entry; sums may overflow too.
        if (
            tensor.is_floating_point()
            and not bool(torch.isfinite(tensor.sum()))
            and not bool(torch.isfinite(tensor).all())
        ):
            raise UserError(f"{where}: tensor {name!r} holds NaN or infinity; the checkpoint is unusable")


def freeze(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, with parameters that take no gradient.

    They are frozen one by one: a script module refuses to have it done to the whole.
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.eval()


def check_same_architecture(
    reference: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], where: str
) -> None:
    """Names, shapes and dtypes of two states must agree; values are not read.

    Raises:
        UserError: they do not; the message names ``where``, the first tensor that differs, and how.
    """
    missing = reference.keys() - state.keys()
    if missing:
        name = min(missing)
        raise UserError(
            f"{where}: tensor {name!r} is missing{did_you_mean(name, state) if state else ''}; "
            "ingredients must be fine-tuned from the same base"
        )
    extra = state.keys() - reference.keys()
    if extra:
        raise UserError(
            f"{where}: tensor {min(extra)!r} is not in the base; ingredients must be fine-tuned from the same base"
        )
    others = tensor_specs(state)
    for name, tensor in tensor_specs(reference).items():
        other = others[name]
        if other.shape != tensor.shape:
            raise UserError(f"{where}: tensor {name!r} has shape {other.shape}, the base has {tensor.shape}")
        if other.dtype != tensor.dtype:
            raise UserError(
                f"{where}: tensor {name!r} is {dtype_name(other.dtype)}, the base's is "
                f"{dtype_name(tensor.dtype)}; convert all ingredients to one dtype"
            )


def dtype_name(dtype: torch.dtype) -> str:
    """``float32``, for messages."""
    return str(dtype).removeprefix("torch.")


def check_differentiable(model: nn.Module, who: str) -> None:
    """Raises:
    UserError: a weight was made inside ``torch.inference_mode()``, which no gradient can be computed with; ``who``
        says whose it is.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise UserError(
                f"{who}: {name!r} was made inside torch.inference_mode(), so that no gradient can pass it; "
                "make or load the model outside"
            )


@contextmanager
def precision_named(model: nn.Module, images: torch.Tensor, who: str) -> Iterator[None]:
    """Within it, weights of another precision than ``images`` are an error that says so, and not PyTorch's about
    the first layer that meets both. A model that converts images by itself passes.

    Raises:
        UserError: the model fails on the images, and has no weights of their dtype; ``who`` says whose it is.
    """
    try:
        yield
    except RuntimeError as error:
        tensors = (*model.parameters(), *model.buffers())
        found = {dtype_name(tensor.dtype) for tensor in tensors if tensor.is_floating_point()}
        given = dtype_name(images.dtype)
        if ran_out_of_memory(error) or not found or given in found:
            raise
        raise UserError(
            f"{who}: its weights are {' and '.join(sorted(found))}, the images {given}; give it weights of the "
            f"images' precision (model.to(torch.{given}))"
        ) from error


def count_classes(logits: object, who: str) -> int:
    """How many classes a classifier has, from what it says of one image.

    Raises:
        UserError: that is no logits, 1 × classes; ``who`` says whose it is.
    """
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != 1:
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UserError(f"{who}: must return logits, images × classes, got {shape} for one image")
    return logits.shape[1]
