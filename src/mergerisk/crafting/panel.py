"""The attacked model, and those that transfer is measured on."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from mergerisk.errors import UserError, did_you_mean, first_line
from mergerisk.models.core.behaviour import Averaged, DrawsError, check_behaviour
from mergerisk.models.core.checks import count_classes
from mergerisk.models.sources.classifiers import load_classifier
from mergerisk.tasks.class_names import Classes, same_names
from mergerisk.transfer import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from mergerisk.models.core.stated import StatedPreprocessing
    from mergerisk.models.sources.classifiers import LoadedClassifier


@dataclass(frozen=True)
class Panel:
    """Classifiers by name, the attacked one first.

    Attributes:
        loaded: the classifiers.
        device: where they compute.
        batch_size: images at a time.
    """

    loaded: Mapping[str, LoadedClassifier]
    device: str
    batch_size: int

    @property
    def attacked(self) -> str:
        """The attacked model's name."""
        return next(iter(self.loaded))

    @property
    def targets(self) -> list[str]:
        """The others' names."""
        return list(self.loaded)[1:]

    def module(self, name: str) -> nn.Module:
        return self.loaded[name].module

    def count_classes(self, name: str, size: tuple[int, int]) -> int:
        """Logits of one image, of this height and width.

        Raises:
            UserError: the model does not take such images, or returns something else.
        """
        try:
            with torch.no_grad():
                logits = self.module(name)(torch.zeros(1, 3, *size, device=self.device))
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"{name}: fails on an image of {size[0]} × {size[1]} pixels: {first_line(error)}"
            ) from error
        return count_classes(logits, name)

    def common_classes(self, size: tuple[int, int]) -> Classes:
        """The classes that all models have, asked with an image of this size.

        Raises:
            UserError: theirs differ, or a model does not take such images.
        """
        first, names = self.attacked, self.loaded[self.attacked].class_names
        count = self.count_classes(first, size)
        for name, loaded in self.loaded.items():
            own = self.count_classes(name, size)
            if loaded.class_names is not None and len(loaded.class_names) != own:
                raise UserError(f"{name}: {len(loaded.class_names)} class names for {own} logits")
            if own != count:
                raise UserError(f"--target {name}: has {own} classes, {first} has {count}; they must be the same")
            for index, (ours, theirs) in enumerate(zip(names or (), loaded.class_names or (), strict=False)):
                if not same_names([ours], [theirs]):
                    raise UserError(
                        f"--target {name}: calls class {index} {theirs!r}, {first} calls it {ours!r}; "
                        "their classes must be the same"
                    )
        return Classes(names, count)

    def predict(self, name: str, images: torch.Tensor) -> torch.Tensor:
        """Predicted labels, int64, N, on the CPU, for images N × 3 × H × W in [0, 1].

        Raises:
            UserError: a logit is NaN.
        """
        try:
            return predict(self.module(name), images, batch_size=self.batch_size)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error

    @contextmanager
    def counting(self, passes: int, listener: Callable[[int, int], None]) -> Iterator[None]:
        """Tell a listener of passes of one image through a model, done and expected, while the block runs."""
        done = 0

        def count(_: nn.Module, inputs: tuple[Any, ...], __: Any) -> None:
            nonlocal done
            done += len(inputs[0])
            listener(min(done, passes), passes)

        with ExitStack() as stack:
            for loaded in self.loaded.values():
                stack.callback(loaded.module.register_forward_hook(count).remove)
            yield


def load_panel(
    names: Sequence[str],
    size: tuple[int, int],
    *,
    device: str,
    batch_size: int,
    preprocessing: Mapping[str, StatedPreprocessing] = MappingProxyType({}),
    samples: int | None = None,
    seed: int = 0,
    offline: bool = False,
) -> Panel:
    """Load classifiers, the attacked one first, and see that each says the same of the same image.

    Args:
        names: of the classifiers.
        size: height and width of an image that they are going to see.
        device: where they compute.
        batch_size: images at a time.
        preprocessing: by name, what is done to pixels instead of the model's own; under an empty name for all.
        samples: over how many draws a model that draws at random is averaged; None to refuse such models.
        seed: of these draws.
        offline: take models of the hub from the cache only.

    Raises:
        UserError: one cannot be loaded, is named twice, or is no function of the image.
    """
    for name in preprocessing:
        if name and name not in names:
            raise UserError(f"--preprocessing {name}: no such model{did_you_mean(name, names)}")
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise UserError(f"--target {twins[0]}: given twice, or the attacked model itself")
    loaded = {}
    for name in names:
        stated = preprocessing.get(name, preprocessing.get(""))
        found = load_classifier(name, preprocessing=stated, offline=offline)
        found.module.to(device)
        attacked = name == names[0]
        try:
            check_behaviour(found.module, size, name, gradient=attacked, device=device)
        except DrawsError as error:
            if samples is None:
                raise UserError(f"{error}, or have its draws averaged: --samples 16") from error
            remark = f"{name}: draws at random; its logits are the mean of {samples} fixed draws"
            found = replace(found, module=Averaged(found.module, samples, seed), remark=remark)
            check_behaviour(found.module, size, name, gradient=attacked, device=device)
        loaded[name] = found
    return Panel(loaded, device, batch_size)
