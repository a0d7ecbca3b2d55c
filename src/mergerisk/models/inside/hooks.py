"""Reaching into a model's forward pass, and leaving the model as it was."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError
from mergerisk.models.core.checks import check_differentiable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import nn
    from torch.autograd.graph import GradientEdge

    Hook = Callable[[nn.Module, tuple[object, ...], object], object]
    """A forward hook: module, its arguments, what it puts out → None, or what to put out instead."""


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """The modules are in evaluation mode as long as the context lasts; then each part is in its own mode again."""
    training = {part: part.training for module in modules for part in module.modules()}
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode


@contextmanager
def frozen(model: nn.Module, who: str) -> Iterator[None]:
    """Within it, the model is in evaluation mode and its parameters take no gradient; then it is what it was.

    Raises:
        UserError: a weight was made inside ``torch.inference_mode()``; ``who`` says whose it is.
    """
    check_differentiable(model, who)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with evaluating(model):
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """The modules call their forward hooks as long as the context lasts, however it ends."""
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def first_tensor(output: object) -> torch.Tensor | None:
    """The tensor that a module puts out, or the first of a tuple or of a transformers ``ModelOutput``."""
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple):
        output = output[0] if output else None
    return output if isinstance(output, torch.Tensor) else None


def changed_gradient(change: Callable[[torch.Tensor], torch.Tensor]) -> Hook:
    """A hook that passes the gradient of what a module puts out through ``change``, in every backward pass."""

    def watch(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:  # noqa: ARG001
        tensor = first_tensor(output)
        if tensor is not None and tensor.requires_grad:
            tensor.register_hook(change)

    return watch


def changed_output(change: Callable[[torch.Tensor], torch.Tensor]) -> Hook:
    """A hook that puts ``change`` of the tensor that a module puts out in its place; in a tuple or a transformers
    ``ModelOutput``, of the first."""

    def replace(module: nn.Module, arguments: tuple[object, ...], output: object) -> object:  # noqa: ARG001
        tensor = first_tensor(output)
        if tensor is None:
            return output
        if isinstance(output, tuple):
            return (change(tensor), *output[1:])
        if isinstance(output, Mapping):
            return type(output)({**output, next(iter(output)): change(tensor)})  # type: ignore[call-arg]
        return change(tensor)

    return replace


def copied_output(copies: list[torch.Tensor]) -> Hook:
    """A hook that appends a copy of the tensor that a module puts out, which later layers may change in place."""

    def copy(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:  # noqa: ARG001
        tensor = first_tensor(output)
        if tensor is not None:
            copies.append(tensor.detach().clone())

    return copy


class _Reached(BaseException):  # no error; of no Exception, so that no model catches it
    """The layer was run."""


def layer_output(model: nn.Module, layer: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What ``layer`` puts out (N × …) when ``model`` is given ``images``; nothing after it is run.

    Raises:
        UserError: the layer is not run, or puts out no tensor with a row per image.
    """
    found: list[torch.Tensor | None] = []

    def stop(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:  # noqa: ARG001
        found.append(first_tensor(output))
        raise _Reached

    with hooked([(layer, stop)]):
        try:
            model(images)
        except _Reached:
            pass
        else:
            raise UserError(f"{type(model).__name__} does not run the layer that was named; name another")
    output = found[0]
    if output is None or output.ndim == 0 or len(output) != len(images):
        raise UserError(f"{type(layer).__name__} does not put out one tensor per image; name another layer")
    return output


def run_until(model: nn.Module, layer: nn.Module | None, images: torch.Tensor) -> None:
    """Give ``images`` to ``model``; once ``layer`` has run, nothing after it is. All is run if that is None."""

    def stop(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:  # noqa: ARG001
        raise _Reached

    with hooked([] if layer is None else [(layer, stop)]), suppress(_Reached):
        model(images)


@contextmanager
def gradient_edge(layer: nn.Module) -> Iterator[list[GradientEdge]]:
    """The place of the layer's output in the graph of a forward pass run within, to differentiate with respect to.

    An edge, not the tensor, which later layers may change in place.
    """
    found: list[GradientEdge] = []

    def watch(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:  # noqa: ARG001
        tensor = first_tensor(output)
        if not found and tensor is not None and tensor.requires_grad:
            found.append(torch.autograd.graph.get_gradient_edge(tensor))

    with hooked([(layer, watch)]):
        yield found
