"""``stealth.parquet``: how hard adversarial images are to tell from those they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mergerisk.study.keyed import Input
from mergerisk.study.kinds.measure_stealth import MeasureStealth
from mergerisk.study.plan import Piece
from mergerisk.study.tables.declared import Column, Declared
from mergerisk.study.tables.table import StageTable
from mergerisk.transfer.similarity import StealthMeasure, check_measures, fetch_weights
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from mergerisk.store import Artefact
    from mergerisk.study.tables.table import Scene

_NAMES = (
    Column("task", "name", "the task"),
    Column("attack", "name", "the attack"),
    Column("surrogate", "name", "whom the image was crafted on"),
    Column("epsilon", "setting", "the budget, of pixels in [0, 1]"),
    Column("seed", "number", "of the study"),
    Column("image", "number", "place in the test split"),
)
_MEANINGS: dict[StealthMeasure, str] = {
    "psnr": "peak signal-to-noise ratio, dB; a large one: the change is small",
    "ssim": "structural similarity, at most 1; a large one: the change is hard to see",
    "lpips": "learned perceptual distance, 0 or more; a small one: the change is hard to see",
}


@hyperparameters
class StealthTable(StageTable):
    """One row per adversarial image, whoever it is shown to; see :func:`mergerisk.transfer.stealth`.

    Attributes:
        measures: which: ``psnr``, ``ssim`` (by scikit-image, the extra ``stealth``), ``lpips`` (by the package of
            that name).
    """

    measures: Annotated[tuple[StealthMeasure, ...], Field(min_length=1)] = ("psnr", "ssim")

    @property
    def declared(self) -> Declared:
        """Per measure its value and, beside it, why there is none."""
        measured = [
            column
            for measure in dict.fromkeys(self.measures)
            for column in (
                Column(measure, "number", _MEANINGS[measure]),
                Column(f"{measure}_missing", "reason", "why there is no value"),
            )
        ]
        return Declared("stealth", "adversarial image", (*_NAMES, *measured), shown_by="mean")

    def fetch(self, *, offline: bool) -> None:
        """AlexNet's weights, for ``lpips``."""
        fetch_weights(self.measures, offline=offline)

    def plan(self, scene: Scene) -> Iterator[Piece]:
        """A stage per attack and surrogate.

        Raises:
            UserError: what computes a measure is not installed.
        """
        check_measures(self.measures)
        for sweep in scene.sweeps:
            made = scene.add(
                MeasureStealth(
                    label=f"{sweep.attack} on {scene.name} from {sweep.surrogate}, seed {scene.seed}",
                    task=scene.task,
                    crafted=tuple(Input(key) for key in sweep.crafted),
                    epsilons=sweep.epsilons,
                    measures=tuple(dict.fromkeys(self.measures)),
                    shown=scene.attacked * len(sweep.crafted),
                )
            )
            names: dict[str, str | int | float] = {"task": scene.name, "attack": sweep.attack}
            yield Piece({**names, "surrogate": sweep.surrogate, "seed": scene.seed}, made)

    def rows(self, kept: Artefact) -> Mapping[str, NDArray[Any]]:
        """One per budget and image."""
        import numpy as np

        columns = dict(kept.arrays)
        for measure, reason in kept.info["reasons"].items():
            missing = np.isnan(columns[measure])
            columns[f"{measure}_missing"] = np.where(missing, reason, "").astype(object)
        return columns
