"""What defenses share that mix a model's weights with those of others, which were trained robustly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from mergerisk.merging.batch_norm import reestimate_batch_norm
from mergerisk.merging.vectors import working_dtype
from mergerisk.models.core.checks import check_same_architecture
from mergerisk.validation import as_parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.defenses.training import TrainingData, TrainingDefense
    from mergerisk.merging import Calibration
    from mergerisk.merging.material import Tensors
    from mergerisk.models import Encoder, State


@dataclass(frozen=True)
class Step:
    """One training.

    Attributes:
        defense: which, by name.
        made: the defense itself.
    """

    defense: str
    made: TrainingDefense

    @property
    def parameters(self) -> dict[str, Any]:
        """Its hyper-parameters."""
        return as_parameters(self.made)


@dataclass(frozen=True)
class Member:
    """A model whose weights are mixed in.

    Attributes:
        weight: a of Σ a θ.
        start: ``model``: what is defended; ``base``: the public base; ``robust``: a robust base, if there is one
            already, and else the base, trained by ``steps``.
        steps: what it is trained by, one after the other.
    """

    weight: float
    start: Literal["model", "base", "robust"]
    steps: tuple[Step, ...] = ()


class MixingDefense(ABC):
    """A defense that gives Σ a θ, Σ a = 1, of a model, its base, and what training made of either; an ordinary
    encoder, at no extra time per image.

    Subclasses are frozen dataclasses of hyper-parameters.
    """

    @property
    @abstractmethod
    def members(self) -> tuple[Member, ...]:
        """What is mixed; the model itself, or what was trained from it, first."""

    def trained(self, *, robust: bool = False) -> tuple[Member, ...]:
        """Those that have a weight, and that nothing has to be trained for if there is a robust base already."""
        return tuple(
            Member(one.weight, one.start) if robust and one.start == "robust" else one
            for one in self.members
            if one.weight != 0
        )

    def mix(
        self,
        encoder: Encoder,
        base: Encoder,
        data: Mapping[str, TrainingData] | None = None,
        *,
        robust: Encoder | None = None,
        calibration: Mapping[str, Calibration] | None = None,
        seed: int = 0,
    ) -> Encoder:
        """The mix.

        Args:
            encoder: what is defended: of a merge, or of any model; it is not changed.
            base: the public base that it was made from.
            data: task → what is learnt from, where something is trained.
            robust: a robust base of the same architecture, where there is one already.
            calibration: task → images that BatchNorm's running statistics are estimated on; without them, they
                are mixed like weights.
            seed: of what is drawn.

        Raises:
            UserError: a model of another architecture, or what training raises.
        """
        made: dict[str, Encoder] = {}
        states, weights = [], []
        for member in self.trained(robust=robust is not None):
            found = {"model": encoder, "base": base, "robust": base if robust is None else robust}[member.start]
            for number, step in enumerate(member.steps, start=1):
                # What several begin with is trained once.
                place = f"{member.start}, {member.steps[:number]}"
                if place not in made:
                    made[place] = step.made.train(found, data or {}, seed=seed)
                found = made[place]
            states.append(found.state())
            weights.append(member.weight)
        mixed = mix_states(states, weights)
        if calibration is not None:
            mixed |= reestimate_batch_norm(encoder.with_state(mixed), calibration, calibration, seed)
        return encoder.with_state(mixed)


def mix_states(states: Iterable[Tensors], weights: Iterable[float]) -> State:
    """Σ a θ.

    Args:
        states: models of one architecture; one is held at a time besides the sum.
        weights: a, of each.

    Returns:
        New tensors; integers are the first's. Half precision is mixed in float32 and rounded once. One model with
        weight 1 is itself, to the bit.

    Raises:
        UserError: models of different architectures.
    """
    total: State = {}
    first: State = {}
    with torch.inference_mode(False), torch.no_grad():
        for state, weight in zip(states, weights, strict=True):
            if first:
                check_same_architecture(first, state, "what is mixed in")
            else:
                first = {name: state[name].detach() for name in state}
            for name, tensor in state.items():
                if tensor.is_floating_point():
                    part = tensor.detach().to(working_dtype(tensor.dtype)) * weight
                    total[name] = part if name not in total else total[name].add_(part)
        return {
            name: total[name].to(tensor.dtype) if name in total else tensor.clone()
            for name, tensor in first.items()
        }
