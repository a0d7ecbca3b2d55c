"""CPU time and memory of merging seven random ViT-B/32 vision encoders (87 M parameters, fp32).

    python benchmarks/merging.py                                  # every method below
    python benchmarks/merging.py ties tsv_m --peer PYTHON         # and FusionBench, in the environment of PYTHON
    python benchmarks/merging.py weight_averaging ties pcb --disk # `mergerisk merge`, against mere copying

Each case runs in a process of its own. *CPU* is user and system time of all threads; *added memory* the peak
resident size above what base and experts take. On disk it is the peak of the whole process, the interpreter with
PyTorch and all it ever held included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

EXPERTS = 7
METHODS = ("weight_averaging", "task_arithmetic", "ties", "tsv_m", "iso_c")


def vit_b_32() -> dict[str, tuple[int, ...]]:
    """Tensor shapes of CLIP's ViT-B/32 vision encoder."""
    width, hidden = 768, 3072
    shapes: dict[str, tuple[int, ...]] = {
        "class_embedding": (width,),
        "patch_embedding.weight": (width, 3, 32, 32),
        "position_embedding.weight": (50, width),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for layer in range(12):
        linear = {f"self_attn.{name}_proj": (width, width) for name in "qkv"}
        linear |= {"self_attn.out_proj": (width, width), "mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        for name, shape in linear.items():
            shapes |= {f"layers.{layer}.{name}.weight": shape, f"layers.{layer}.{name}.bias": shape[:1]}
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"layers.{layer}.{name}.weight": (width,), f"layers.{layer}.{name}.bias": (width,)}
    return shapes


def random_states(experts: int = EXPERTS) -> list[dict[str, torch.Tensor]]:
    """A base, and experts a little away from it."""
    import torch

    draws = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=draws) * 0.02 for name, shape in vit_b_32().items()}
    tuned = [
        {
            name: torch.empty_like(tensor).normal_(0, 0.001, generator=draws).add_(tensor)
            for name, tensor in base.items()
        }
        for _ in range(experts)
    ]
    return [base, *tuned]


def resident(which: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at most since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of wall and CPU time, and peak memory added."""
    Path("/proc/self/clear_refs").write_text("5")
    before, start, clock = resident("VmRSS"), resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    wall, end = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF)
    cpu = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    return {"wall": wall, "cpu": cpu, "added": resident("VmHWM") - before}


def ours(method: str) -> dict[str, float]:
    """Merge in memory with this package."""
    from mergerisk import merging

    base, *experts = random_states()
    merging.merge_state_dicts(method, {"w": base["class_embedding"]}, [{"w": experts[0]["class_embedding"]}] * 2)
    return measure(lambda: merging.merge_state_dicts(method, base, experts))


def fusion_bench(method: str) -> dict[str, float]:
    """Merge in memory with FusionBench's functions on state dicts."""
    from fusion_bench.utils import state_dict_arithmetic as arithmetic

    base, *experts = random_states()

    def vectors() -> list[Any]:
        return [arithmetic.state_dict_sub(expert, base) for expert in experts]

    def averaging() -> Any:
        return arithmetic.state_dict_avg(experts)

    def task_arithmetic() -> Any:
        total = arithmetic.state_dict_sum(vectors())
        return arithmetic.state_dict_add(base, arithmetic.state_dict_mul(total, 0.3))

    def ties() -> Any:
        from fusion_bench.method.ties_merging import ties_merging_utils as utils

        start = utils.state_dict_to_vector(base, [])
        tuned = utils.torch.vstack([utils.state_dict_to_vector(expert, []) for expert in experts])
        merged = utils.ties_merging(tuned - start, reset_thresh=20, merge_func="sum")
        return utils.vector_to_state_dict(start + 0.3 * merged, base, remove_keys=[])

    def tsv_m() -> Any:
        from fusion_bench.method.task_singular_vector.utils import TSVM_utils

        return arithmetic.state_dict_add(
            base, TSVM_utils.compute_and_sum_svd_mem_reduction(vectors(), accelerator="cpu")
        )

    def iso_c() -> Any:
        from fusion_bench.method.isotropic_merging import iso_utils

        return arithmetic.state_dict_add(base, iso_utils.iso_c(vectors(), accelerator="cpu"))

    work = {
        "weight_averaging": averaging,
        "task_arithmetic": task_arithmetic,
        "ties": ties,
        "tsv_m": tsv_m,
        "iso_c": iso_c,
    }
    return measure(work[method]) if method in work else {}


def reading_and_writing() -> dict[str, float]:
    """The least that a merge in memory could do: read every input once, and write one result."""
    import torch

    torch.set_num_threads(1)
    base, *experts = random_states()

    def work() -> list[torch.Tensor]:
        for state in experts:
            for tensor in state.values():
                tensor.sum()
        return [tensor.clone() for tensor in base.values()]

    return measure(work)


def saved_states(folder: Path, experts: int) -> list[Path]:
    """A base and experts as transformers would save them."""
    from safetensors.torch import save_file

    paths = []
    for position, state in enumerate(random_states(experts)):
        paths.append(folder / str(position))
        paths[-1].mkdir()
        save_file(state, paths[-1] / "model.safetensors", metadata={"format": "pt"})
        (paths[-1] / "config.json").write_text(json.dumps({"model_type": "clip_vision_model"}))
    return paths


def on_disk(method: str, folder: Path) -> dict[str, float]:
    """What ``mergerisk merge`` takes for the checkpoints in ``folder``."""
    base, *experts = sorted(path for path in folder.iterdir() if path.name.isdigit())
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({"base": str(base), "experts": [str(e) for e in experts], "method": method}))
    arguments = ["-m", "mergerisk", "merge", str(recipe), "--out", str(folder / "merged"), "--force"]
    whole([sys.executable, *arguments])  # brings the files into the system's cache
    return whole([sys.executable, *arguments])


def whole(arguments: Sequence[str]) -> dict[str, float]:
    """Seconds of wall and CPU time, and peak memory, of a process from its start to its end.

    This process has to be small: where the other starts as a copy of it, its peak counts as the other's.
    """
    start = time.perf_counter()
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    wall = time.perf_counter() - start
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": 1024 * used.ru_maxrss}


def copying(folder: Path) -> dict[str, float]:
    """Reading every input once, and writing a file as large as the output safely to disk."""
    paths = sorted(folder.glob("[0-9]*/model.safetensors"))

    def work() -> None:
        for path in paths:
            with path.open("rb") as file:
                while file.read(2**20):
                    pass
        block = bytes(2**20)
        with (folder / "copy").open("wb") as file:
            for _ in range(paths[0].stat().st_size // len(block) + 1):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())

    work()
    return measure(work)


def compare_on_disk(methods: Sequence[str]) -> None:
    """Each method from disk to disk, with two experts and with all; and the least any program could do."""
    for experts in (2, EXPERTS):
        for method in methods:
            with tempfile.TemporaryDirectory() as name:
                script = [sys.executable, __file__, "--experts", str(experts), "--case"]
                subprocess.run([*script, "save", name], check=True)
                show(method, f"{experts} experts", case(sys.executable, f"disk:{name}", method))
                show("", "mere copying", case(sys.executable, f"copy:{name}", method))


def case(python: str, kind: str, method: str) -> dict[str, float]:
    """Run one case in a process of its own."""
    result = subprocess.run(
        [python, __file__, "--case", kind, method], stdout=subprocess.PIPE, text=True, check=False
    )
    if result.returncode != 0:
        return {}
    answer: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return answer


def show(method: str, who: str, figures: dict[str, float]) -> None:
    if not figures:
        print(f"{method:18} {who:14} no figure: killed for memory, not installed, or no counterpart")
        return
    memory = (
        f"{figures['added'] / 2**30:7.2f} GiB added"
        if "added" in figures
        else f"{figures['peak'] / 2**20:7.0f} MiB at most"
    )
    print(
        f"{method:18} {who:14} {figures['cpu']:8.2f} s CPU {figures['wall']:8.2f} s wall {memory}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter of an environment with fusion-bench")
    parser.add_argument("--disk", action="store_true", help="from disk to disk")
    parser.add_argument("--experts", type=int, default=EXPERTS, help=argparse.SUPPRESS)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        kind, _, folder = options.case[0].partition(":")
        method = options.case[1]
        if kind == "save":
            saved_states(Path(method), options.experts)
            return
        cases: dict[str, Callable[[], dict[str, float]]] = {
            "ours": lambda: ours(method),
            "fusion_bench": lambda: fusion_bench(method),
            "limit": reading_and_writing,
            "disk": lambda: on_disk(method, Path(folder)),
            "copy": lambda: copying(Path(folder)),
        }
        print(json.dumps(cases[kind]()))
        return
    if options.disk:
        compare_on_disk(options.methods)
        return
    show("", "mere reading", case(sys.executable, "limit", ""))
    for method in options.methods:
        show(method, "mergerisk", case(sys.executable, "ours", method))
        if options.peer:
            show(method, "FusionBench", case(options.peer, "fusion_bench", method))


if __name__ == "__main__":
    main()
