"""What a stage needs at hand: the store's artefacts as tasks, encoders, heads and adapters."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from mergerisk.merging import Calibration, SurgeryAdapter
from mergerisk.models import Head, load_encoder
from mergerisk.tasks import TaskArrays, to_task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from mergerisk.models import Encoder, State
    from mergerisk.store import Artefact, Store
    from mergerisk.study.planning import Stage
    from mergerisk.tasks import Task

_CACHE_BYTES = 256 * 2**20
"""Artefacts kept in memory between stages."""


@dataclass(frozen=True)
class Compute:
    """Where and in what portions a stage computes; never part of a key.

    Attributes:
        device: torch device.
        batch_size: images at a time.
    """

    device: str = "cpu"
    batch_size: int = 128


class Workbench:
    """Reads inputs from a store, keeping what neighbouring stages share.

    Args:
        store: where artefacts are.
        compute: where encoders are put.
    """

    def __init__(self, store: Store, compute: Compute) -> None:
        self.store = store
        self.compute = compute
        self._artefacts: OrderedDict[str, Artefact] = OrderedDict()
        self._base = lru_cache(maxsize=1)(self._load_base)
        self._encoder = lru_cache(maxsize=4)(self._load_encoder)
        self._task = lru_cache(maxsize=8)(self._load_task)

    def artefact(self, key: str) -> Artefact:
        """From memory or from the store; see :meth:`mergerisk.store.Store.get`."""
        if key not in self._artefacts:
            self._artefacts[key] = self.store.get(key)
        self._artefacts.move_to_end(key)
        sizes = {k: sum(a.nbytes for a in v.arrays.values()) for k, v in self._artefacts.items()}
        while sum(sizes.values()) > _CACHE_BYTES and len(self._artefacts) > 1:
            oldest, _ = self._artefacts.popitem(last=False)
            del sizes[oldest]
        return self._artefacts[key]

    def arrays(self, key: str) -> dict[str, torch.Tensor]:
        """An artefact's payload as CPU tensors."""
        return {name: torch.from_numpy(array) for name, array in self.artefact(key).arrays.items()}

    def base(self, stage: Stage) -> Encoder:
        """The pretrained encoder."""
        return self._base(stage.sources["backbone"])

    def encoder(self, stage: Stage, role: str = "encoder") -> Encoder:
        """The encoder of an input; the pretrained one if the stage has no such input."""
        if role not in stage.inputs:
            return self.base(stage)
        return self._encoder(stage.sources["backbone"], stage.inputs[role])

    def task(self, stage: Stage, role: str = "task") -> Task:
        return self._task(stage.inputs[role])

    def head(self, stage: Stage, role: str = "head") -> Head:
        arrays = self.arrays(stage.inputs[role])
        return Head(arrays["weight"], arrays["bias"])

    def adapters(self, stage: Stage) -> dict[str, nn.Module | None]:
        """The variants of an encoder group for the stage's task, in the group's order."""
        task = stage.parameters["task"]
        variants: dict[str, nn.Module | None] = {"": None} if stage.parameters["plain"] else {}
        for role in sorted(role for role in stage.inputs if role.startswith("adapters/")):
            arrays = self.arrays(stage.inputs[role])
            adapter = SurgeryAdapter(arrays[f"{task}/down"], arrays[f"{task}/up"])
            variants[role] = adapter.requires_grad_(False).to(self.compute.device)
        return variants

    def experts(self, stage: Stage) -> dict[str, Encoder]:
        """Every ingredient, in the recipe's order."""
        # Not through the cache: a merge needs each of them once.
        return {
            task: self._load_encoder(stage.sources["backbone"], stage.inputs[f"expert/{task}"])
            for task in _order(stage)
        }

    def calibration(self, stage: Stage) -> Mapping[str, Calibration] | None:
        """What data-driven methods may read; None if the stage has no such inputs."""
        if "calibration" not in stage.parameters:
            return None
        found = {}
        for task in _order(stage):
            loaded = self.task(stage, f"task/{task}")
            split = loaded.test if stage.parameters["calibration"] == "test" else loaded.calibration
            found[task] = Calibration(split.images, self.head(stage, f"head/{task}"))
        return found

    def _load_base(self, backbone: str) -> Encoder:
        return load_encoder(backbone).to(self.compute.device)

    def _load_encoder(self, backbone: str, key: str) -> Encoder:
        device = self.compute.device
        state = {name: tensor.to(device) for name, tensor in self.arrays(key).items()}
        return self._base(backbone).with_state(state)

    def _load_task(self, key: str) -> Task:
        artefact = self.artefact(key)
        arrays, info = artefact.arrays, artefact.info
        return to_task(
            info["name"],
            TaskArrays(arrays["images"], arrays["labels"], arrays["split"], tuple(info["class_names"])),
        )


def to_arrays(state: State) -> dict[str, Any]:
    """A state as arrays for the store."""
    return {name: tensor.cpu().numpy() for name, tensor in state.items()}


def _order(stage: Stage) -> list[str]:
    order: Any = stage.parameters["order"]
    return list(order)
