"""Weights of base, ingredient, merge and experts: what diagnostics in weight space read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from mergerisk.causes.cause import Cause
from mergerisk.errors import UserError
from mergerisk.merging.batch_norm import is_statistic
from mergerisk.models.core.checks import check_finite, check_same_architecture
from mergerisk.models.core.classifier import Classifier
from mergerisk.models.core.encoder import Encoder
from mergerisk.models.core.tied import tied_names
from mergerisk.models.on_disk.checkpoints import tensor_specs

if TYPE_CHECKING:
    import torch

    from mergerisk.causes.given import Given
    from mergerisk.causes.probe import Reads
    from mergerisk.causes.result import Measured, Per
    from mergerisk.merging.material import Tensors

ALL = "all"
"""The row that speaks for all tensors."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, all of one architecture.

    Attributes:
        base: θ0.
        target: of the merge, θm.
        surrogate: of the ingredient, θt; None where none is compared.
        experts: name → what was merged.
    """

    base: Tensors
    target: Tensors
    surrogate: Tensors | None
    experts: Mapping[str, Tensors]

    @property
    def names(self) -> list[str]:
        """The tensors that count: floating ones, each once however many names it has; BatchNorm's running
        statistics are no weights."""
        aliases = tied_names(self.base)
        return [
            name
            for name, spec in tensor_specs(self.base).items()
            if spec.dtype.is_floating_point and name not in aliases and not is_statistic(name, self.base)
        ]

    @property
    def matrices(self) -> list[str]:
        """Those that are matrices."""
        specs = tensor_specs(self.base)
        return [name for name in self.names if len(specs[name].shape) == 2 and 0 not in specs[name].shape]

    def moved(self, state: Tensors, name: str) -> torch.Tensor:
        """A tensor of τ = θ − θ0, float64."""
        return state[name].double() - self.base[name].double()


class WeightCause(Cause):
    """A diagnostic of weights alone."""

    per: ClassVar[Per] = "pair"

    @property
    def surrogate_reads(self) -> frozenset[Reads]:
        return frozenset({"weights"}) if "surrogate" in self.needs else frozenset()

    @property
    def target_reads(self) -> frozenset[Reads]:
        return frozenset({"weights"})

    def answer(self, given: Given) -> Measured:
        weights = Weights(
            weights_of(given.base, "the base"),
            weights_of(given.target, "the target"),
            weights_of(given.surrogate, "the surrogate") if "surrogate" in self.needs else None,
            {name: weights_of(expert, f"expert {name!r}") for name, expert in given.experts.items()},
        )
        states = {"the target": weights.target}
        states |= {} if weights.surrogate is None else {"the surrogate": weights.surrogate}
        states |= {f"expert {name!r}": state for name, state in weights.experts.items()}
        for who, state in states.items():
            check_same_architecture(weights.base, state, f"{self.name}: {who}")
        for who, state in {"the base": weights.base, **states}.items():
            check_finite(state, f"{self.name}: {who}")
        return self.compare(weights)

    @abstractmethod
    def compare(self, weights: Weights) -> Measured:
        """The rows, from weights of one architecture."""


def weights_of(model: object, who: str) -> Tensors:
    """The weights of an encoder, of a classifier's encoder (adapters and heads are no part of them), of a module,
    or tensors by name as they are.

    Raises:
        UserError: there are none; ``who`` says whose they would be.
    """
    if isinstance(model, Classifier):
        return model.encoder.state()
    if isinstance(model, Encoder):
        return model.state()
    if isinstance(model, nn.Module):
        return {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if isinstance(model, Mapping):
        return model
    raise UserError(f"{who} is a {type(model).__name__}, whose weights cannot be read")
