"""SLERP: spherical interpolation of two experts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from mergerisk.errors import UserError
from mergerisk.merging.states import TensorMerging
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEARLY_PARALLEL = 0.9995


@hyperparameters
class Slerp(TensorMerging):
    """Spherical interpolation (Shoemake 1985, "Animating rotation with quaternion curves", Slerp).

    θ = sin((1 − t)ω)/sin ω · θ1 + sin(tω)/sin ω · θ2 per tensor, with ω the angle between θ1 and θ2 as vectors;
    linear interpolation where |cos ω| > 0.9995 or a tensor is zero. The base is not used.

    mergekit and FusionBench do the same: norms count for the angle alone, the experts are not normalised.
    sd-mecha normalises both and gives the result an interpolated norm.

    Attributes:
        t: share of the second expert, in [0, 1]; 0.5, half way, treats both alike.
    """

    t: Annotated[float, Field(ge=0, le=1)] = 0.5

    def check_count(self, count: int) -> None:
        if count != 2:
            raise UserError(f"slerp interpolates between exactly two experts, but was given {count}")

    def merge_tensor(self, pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:  # noqa: ARG002
        first, second = experts
        norms = float(torch.linalg.vector_norm(first)) * float(torch.linalg.vector_norm(second))
        cosine = float(torch.dot(first.flatten(), second.flatten())) / norms if norms else 1.0
        near, far = 1 - self.t, self.t
        if abs(cosine) <= _NEARLY_PARALLEL:
            angle = math.acos(cosine)
            near, far = (math.sin(share * angle) / math.sin(angle) for share in (near, far))
        return near * first + far * second
