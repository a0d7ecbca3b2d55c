"""The two kinds of parts that any gradient attack can be composed with, and their names.

An input transformation changes what the classifier sees; a gradient filter changes what comes back.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError
from mergerisk.registry import Entry, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from mergerisk.attacks.attack import Problem


class InputTransform(ABC):
    """Views of images that the classifier is shown in their place; gradients are averaged over them."""

    @property
    def copies(self) -> int:
        """Number of views of one image."""
        return 1

    @abstractmethod
    def views(self, images: torch.Tensor, problem: Problem) -> Iterator[torch.Tensor]:
        """One after another, the views of ``images`` (N × C × H × W), of the same shape and differentiable.

        What is random is drawn from ``problem.random``, so that it belongs to the image.
        """

    def shared(self, images: torch.Tensor) -> torch.Tensor:
        """What all views of images are made of, computed once and differentiable: the images themselves, where
        there is nothing to compute. Gradients of the views of an attack's first transformation are added up there,
        and go back to the images together."""
        return images

    def views_of(self, shared: torch.Tensor, problem: Problem) -> Iterator[torch.Tensor]:
        """The :meth:`views`, of what they share; overridden together with them or not at all."""
        return self.views(shared, problem)


class GradientFilter(ABC):
    """A filter of the gradient, before it is accumulated."""

    @abstractmethod
    def filter(self, gradient: torch.Tensor) -> torch.Tensor:
        """N × C × H × W → the same."""


_INPUTS = "mergerisk.attacks.inputs"

INPUTS: Registry[type[InputTransform]] = Registry(
    "input transformation",
    "mergerisk.attack_inputs",
    [
        Entry("di", f"{_INPUTS}:DiverseInputs", "random size and place", "arXiv 1803.06978"),
        Entry("si", f"{_INPUTS}:ScaledInputs", "several scales of the pixel values", "arXiv 1908.06281"),
        Entry("admix", f"{_INPUTS}:Admix", "a little of other classes' images", "arXiv 2102.00436"),
        Entry("ssa", f"{_INPUTS}:SpectrumInputs", "noise in the frequency domain", "arXiv 2207.05382", revision=2),
        Entry("bsr", f"{_INPUTS}:BlockShuffle", "blocks shuffled and rotated", "arXiv 2308.10299"),
        Entry("sia", "mergerisk.attacks.patchwork:Patchwork", "blocks changed each its way", "arXiv 2309.14700"),
    ],
)
"""What ``inputs`` can name."""

FILTERS: Registry[type[GradientFilter]] = Registry(
    "gradient filter",
    "mergerisk.attack_filters",
    [Entry("ti", "mergerisk.attacks.filters:TranslationInvariance", "Gaussian blur", "arXiv 1904.02884")],
)
"""What ``gradient`` can name."""


def parse_inputs(value: object) -> object:
    """A study file's ``inputs`` as implementations."""
    return _parse(INPUTS, "input", value)


def parse_filters(value: object) -> object:
    """A study file's ``gradient`` as implementations."""
    return _parse(FILTERS, "filter", value)


def _parse(registry: Registry[Any], key: str, value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list of names, or of mappings with {key!r}")  # noqa: TRY004  # pydantic's
    try:
        return tuple(_part(registry, key, part) for part in value)
    except UserError as error:
        raise ValueError(str(error)) from error


def _part(registry: Registry[Any], key: str, value: object) -> object:
    if isinstance(value, str):
        return registry.create(value, {})
    if isinstance(value, dict):
        if not isinstance(value.get(key), str):
            raise ValueError(f"a mapping needs {key!r}, the part's name")  # noqa: TRY004
        return registry.create(value[key], {name: given for name, given in value.items() if name != key})
    return value


def describe(attack: Any) -> dict[str, Any]:
    """An attack's hyper-parameters as plain data, from which :func:`mergerisk.attacks.create` makes it again."""
    kinds: dict[str, tuple[str, Registry[Any]]] = {"inputs": ("input", INPUTS), "gradient": ("filter", FILTERS)}
    described = {}
    for field in dataclasses.fields(attack):
        value = getattr(attack, field.name)
        if field.name in kinds:
            key, registry = kinds[field.name]
            value = [{key: registry.name_of(type(part)), **dataclasses.asdict(part)} for part in value]
        described[field.name] = value
    return described
