"""What each kind of stage computes: the only place where the rooms meet the store."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mergerisk import attacks, merging
from mergerisk.finetuning import FineTuning, fine_tune, linear_probe
from mergerisk.merging.catalogue import CORRECTIONS
from mergerisk.models import zero_shot
from mergerisk.models.siblings import read_sibling
from mergerisk.models.stated import stated_from
from mergerisk.provenance import provenance
from mergerisk.randomness import generator
from mergerisk.study.heads import fitting_head, head_of_file, prompt_names
from mergerisk.study.workbench import to_arrays
from mergerisk.tasks import TaskSource, select_balanced
from mergerisk.tasks.converting import stays_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from mergerisk.store import Json, Spooled
    from mergerisk.study.stage import Stage
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


_PORTION = 64
"""Images written to the store at a time."""


@dataclass(frozen=True)
class Result:
    """What a stage keeps; see :meth:`mergerisk.store.Store.put`."""

    arrays: Mapping[str, NDArray[Any]]
    info: Mapping[str, Json] = field(default_factory=dict)
    compressed: tuple[str, ...] = ()
    spooled: Mapping[str, Spooled] = field(default_factory=dict)


def make_artefact(stage: Stage, bench: Workbench) -> float:
    """Run a stage and keep its result; returns the seconds it took.

    Raises:
        UserError: the stage's material is at fault, or the disk is full.
        DamagedArtefactError: an input failed its checksum.
    """
    start = time.perf_counter()
    result = RUNNERS[stage.kind](stage, bench)
    seconds = time.perf_counter() - start
    bench.store.put(
        stage.key,
        result.arrays,
        recipe=stage.recipe,
        info=result.info,
        provenance=provenance(bench.compute.device)
        | {"seconds": seconds, "finished": datetime.now(UTC).isoformat(), "label": stage.label},
        compressed=result.compressed,
        spooled=result.spooled,
    )
    return seconds


def make_task(stage: Stage, bench: Workbench) -> Result:
    """Images, labels and split codes: rendered or read, or decoded a portion at a time straight into the store."""
    source = TaskSource.from_sources(stage.sources).pinned(stage.parameters)
    info: dict[str, Json] = {"name": source.name}
    if not source.streams():
        arrays = source.arrays()
        images = np.asarray(arrays.images)
        info["class_names"] = list(arrays.class_names)
        kept = {"labels": arrays.labels, "split": arrays.split}
        if images.ndim == 4 and images.shape[3] == 3 and stays_bytes(images):
            portions = (images[start : start + _PORTION] for start in range(0, len(images), _PORTION))
            return Result(kept, info, spooled={"images": bench.store.spool(stage.key, portions)})
        return Result({"images": images, **kept}, info)
    stream = source.stream()
    spooled = bench.store.spool(stage.key, stream)
    arrays = stream.arrays(None)
    info |= {
        "class_names": list(arrays.class_names),
        "held_out": True,
        "skipped": [{"file": item.name, "reason": item.reason} for item in arrays.skipped],
    }
    return Result({"labels": arrays.labels, "split": arrays.split}, info, spooled={"images": spooled})


def make_head(stage: Stage, bench: Workbench) -> Result:
    """A linear probe on the pretrained encoder, a head from class names, or one from a file or a classifier."""
    parameters: Any = stage.parameters
    task = bench.task(stage)
    if "zero_shot" in parameters:
        prompts = parameters["zero_shot"]
        names = prompt_names(task.name, task.class_names, prompts["class_names"])
        head = zero_shot(stage.sources["backbone"], names, prompts["templates"], device=bench.compute.device)
    elif "checkpoint" in parameters:
        head = fitting_head(stage.sources["file"], task.name, task.class_names, stage.sources["backbone"])
    elif "file" in parameters:
        head = head_of_file(stage.sources["file"], task.name, task.class_names)
    else:
        head = linear_probe(bench.base(stage), task, regularization=parameters["regularization"])
    return Result(
        {"weight": head.weight.cpu().numpy(), "bias": head.bias.cpu().numpy()}, {"normalize": head.normalize}
    )


def make_expert(stage: Stage, bench: Workbench) -> Result:
    """An expert's state: read, or fine-tuned under the frozen head."""
    parameters: Any = stage.parameters
    base = bench.base(stage)
    if "file" in stage.sources:
        size = stage.sources.get("image_size")
        found = read_sibling(
            base,
            stage.sources["file"],
            image_size=int(size) if size else None,
            preprocessing=stated_from(stage.sources.get("preprocessing")),
        )
        return Result(to_arrays(found.state), {"form": found.form.to_plain()} if found.form else {})
    task, recipe = bench.task(stage), FineTuning(**parameters["fine_tune"])
    expert = fine_tune(base, bench.head(stage), task, recipe=recipe, seed=parameters["seed"])
    steps = math.ceil(len(task.training_split("fine-tuning")) / recipe.batch_size)
    return Result(to_arrays(expert.state()), {"steps_per_epoch": steps})


def make_merge(stage: Stage, bench: Workbench) -> Result:
    """What a merge can be restored from."""
    parameters: Any = stage.parameters
    merged = merging.create(parameters["method"], **parameters["parameters"]).merge(
        bench.base(stage),
        bench.experts(stage),
        calibration=bench.calibration(stage),
        seed=parameters.get("seed", 0),
    )
    coefficients = {name: values.tolist() for name, values in merged.coefficients.items()}
    made_by = {"method": parameters["method"], "parameters": parameters["parameters"]}
    return Result(to_arrays(merged.parts), made_by | {"coefficients": coefficients})


def make_correction(stage: Stage, bench: Workbench) -> Result:
    """The per-task parts of a correction."""
    parameters: Any = stage.parameters
    correction = CORRECTIONS.create(parameters["correction"], parameters["parameters"])
    parts = correction.fit(
        bench.merged(stage, "merge"),
        bench.experts(stage),
        calibration=bench.calibration(stage),
        seed=parameters["seed"],
    )
    return Result(to_arrays(parts), {key: parameters[key] for key in ("correction", "parameters")})


def make_clean(stage: Stage, bench: Workbench) -> Result:
    """Predictions of a group of targets, classifiers × images: on the whole test split, or, if the images are
    limited, on those that are attacked."""
    task = bench.task(stage)
    count: Any = stage.parameters.get("images")
    indices = torch.arange(len(task.test.labels)) if count is None else _attacked(task, count)
    # Not all of them by index: that would be to read them all at once.
    predictions = bench.answers(stage, task.test.images if count is None else task.test.images[indices])
    return Result(
        {
            "predictions": predictions.numpy(),
            "labels": task.test.labels[indices].numpy(),
            "indices": indices.numpy(),
        }
    )


def make_crafted(stage: Stage, bench: Workbench) -> Result:
    """Adversarial images of one attack at one budget, and what crafting them met."""
    parameters: Any = stage.parameters
    task, device, epsilon = bench.task(stage), bench.compute.device, parameters["epsilon"]
    indices = _attacked(task, parameters["images"])
    images, labels = task.test.images[indices], task.test.labels[indices]
    hyperparameters = dict(parameters["parameters"])
    if "attack_file" in stage.sources:  # the key holds its digest
        hyperparameters["file"] = stage.sources["attack_file"]
    crafted = attacks.create(parameters["attack"], **hyperparameters).craft(
        bench.classifier(stage),
        images.to(device),
        labels.to(device),
        epsilon=epsilon,
        norm=parameters["norm"],
        seed=parameters["seed"],
        indices=indices,
        batch_size=bench.compute.batch_size,
        after=parameters["after"],
    )
    # Iterates × images × …, the last iterate last.
    iterates = torch.stack([*crafted.after.values(), crafted.adversarial]).cpu()
    changes = (iterates.double() - images.double()).flatten(2)
    sizes = {"l2": changes.norm(dim=2), "linf": changes.abs().amax(dim=2)}
    assert float(sizes[parameters["norm"]].max()) <= epsilon, "an attack exceeded its budget"
    assert 0.0 <= float(iterates.min()) <= float(iterates.max()) <= 1.0, "an attack left the pixel box"
    aims = torch.full_like(labels, -1) if crafted.targets is None else crafted.targets.cpu()
    return Result(
        {
            "adversarial": iterates.numpy(),
            "indices": indices.numpy(),
            "labels": labels.numpy(),
            "aimed_at": aims.numpy(),
            "zero_gradients": crafted.zero_gradients.cpu().numpy(),
            **{name: size.numpy() for name, size in sizes.items()},
        },
        compressed=("adversarial",),
    )


def _attacked(task: Task, count: int) -> torch.Tensor:
    """Indices of the images that are attacked: the same for every seed, so that outcomes can be paired."""
    return select_balanced(task.test.labels, count, generator(0, "attacked", task.name))


def make_evaluation(stage: Stage, bench: Workbench) -> Result:
    """Predictions of a group of targets on a sweep: classifiers × budgets × iterates × images."""
    roles = sorted(role for role in stage.inputs if role.startswith("crafted/"))
    sets = [bench.arrays(stage.inputs[role])["adversarial"] for role in roles]
    shown = torch.stack(sets)
    predictions = bench.answers(stage, shown.flatten(0, 2))
    return Result({"predictions": predictions.unflatten(1, shown.shape[:3]).numpy()})


RUNNERS: Mapping[str, Callable[[Stage, Workbench], Result]] = {
    "task": make_task,
    "head": make_head,
    "expert": make_expert,
    "merge": make_merge,
    "correct": make_correction,
    "clean": make_clean,
    "craft": make_crafted,
    "evaluate": make_evaluation,
}
"""What runs a stage of each kind."""
