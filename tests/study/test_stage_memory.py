"""What a stage takes of memory is measured, and kept with what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest

from mergerisk.free_memory import forget_peak
from mergerisk.store import Store
from mergerisk.study.executors.attempt import make_artefact
from mergerisk.study.stage import Result
from mergerisk.study.workbench import Compute, Workbench
from tests.study.toy_stages import Toy

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not forget_peak(), reason="the system does not let a peak be measured anew")


@dataclass(frozen=True, kw_only=True)
class Large(Toy):
    """Holds as many bytes as its number says while it runs."""

    kind: ClassVar[str] = "large"

    def run(self, bench: Workbench) -> Result:
        held = np.ones(self.number, np.uint8)
        return Result({"sum": np.array([int(held.sum())])}) if bench else Result({})


def test_a_stages_peak_is_its_own(tmp_path: Path) -> None:
    bench, size = Workbench(Store(tmp_path), Compute()), 2**28
    stages = [Large(label="", number=number) for number in (1, size, 2)]
    for stage in stages:
        make_artefact(stage, bench)
    before, large, after = (bench.store.manifest(stage.key)["provenance"]["peak_bytes"] for stage in stages)
    # What the allocator keeps between stages is far less than what is asked for here.
    assert size // 2 < large - before < 2 * size
    assert size // 2 < large - after
