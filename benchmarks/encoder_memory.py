"""Peak memory and seconds of a study's merges of CLIP ViT-B/32 vision encoders (87 M parameters, 350 MB each).

    python benchmarks/encoder_memory.py                       # the paper study's eight merged models
    python benchmarks/encoder_memory.py fisher emr --steps 1  # other methods

Base and seven experts have random weights: nothing is downloaded, and nothing but memory and time is meant. One
process writes them, and seven tasks of a few images at 224 px, to a store in a temporary folder (about 6 GB with
the merges; ``--folder`` says where). A fresh one runs the stages of a study in it: every merge, its correction,
and every merged model's predictions. *Peak* is the resident size at most during a stage, interpreter and PyTorch
included; *above* what a fresh process has with the libraries loaded, in encoders.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from mergerisk.merging.catalogue import METHODS, split_name
from mergerisk.models import Encoder
from mergerisk.store import Store
from mergerisk.study.backbone import Backbone
from mergerisk.study.calibrating import CalibrationData
from mergerisk.study.executors.attempt import make_artefact
from mergerisk.study.kinds.arrays import to_arrays
from mergerisk.study.kinds.clean import Clean
from mergerisk.study.kinds.correct import Correct
from mergerisk.study.kinds.file_head import FileHead
from mergerisk.study.kinds.given_model import GivenModel
from mergerisk.study.kinds.load_task import LoadTask
from mergerisk.study.kinds.merge import Merge
from mergerisk.study.variants.encoders import EncoderVariant
from mergerisk.study.workbench import Compute, Workbench
from mergerisk.tasks import task_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from mergerisk.study.stage import Stage

TASKS = tuple(f"task {number}" for number in range(1, 8))
PAPER = tuple(
    name + correction
    for name in ("weight_averaging", "task_arithmetic", "ties", "adamerging")
    for correction in ("", "+surgery")
)
CLASSES = 10
SIDE = 224
BACKBONE = Backbone("CLIP ViT-B/32, random", "CLIP ViT-B/32, random")


def clip(state: dict[str, torch.Tensor] | None = None) -> Encoder:
    """CLIP's ViT-B/32 vision tower with its pooled output: ``state``'s, or random weights of a fixed seed."""
    with torch.device("cpu" if state is None else "meta"):
        torch.manual_seed(0)
        backbone = CLIPVisionModel(CLIPVisionConfig(patch_size=32))

    def features(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = model(pixel_values=pixels).pooler_output
        return pooled

    encoder = Encoder(backbone, width=768, image_size=SIDE, mean=(0.48,) * 3, std=(0.27,) * 3, features=features)
    if state is not None:
        backbone.load_state_dict(state, assign=True)
        for name, buffer in list(backbone.named_buffers()):  # positions, which are no part of the state
            module = backbone.get_submodule(name.rpartition(".")[0])
            module.register_buffer(
                "position_ids", torch.arange(buffer.numel()).view(buffer.shape), persistent=False
            )
    return encoder.requires_grad_(False).eval()


class ClipBench(Workbench):
    """A workbench whose backbone is the random CLIP in its store."""

    def base(self, backbone: Backbone) -> Encoder:
        return self._base(backbone.name, None, None)

    def _load_base(self, *_: object) -> Encoder:
        return clip({name: torch.from_numpy(array) for name, array in self.store.get(BASE.key).arrays.items()})


def expert(name: str) -> GivenModel:
    """The base, or a task's expert."""
    return GivenModel(label=name, backbone=BACKBONE, identity={"is": name}, file="")


BASE = expert("base")


def task_stage(task: str) -> LoadTask:
    return LoadTask(label=task, identity={"task": task}, source=task_source("digits"))


def head_stage(task: str) -> FileHead:
    return FileHead(label=task, task=task_stage(task).result, digest=task, file="")


def prepare(folder: Path) -> None:
    """Write base, experts, tasks and heads."""
    store = Store(folder)
    base = clip()
    store.put(BASE.key, to_arrays(base.state()), recipe=BASE.recipe)
    print(f"{sum(tensor.numel() for tensor in base.state().values()) / 1e6:.1f} M parameters")
    for number, task in enumerate(TASKS):
        draws = torch.Generator().manual_seed(number)
        state = {
            name: tensor + torch.randn(tensor.shape, generator=draws) * 1e-3
            for name, tensor in base.state().items()
        }
        store.put(expert(task).key, to_arrays(state), recipe=expert(task).recipe)
        random = np.random.default_rng(number)
        arrays: dict[str, Any] = {
            "images": random.integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8),
            "labels": np.arange(24) % CLASSES,
            "split": np.arange(24) // 2 % 3,
        }
        info = {"name": task, "class_names": [str(label) for label in range(CLASSES)]}
        stage = task_stage(task)
        store.put(stage.key, arrays, recipe=stage.recipe, info=info)
        weight = random.normal(size=(CLASSES, 768)).astype(np.float32)
        head = head_stage(task)
        arrays = {"weight": weight, "bias": np.zeros(CLASSES, dtype=np.float32)}
        store.put(head.key, arrays, recipe=head.recipe)


def stages(name: str, steps: int) -> list[Stage]:
    """A merge, its correction if it has one, and its predictions for two of the tasks."""
    method, correction = split_name(name)
    experts = {task: expert(task).result for task in TASKS}
    tasks = {task: task_stage(task).result for task in TASKS}
    data = CalibrationData(split="held_out", tasks=tasks, heads={task: head_stage(task).result for task in TASKS})
    few: dict[str, dict[str, Any]] = {
        "adamerging": {"steps": steps, "batches": 1, "batch_size": 2},
        "adamerging_plus_plus": {"steps": steps, "batches": 1, "batch_size": 2},
        "we_moe": {"steps": steps, "batch_size": 2},
        "fisher": {"examples": 2, "classes": "sampled"},
        "surgery_v2": {"steps": steps, "batch_size": 2},
    }
    reads = METHODS.load(method).needs_calibration
    merge = Merge(
        label=name,
        backbone=BACKBONE,
        method=method,
        parameters=few.get(method, {}),
        ingredients=experts,
        calibration=data if reads else None,
        seed=0 if reads else None,
        images={},
    )
    found: list[Stage] = [merge]
    inside = adapter = None
    if correction is not None:
        correct = Correct(
            label=name,
            backbone=BACKBONE,
            correction=correction,
            parameters=few.get(correction, {"steps": 50}),
            merge=merge.result,
            ingredients=experts,
            calibration=data,
            seed=0,
            images={},
        )
        found.append(correct)
        inside, adapter = (correct.result, None) if correction == "surgery_v2" else (None, correct.result)
    for task in TASKS[:2]:
        adapters = (None,) if adapter is None else (None, adapter)
        target = EncoderVariant(
            columns={name: len(adapters) - 1},
            task=task,
            head=head_stage(task).result,
            backbone=BACKBONE,
            encoder=merge.result,
            inside=inside,
            adapters=adapters,
        )
        found.append(Clean(label=task, task=tasks[task], target=target, images=None, shown=0))
    return found


def resident(which: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at most since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def measure(folder: Path, names: Sequence[str], steps: int, batch_size: int) -> None:
    """Run every stage that is not yet in the store, and print what it took."""
    torch.set_num_threads(2)
    store = Store(folder)
    bench = ClipBench(store, Compute(batch_size=batch_size))
    size = store.tensors(BASE.key).stat().st_size
    fresh, peak = resident("VmRSS"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{'':26} {'stage':8} {'peak':>10} {'above':>14} {'seconds':>8}")
    print(f"{'libraries':26} {'':8} {peak / 2**30:6.2f} GiB")
    for name in names:
        for stage in stages(name, steps):
            if store.has(stage.key):
                continue
            Path("/proc/self/clear_refs").write_text("5")
            start = time.perf_counter()
            make_artefact(stage, bench)
            seconds, most = time.perf_counter() - start, resident("VmHWM")
            peak = max(peak, most)
            figures = f"{most / 2**30:6.2f} GiB {(most - fresh) / size:5.1f} encoders {seconds:8.1f}"
            print(f"{name:26} {stage.kind:8} {figures}", flush=True)
    print(f"{'overall':26} {'':8} {peak / 2**30:6.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=PAPER)
    parser.add_argument("--steps", type=int, default=2, help="of methods that learn, on 1 × 2 images per task")
    parser.add_argument("--batch-size", type=int, default=8, help="images at a time in predictions")
    parser.add_argument("--folder", type=Path, help="where the temporary store is made")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        kind, folder = options.case
        if kind == "prepare":
            prepare(Path(folder))
        else:
            measure(Path(folder), options.methods, options.steps, options.batch_size)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        script = [sys.executable, __file__, *options.methods, "--steps", str(options.steps)]
        script += ["--batch-size", str(options.batch_size), "--case"]
        environment = os.environ | {"OMP_NUM_THREADS": "2"}
        for kind in ("prepare", "measure"):
            subprocess.run([*script, kind, folder], check=True, env=environment)


if __name__ == "__main__":
    main()
