"""How near the starter study is to what it cannot avoid: its passes through models.

The limit is what the plan says the study needs (so many images forward, so many input gradients, so many images
trained on), less the gradients that are the same for several attacks, each at the pace of nothing but that pass,
one thread, measured here before the run and after it. The run's processor time, of all its processes, is held
against it. Beside it stand the same passes as transformers computes them.

    python benchmarks/starter_limit.py                 # the whole study, from nothing
    python benchmarks/starter_limit.py --limit 20      # of 20 images a task
    python benchmarks/starter_limit.py --passes-only   # how the passes compare, without the study
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

import mergerisk as mr
from mergerisk.models.inside.class_token import ClassTokenBlock
from mergerisk.models.inside.patches import PatchProjection
from mergerisk.study import load_study, make_plan
from mergerisk.study.kinds.craft import Craft

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mergerisk.study.stage import Stage

BATCHES = {"forward": 100, "gradient": 100, "training": 64}
"""Images at a time, as the study shows them: tasks' 100 attacked images, and the fine-tuning recipe's batch."""
_BEGIN_AT_IMAGES = {"fgsm", "i_fgsm", "mi_fgsm", "ni_fgsm", "ti_fgsm"}
"""Attacks whose first gradient is at the clean images, at every budget."""
_STEP_ALIKE = {"i_fgsm", "mi_fgsm"}
"""Of these, who at one budget takes the same first step, and so the second gradient at the same point."""


def passes(classifier: mr.Classifier) -> Mapping[str, Callable[[], None]]:
    """Each kind of pass, of one batch."""
    images = torch.rand(100, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(100, dtype=torch.int64)
    twin = classifier.encoder.with_state(classifier.encoder).requires_grad_(True)
    trained = mr.Classifier(twin, classifier.head)

    def forward() -> None:
        with torch.inference_mode():
            classifier(images)

    def gradient() -> None:
        leaf = images.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(classifier(leaf), labels, reduction="sum"), leaf)

    def training() -> None:
        count = BATCHES["training"]
        trained.zero_grad()
        F.cross_entropy(trained(images[:count]), labels[:count]).backward()

    return {"forward": forward, "gradient": gradient, "training": training}


def as_transformers_computes(encoder: mr.Encoder) -> mr.Encoder:
    """A copy of ``encoder`` whose parts are of the classes that they were loaded with."""
    twin = encoder.with_state(encoder)
    for part in twin.modules():
        changed: Any = part
        if isinstance(part, PatchProjection):
            changed.__class__ = torch.nn.Conv2d
        if isinstance(part, ClassTokenBlock):
            changed.__class__ = type(part).__bases__[1]
    return twin


def pace(work: Callable[[], None], rounds: int) -> float:
    """Processor seconds of one call: the least of so many."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def measured(rounds: int) -> dict[str, dict[str, float]]:
    """Processor seconds per image of each pass, ours and transformers', taken in turns."""
    encoder = mr.load_encoder("starter-vit")
    draws = torch.Generator().manual_seed(0)
    head = mr.Head(torch.randn(10, encoder.width, generator=draws), torch.zeros(10))
    ours, theirs = mr.Classifier(encoder, head), mr.Classifier(as_transformers_computes(encoder), head)
    works = {"mergerisk": passes(ours), "transformers": passes(theirs)}
    best: dict[str, dict[str, float]] = {who: dict.fromkeys(BATCHES, float("inf")) for who in works}
    for _ in range(rounds):
        for who, kinds in works.items():
            for kind, work in kinds.items():
                best[who][kind] = min(best[who][kind], pace(work, 3) / BATCHES[kind])
    return best


def shared(stages: Iterable[Stage]) -> int:
    """Input gradients that a study's attacks ask for, and one of its other attacks as well, on the same model."""
    alike = defaultdict[tuple[str, str], list[Craft]](list)
    for stage in stages:
        if isinstance(stage, Craft) and stage.attack in _BEGIN_AT_IMAGES:
            alike[stage.task.key, str(stage.surrogate)].append(stage)
    found = 0
    for group in alike.values():
        both = [
            epsilon
            for epsilon in {stage.epsilon for stage in group}
            if {stage.attack for stage in group if stage.epsilon == epsilon} >= _STEP_ALIKE
        ]
        found += (len(group) - 1 + len(both)) * group[0].crafted
    return found


def main() -> None:
    """Measure, run, measure again, and say how they compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="images a task (default: the study's 100)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10, help="of measuring the passes, before the run and after")
    parser.add_argument("--passes-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)

    before = measured(options.rounds)
    spent = None
    if not options.passes_only:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "mergerisk", "run", "starter", "--out", str(Path(folder) / "run")]
            command += ["--workers", str(options.workers)]
            command += [] if options.limit is None else ["--limit", str(options.limit)]
            start = time.perf_counter()
            subprocess.run(command, check=True)
            wall = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = used.ru_utime + used.ru_stime
    after = measured(options.rounds)

    study = load_study("starter")
    if options.limit is not None:
        study = study.model_copy(update={"images_per_task": min(options.limit, study.images_per_task)})
    counts: Counter[str] = Counter()
    stages = make_plan(study).stages.values()
    for stage in stages:
        counts.update(stage.cost())
    counts["gradient"] -= shared(stages)

    print(f"{'pass':<10}{'images':>10}{'µs an image':>14}{'transformers':>14}{'seconds':>10}")
    totals = dict.fromkeys(before, 0.0)
    for kind in BATCHES:
        each = {who: (before[who][kind] + after[who][kind]) / 2 for who in before}
        for who, seconds in each.items():
            totals[who] += seconds * counts[kind]
        print(
            f"{kind:<10}{counts[kind]:>10,}{each['mergerisk'] * 1e6:>14.0f}{each['transformers'] * 1e6:>14.0f}"
            f"{each['mergerisk'] * counts[kind]:>10.1f}"
        )
    print(f"the passes: {totals['mergerisk']:.0f} s; as transformers computes them {totals['transformers']:.0f} s")
    if spent is not None:
        print(
            f"the run: {spent:.0f} s of processor time, {wall:.0f} s in all with {options.workers} workers; "
            f"{spent / totals['mergerisk']:.2f} times its passes"
        )


if __name__ == "__main__":
    main()
