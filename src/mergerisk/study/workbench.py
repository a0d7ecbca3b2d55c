"""What a stage needs at hand: the store's artefacts as tasks, encoders, heads and adapters."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from mergerisk.attacks import Ensemble
from mergerisk.memory import return_freed
from mergerisk.merging import Calibration, LazyExperts, Merged, create
from mergerisk.merging.catalogue import CORRECTIONS
from mergerisk.models import Classifier, Head, load_encoder
from mergerisk.models.checkpoints import Checkpoint
from mergerisk.models.siblings import in_form
from mergerisk.models.stated import of_base, stated_from
from mergerisk.study.black_boxes import make_black_box
from mergerisk.study.query_budget import shared_queries
from mergerisk.study.recent import Recent
from mergerisk.tasks import Skipped, TaskArrays, to_task
from mergerisk.transfer import predict, predict_variants

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from mergerisk.merging import Correction
    from mergerisk.merging.material import Tensors
    from mergerisk.models import Encoder, State
    from mergerisk.store import Artefact, Store
    from mergerisk.study.stage import Stage
    from mergerisk.tasks import Images, Task
    from mergerisk.transfer import BlackBox

_CACHE_BYTES = 256 * 2**20
"""Artefacts kept in memory between stages."""
_MODEL_CACHE_BYTES = 256 * 2**20
"""Models kept in memory between stages: many small ones, or the last one alone."""
_LARGE = 32 * 2**20
"""Models of more bytes do not pass through the cache of artefacts, and are read tensor by tensor."""


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
        self._base = lru_cache(maxsize=2)(self._load_base)
        self._merged: Recent[Merged] = Recent(_MODEL_CACHE_BYTES)
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

    def forget(self) -> None:
        """Keep nothing in memory any more, since what it was read from was damaged."""
        self._artefacts.clear()
        self._base.cache_clear()
        self._task.cache_clear()
        self._merged = Recent(_MODEL_CACHE_BYTES)

    def arrays(self, key: str) -> dict[str, torch.Tensor]:
        """An artefact's payload as CPU tensors."""
        return {name: torch.from_numpy(array) for name, array in self.artefact(key).arrays.items()}

    def base(self, stage: Stage) -> Encoder:
        """The pretrained encoder."""
        return self._base(*_loading(stage))

    def merged(self, stage: Stage, role: str = "encoder") -> Merged:
        """The model of an input, with its correction if the stage has one; the base if it has no such input."""
        if role not in stage.inputs:
            return _alone(self.base(stage))
        base, key, correction = self.base(stage), stage.inputs[role], stage.inputs.get("correction")
        place = (*_loading(stage), key, correction)
        return self._merged.get(place, self._size(key), lambda: self._load_merged(base, key, correction))

    def encoder(self, stage: Stage) -> Encoder:
        """The encoder of the stage's model, for the stage's task."""
        merged = self.merged(stage)
        return merged.encoder_for(str(stage.parameters["task"])) if merged.per_task else merged.encoder

    def classifier(self, stage: Stage) -> nn.Module:
        """The model a stage crafts on: an encoder under the task's head, or an ensemble of such."""
        head = self.head(stage)
        if "members" not in stage.parameters:
            (adapter,) = self.adapters(stage).values()
            return Classifier(self.encoder(stage), head, adapter)
        members: Any = stage.parameters["members"]
        encoders = [self.merged(stage, f"member/{name}").encoder for name in members]
        combine: Any = stage.parameters["combine"]
        return Ensemble([Classifier(encoder, head) for encoder in encoders], combine)

    def answers(self, stage: Stage, images: Images) -> torch.Tensor:
        """What the stage's group of targets says of images (N × 3 × H × W): int64, classifiers × N."""
        size = self.compute.batch_size
        if "black_box" in stage.parameters:
            return self.black_box(stage).predict(images[:])[None]
        if "members" in stage.parameters:
            return predict(self.classifier(stage), images, batch_size=size)[None]
        return predict_variants(
            self.encoder(stage), self.head(stage), self.adapters(stage), images, batch_size=size
        )

    def black_box(self, stage: Stage) -> BlackBox:
        """The target that a stage asks; its queries are counted beside the store's artefacts."""
        spec = json.loads(stage.sources["black_box"])
        queries = None if spec["queries"] is None else shared_queries(self.store.root, spec)
        return make_black_box(spec, str(stage.parameters["task"]), self.task(stage).class_names, queries)

    def task(self, stage: Stage, role: str = "task") -> Task:
        return self._task(stage.inputs[role])

    def head(self, stage: Stage, role: str = "head") -> Head:
        kept = self.artefact(stage.inputs[role])
        arrays = self.arrays(stage.inputs[role])
        return Head(arrays["weight"], arrays["bias"], normalize=kept.info.get("normalize", False))

    def adapters(self, stage: Stage) -> dict[str, nn.Module | None]:
        """The variants of an encoder group for the stage's task, in the group's order."""
        task = str(stage.parameters["task"])
        variants: dict[str, nn.Module | None] = {"": None} if stage.parameters["plain"] else {}
        for role in sorted(role for role in stage.inputs if role.startswith("adapters/")):
            corrected = self._correct(self.merged(stage), stage.inputs[role])
            variants[role] = corrected.adapters[task].to(self.compute.device)
        return variants

    def experts(self, stage: Stage) -> LazyExperts:
        """Every ingredient, in the recipe's order; large ones are read from the store at every access."""
        self._merged.make_room()  # a large model of an earlier stage would be one too many
        return LazyExperts(
            self.base(stage), {task: self._parts(stage.inputs[f"expert/{task}"]) for task in _order(stage)}
        )

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

    def _load_base(self, backbone: str, image_size: str | None, preprocessing: str | None) -> Encoder:
        encoder = load_encoder(
            backbone,
            image_size=int(image_size) if image_size else None,
            preprocessing=of_base(stated_from(preprocessing)),
        )
        return encoder.to(self.compute.device)

    def _load_merged(self, base: Encoder, key: str, correction: str | None = None) -> Merged:
        parts = {name: tensor.to(self.compute.device) for name, tensor in self._parts(key).items()}
        info = self.store.manifest(key)["info"]
        if "method" in info:
            merged = create(info["method"], **info["parameters"]).restore(base, parts)
        else:  # an expert, or a model made elsewhere
            merged = _alone((in_form(base, info["form"]) if "form" in info else base).with_state(parts))
        return merged if correction is None else self._correct(merged, correction)

    def _size(self, key: str) -> int:
        """Bytes of a model's tensors; 0 if there is none, which is found when it is read."""
        file = self.store.tensors(key)
        return file.stat().st_size if file.is_file() else 0

    def _parts(self, key: str) -> Tensors:
        """A model's tensors, checked; in memory if they are small."""
        if self._size(key) <= _LARGE:
            return self.arrays(key)
        return_freed()
        self.store.verify(key)
        return Checkpoint(self.store.tensors(key))

    def _correct(self, merged: Merged, key: str) -> Merged:
        info = self.artefact(key).info
        method: Correction = CORRECTIONS.create(info["correction"], info["parameters"])
        return method.apply(merged, self.arrays(key))

    def _load_task(self, key: str) -> Task:
        artefact = self.artefact(key)
        arrays, info = artefact.arrays, artefact.info
        return to_task(
            info["name"],
            TaskArrays(
                artefact.rows["images"] if "images" in artefact.rows else arrays["images"],
                arrays["labels"],
                arrays["split"],
                tuple(info["class_names"]),
                held_out=info.get("held_out", False),
                skipped=tuple(Skipped(item["file"], item["reason"]) for item in info.get("skipped", ())),
            ),
        )


def _loading(stage: Stage) -> tuple[str, str | None, str | None]:
    """How a stage's base is loaded, in the words of its sources."""
    return stage.sources["backbone"], stage.sources.get("image_size"), stage.sources.get("preprocessing")


def _alone(encoder: Encoder) -> Merged:
    """An encoder that was not merged, as a merge of one."""
    return Merged(encoder, encoder.state())


def to_arrays(state: State) -> dict[str, Any]:
    """A state as arrays for the store."""
    return {name: tensor.cpu().numpy() for name, tensor in state.items()}


def _order(stage: Stage) -> list[str]:
    order: Any = stage.parameters["order"]
    return list(order)
