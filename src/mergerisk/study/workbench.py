"""What a stage needs at hand: the store's artefacts as tasks, encoders, heads and adapters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch

from mergerisk.attacks.known import KnownGradients
from mergerisk.free_memory import resident_memory
from mergerisk.memory import live_bytes, return_freed
from mergerisk.merging import Calibration, LazyExperts, Merged, create
from mergerisk.merging.catalogue import CORRECTIONS
from mergerisk.models import Head, load_encoder
from mergerisk.models.core.stated import of_base
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.sources.siblings import in_form
from mergerisk.study.differences import CHANGE, decoded
from mergerisk.study.recent import Recent
from mergerisk.tasks import Skipped, TaskArrays, to_task

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from mergerisk.memory import Measure
    from mergerisk.merging import Correction
    from mergerisk.merging.material import Tensors
    from mergerisk.models import Encoder, State
    from mergerisk.models.core.stated import StatedPreprocessing
    from mergerisk.store import Artefact, Store
    from mergerisk.store.artefacts import Arrays
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.calibrating import CalibrationData
    from mergerisk.study.keyed import Input, Keyed
    from mergerisk.tasks import Task

_CACHE_BYTES = 256 * 2**20
"""Artefacts kept in memory between stages; and as much of crafted images, whole."""
_MODEL_CACHE_BYTES = 256 * 2**20
"""Models kept in memory between stages: many small ones, or the last one alone."""
_GRADIENT_BYTES = 128 * 2**20
"""Gradients kept in memory between stages that craft on one model."""
_LARGE = 32 * 2**20
"""Models of more bytes do not pass through the cache of artefacts, and are read tensor by tensor."""
_FREED = 2**30
"""Bytes that a process may grow by before it gives back what stages have freed."""


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
        self._artefacts: Recent[Artefact] = Recent(_CACHE_BYTES)
        self._crafted: Recent[Arrays] = Recent(_CACHE_BYTES)
        self._base = lru_cache(maxsize=2)(self._load_base)
        self._merged: Recent[Merged] = Recent(_MODEL_CACHE_BYTES)
        self._task = lru_cache(maxsize=8)(self._load_task)
        self._gradients: tuple[Keyed | None, KnownGradients] = (None, KnownGradients(0))
        self._image_bytes: dict[Hashable, int] = {}
        self.begun = self._settled = resident_memory() or 0
        """Bytes that the process held before."""

    def artefact(self, key: str) -> Artefact:
        """From memory or from the store; see :meth:`mergerisk.store.Store.get`."""
        return self._artefacts.get(key, _bytes, lambda: self.store.get(key))

    def forget(self) -> None:
        """Keep nothing in memory any more, since what it was read from was damaged."""
        self._artefacts = Recent(_CACHE_BYTES)
        self._crafted = Recent(_CACHE_BYTES)
        self._base.cache_clear()
        self._task.cache_clear()
        self._merged = Recent(_MODEL_CACHE_BYTES)
        self._gradients = (None, KnownGradients(0))

    def tidy(self) -> None:
        """Between stages: give memory that was freed back to the system, once it is much.

        Models and batches of all sizes take turns, and pieces of the C library's heap that fit nothing add up:
        over hundreds of stages to gigabytes.
        """
        held = resident_memory() or 0
        if held > self._settled + _FREED:
            return_freed()
            self._settled = resident_memory() or 0

    def arrays(self, key: str) -> dict[str, torch.Tensor]:
        """An artefact's payload as CPU tensors."""
        return {name: torch.from_numpy(array) for name, array in self.artefact(key).arrays.items()}

    def crafted(self, key: str) -> dict[str, torch.Tensor]:
        """What a ``craft`` stage keeps, with its images whole: ``adversarial``, iterates × N × 3 × H × W."""
        arrays = self._crafted.get(key, _nbytes, lambda: self._load_crafted(key))
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def gradients(self, model: Keyed) -> KnownGradients:
        """What is known of the model that is crafted on, which says the same each time: stages that craft on one
        come one after another, and begin with the same gradients."""
        if self._gradients[0] != model:
            self._gradients = (model, KnownGradients(_GRADIENT_BYTES))
        return self._gradients[1]

    def image_bytes(self, model: Hashable) -> Measure:
        """Measures what one image takes of a model, and of the same model only once.

        Args:
            model: tells it, and the size of its images, from others.
        """

        def measured(work: Callable[[], object]) -> int:
            if model not in self._image_bytes:
                self._image_bytes[model] = live_bytes(work)
            return self._image_bytes[model]

        return measured

    def base(self, backbone: Backbone) -> Encoder:
        """The pretrained encoder."""
        return self._base(backbone.name, backbone.image_size, backbone.preprocessing)

    def model(
        self, backbone: Backbone, state: Input[State] | None = None, inside: Input[Tensors] | None = None
    ) -> Merged:
        """A model of the backbone's architecture.

        Args:
            backbone: see there.
            state: of its encoder, whether it was merged or not; None for the pretrained one.
            inside: a correction of its encoder.
        """
        base = self.base(backbone)
        if state is None:
            return _alone(base)
        place = (backbone.name, backbone.image_size, backbone.preprocessing, state, inside)
        return self._merged.get(place, self._size(state.key), lambda: self._load_merged(base, state, inside))

    def corrected(self, merged: Merged, correction: Input[Tensors]) -> Merged:
        """A merge with a correction of it."""
        info = self.artefact(correction.key).info
        method: Correction = CORRECTIONS.create(info["correction"], info["parameters"])
        return method.apply(merged, self.arrays(correction.key))

    def task(self, made: Input[Task]) -> Task:
        """The task that a stage keeps."""
        return self._task(made.key)

    def head(self, made: Input[Head]) -> Head:
        """The linear layer that a stage keeps, as CPU tensors."""
        kept, arrays = self.artefact(made.key), self.arrays(made.key)
        return Head(arrays["weight"], arrays["bias"], normalize=kept.info.get("normalize", False))

    def experts(self, backbone: Backbone, ingredients: Mapping[str, Input[State]]) -> LazyExperts:
        """Every ingredient, in the recipe's order; large ones are read from the store at every access."""
        self._merged.make_room()  # a large model of an earlier stage would be one too many
        parts = {name: self._parts(made.key) for name, made in ingredients.items()}
        return LazyExperts(self.base(backbone), parts)

    def calibration(self, data: CalibrationData | None) -> Mapping[str, Calibration] | None:
        """What data-driven methods may read."""
        if data is None:
            return None
        found = {}
        for name, made in data.tasks.items():
            task = self.task(made)
            split = task.test if data.split == "test" else task.calibration
            found[name] = Calibration(split.images, self.head(data.heads[name]))
        return found

    def _load_base(
        self, name: str, image_size: int | None, preprocessing: StatedPreprocessing | Literal["base"] | None
    ) -> Encoder:
        encoder = load_encoder(name, image_size=image_size, preprocessing=of_base(preprocessing))
        return encoder.to(self.compute.device)

    def _load_merged(self, base: Encoder, state: Input[State], inside: Input[Tensors] | None) -> Merged:
        """A merge, restored by the method that made it; or an expert or given model, as a merge of one."""
        parts = {name: tensor.to(self.compute.device) for name, tensor in self._parts(state.key).items()}
        info = self.store.manifest(state.key)["info"]
        if "method" in info:
            merged = create(info["method"], **info["parameters"]).restore(base, parts)
        else:  # an expert, or a model made elsewhere
            merged = _alone((in_form(base, info["form"]) if "form" in info else base).with_state(parts))
        return merged if inside is None else self.corrected(merged, inside)

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

    def _load_crafted(self, key: str) -> Arrays:
        arrays = self.store.get(key).arrays
        if CHANGE not in arrays:
            return arrays
        task = self._task(self.store.manifest(key)["recipe"]["inputs"]["task"])
        clean = task.test.images[torch.from_numpy(arrays["indices"])].numpy()
        whole = decoded(arrays, clean)
        del arrays[CHANGE]  # as large again, and of no more use
        return {**arrays, "adversarial": whole}

    def _load_task(self, key: str) -> Task:
        """A task from the store; images that are kept in rows stay on disk until they are asked for."""
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


def _bytes(artefact: Artefact) -> int:
    """Of its payload."""
    return _nbytes(artefact.arrays)


def _nbytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


def _alone(encoder: Encoder) -> Merged:
    """An encoder that was not merged, as a merge of one."""
    return Merged(encoder, encoder.state())
