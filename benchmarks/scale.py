"""What the paper's study costs with all methods, attacks and budgets on 1, 8, 64 GPUs, and where more gain little.

    python benchmarks/scale.py
    python benchmarks/scale.py --reads    # only how often models are read to be evaluated

Counts are of plans; nothing is downloaded or computed but the speed of a ViT-B/32 with random weights on one core,
in processor time. A GPU's is assumed: 20 TFLOP/s, of 8.8 GFLOP a forward pass and 2.5 times that a gradient.
"""

from __future__ import annotations

import argparse
import heapq
import time
from typing import TYPE_CHECKING

import torch
from transformers import ViTConfig, ViTModel

from mergerisk.attacks.catalogue import ATTACKS
from mergerisk.merging.catalogue import METHODS
from mergerisk.study import load_study, make_plan
from mergerisk.study.executors.scheduler import Scheduler
from mergerisk.study.fields.named import AttackSpec, MethodSpec
from mergerisk.study.resolving import resolve
from mergerisk.study.spans import span, spans
from mergerisk.study.stage import COSTS
from mergerisk.study.timing import Speeds
from mergerisk.threads import one_thread

if TYPE_CHECKING:
    from mergerisk.study import Plan
    from mergerisk.study.stage import Stage

FLOPS, PASS = 20e12, 8.8e9
BUDGETS = tuple(number / 255 for number in (1, 2, 4, 8, 12, 16))


def core_speeds() -> Speeds:
    """Images of 224 × 224 in a second of one core's processor time."""
    model = ViTModel(ViTConfig(patch_size=32), add_pooling_layer=False).eval().requires_grad_(False)
    images = torch.rand(4, 3, 224, 224)

    def forward() -> None:
        with torch.no_grad():
            model(pixel_values=images)

    def gradient() -> None:
        leaf = images.clone().requires_grad_()
        torch.autograd.grad(model(pixel_values=leaf).last_hidden_state.sum(), leaf)

    def rate(work: object) -> float:
        assert callable(work)
        work()
        start = time.process_time()
        work()
        work()
        return 2 * len(images) / (time.process_time() - start)

    with one_thread():
        found = {"forward": rate(forward), "gradient": rate(gradient)}
    return Speeds(found | {"training": found["gradient"] * COSTS["gradient"] / COSTS["training"]}, "one core")


def plans() -> dict[str, Plan]:
    """A study of the paper's size, and with all that there is in it. Planned on the starter suite, whose seven
    tasks need no hub: as many images are attacked; its experts are trained, and it has fewer images for clean
    accuracy, which is a percent or so of all."""
    paper, starter = load_study("paper", resolve=False, files=False), load_study("starter", resolve=False)
    same = ("merging", "attacks", "budgets", "surrogates", "images_per_task", "calibration")
    study = starter.model_copy(update={name: getattr(paper, name) for name in same})
    methods = [MethodSpec.model_validate(name) for name in METHODS.names() if name != "slerp"]
    attacks = [
        AttackSpec.model_validate(name)
        for name in ATTACKS.names()
        if name not in {"universal", "stm", "fia", "naa"}
    ]
    budgets = study.budgets.model_copy(update={"epsilon": BUDGETS})
    changed = {"merging": tuple(methods), "attacks": tuple(attacks), "budgets": budgets}
    return {
        "the paper's": make_plan(resolve(study)),
        "every method, attack and budget": make_plan(resolve(study.model_copy(update=changed))),
    }


def models_read(plan: Plan, workers: int, *, near: bool) -> int:
    """How often a model is read to be evaluated, of models so large that a worker keeps one: as they are handed
    out, or in the plan's order."""
    scheduler = Scheduler(plan.stages, (), model=_model)
    held, free, running, found, now = [""] * workers, [*range(workers)], list[tuple[float, int, str]](), 0, 0.0
    while True:
        while free:
            taken = scheduler.take(near={held[one] for one in free} - {""} if near else ())
            if taken is None:
                break
            stage, _ = taken
            model = _model(stage)
            worker = next((one for one in free if near and held[one] == model), free[0])
            free.remove(worker)
            found += stage.kind == "evaluate" and model not in {"", held[worker]}
            held[worker] = model or held[worker]
            heapq.heappush(running, (now + stage.work, worker, stage.key))
        if not running:
            return found
        now, worker, key = heapq.heappop(running)
        free.append(worker)
        scheduler.finish(plan.stages[key])


def _model(stage: Stage) -> str:
    """The key of the model that a stage asks or crafts on; empty for the base, which every worker keeps."""
    return next((key for role, key in stage.inputs.items() if role.endswith("/encoder")), "")


def main() -> None:
    """A table per study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", action="store_true")
    if parser.parse_args().reads:
        for name, plan in plans().items():
            print(f"{name}: {sum(stage.kind == 'evaluate' for stage in plan.stages.values()):,} evaluations")
            for workers in (1, 8):
                before, now = (models_read(plan, workers, near=near) for near in (False, True))
                print(f"  {workers} workers: {before:,} models read in the plan's order, {now:,} as handed out")
        return
    core = core_speeds()
    gpu = Speeds({how: FLOPS / (PASS * cost) for how, cost in COSTS.items() if how != "query"}, "assumed")
    print("one core: " + ", ".join(f"{rate:.2f} {how}" for how, rate in core.images.items()), flush=True)
    for name, plan in plans().items():
        stages = plan.stages
        print(f"{name}: {plan.study.settings:,} settings, {len(stages):,} stages", flush=True)
        print(f"  one core: {span(stages, stages, core, 1) / 3600:,.0f} h")
        for workers, seconds in spans(stages, stages, gpu, [8, 64]).items():
            print(f"  {workers} GPUs: {seconds / 3600:.2f} h", flush=True)


if __name__ == "__main__":
    main()
