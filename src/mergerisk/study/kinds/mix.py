"""A model whose weights are mixed from several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.arrays import to_arrays
from mergerisk.study.kinds.results import ModelStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.models import State
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.calibrating import CalibrationData
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Mix(ModelStage):
    """The weights Σ a θ; see :func:`mergerisk.defenses.mix_states`.

    Attributes:
        backbone: what all of them are encoders of.
        members: θ, the one whose form counts first; None for the pretrained one.
        weights: a.
        calibration: the images that BatchNorm's statistics are estimated on; None of models without any.
        seed: of the order of these images; None without them.
        images: what it passes through models, by what :data:`mergerisk.study.stage.COSTS` lists.
    """

    kind: ClassVar[str] = "mix"
    noun: ClassVar[str] = "train defenses"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 4

    backbone: Backbone
    members: tuple[Input[State] | None, ...]
    weights: tuple[float, ...]
    calibration: CalibrationData | None
    seed: int | None
    images: Mapping[str, int] = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Passes of calibration images, where BatchNorm is estimated anew."""
        return self.images

    def run(self, bench: Workbench) -> Result:
        """The encoder's parameters by name, and its own form where it differs from the base's."""
        from mergerisk.defenses import mix_states
        from mergerisk.merging.batch_norm import reestimate_batch_norm

        states = (bench.model(self.backbone, member).encoder.state() for member in self.members)
        state = mix_states(states, self.weights)
        first, calibration = self.members[0], bench.calibration(self.calibration)
        if calibration is not None:
            encoder = bench.model(self.backbone, first).encoder.with_state(state)
            state |= reestimate_batch_norm(encoder, calibration, calibration, self.seed or 0)
        form = None if first is None else bench.store.manifest(first.key)["info"].get("form")
        return Result(to_arrays(state), {} if form is None else {"form": form})
