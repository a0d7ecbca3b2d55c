"""How much the plan saves: a slice of the study as mergerisk runs it, and as a plain script would.

The plain script crafts anew for every (merging method, task, attack) setting, as published evaluation scripts do,
lets gradients flow to the parameters, and evaluates one target at a time. Both use the same experts, heads and
merges, one thread, and the same attacks; their predictions must agree.

The limit: per image, surrogate and ε, the study needs the attacks' gradients once (6 attacks: 1 + 5 × 10 = 51),
whatever the number of methods; the plain script needs them 8 times.

    python benchmarks/plain_script.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

import mergerisk as mr
from mergerisk.merging import SurgeryAdapter
from mergerisk.models import Encoder, Head
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan
from mergerisk.study.variants.encoders import EncoderVariant

if TYPE_CHECKING:
    import pandas as pd

    from mergerisk.study.planning import Plan, Sweep

EPSILON = 4 / 255
ATTACKS = ("i_fgsm", "mi_fgsm")


def slice_of_starter(images: int) -> mr.Study:
    """One task, two attacks, one surrogate, one budget, all eight methods."""
    study = load_study("starter")
    return study.model_copy(
        update={
            "name": "slice",
            "tasks": study.tasks[:1],
            "attacks": tuple(spec for spec in study.attacks if spec.name in ATTACKS),
            "surrogates": ("expert",),
            "budgets": study.budgets.model_copy(update={"epsilon": (EPSILON,)}),
            "images_per_task": images,
        }
    )


def load_models(plan: Plan, store: Store, sweep: Sweep) -> tuple[mr.Classifier, dict[str, mr.Classifier]]:
    """The surrogate and every target of a sweep, from the run's store."""
    base = mr.load_encoder(plan.study.backbone)
    head_arrays = store.get(plan.task_runs[0].clean[0].target.head.key).arrays
    head = Head(torch.from_numpy(head_arrays["weight"]), torch.from_numpy(head_arrays["bias"]))
    targets = {}
    for evaluation in sweep.evaluations:
        found = evaluation.target
        assert isinstance(found, EncoderVariant)
        encoder: Encoder = base
        if found.encoder is not None:
            arrays = store.get(found.encoder.key).arrays
            encoder = base.with_state({name: torch.from_numpy(array) for name, array in arrays.items()})
        for target, column in found.columns.items():
            adapter, correction = None, found.adapters[column]
            if correction is not None:
                parts = store.get(correction.key).arrays
                down, up = (torch.from_numpy(parts[f"{sweep.task}/{part}"]) for part in ("down", "up"))
                adapter = SurgeryAdapter(down, up)
            targets[target] = mr.Classifier(encoder, head, adapter)
    surrogate = targets.pop("expert")
    targets.pop("pretrained")
    return surrogate, targets


def plain_attack(
    model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, decay: float, steps: int
) -> torch.Tensor:
    """MI-FGSM (I-FGSM without decay) the plain way: ``backward`` through parameters and all."""
    adversarial, momentum = images.clone(), torch.zeros_like(images)
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        F.cross_entropy(model(adversarial), labels).backward()
        gradient = adversarial.grad
        assert gradient is not None
        momentum = decay * momentum + gradient / gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-30)
        step = adversarial.detach() + EPSILON / 4 * momentum.sign()
        adversarial = (images + (step - images).clamp(-EPSILON, EPSILON)).clamp(0, 1)
    return adversarial.detach()


def run_plain(plan: Plan, store: Store, outcomes: pd.DataFrame) -> tuple[float, float]:
    """Seconds for the slice, and the share of predictions that equal the study's."""
    seconds, agreeing = 0.0, []
    test = plan.study.tasks[0].source.load().test
    for sweep in plan.sweeps:
        surrogate, targets = load_models(plan, store, sweep)
        surrogate.requires_grad_(True)
        decay = 0.0 if sweep.attack == "i_fgsm" else 1.0
        for name, target in targets.items():
            chosen = outcomes[(outcomes["attack"] == sweep.attack) & (outcomes["target"] == name)]
            picked = test[torch.from_numpy(chosen["image"].to_numpy().copy())]
            start = time.perf_counter()
            adversarial = plain_attack(surrogate, picked.images[:], picked.labels, decay, plan.study.budgets.steps)
            with torch.no_grad():
                for model in (surrogate, target):
                    model(picked.images)
                    model(adversarial)
                said = target(adversarial).argmax(dim=1)
            seconds += time.perf_counter() - start
            agreeing.append(said.numpy() == chosen["target_adversarial"].to_numpy())
    return seconds, float(np.concatenate(agreeing).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a slice of the study, planned and plain.")
    parser.add_argument("--images", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    study = slice_of_starter(options.images)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        outcomes = mr.run(study, out).outcomes
        plan, store = make_plan(study), Store(out / "store")
        kinds = json.loads((out / "run.json").read_text())["kinds"]
        planned = sum(kinds[kind]["seconds"] for kind in ("clean", "craft", "evaluate"))
        plain, agreement = run_plain(plan, store, outcomes)
    settings = len(study.merging) * len(study.attacks)
    print(f"slice: {settings} settings of {options.images} images, one thread")
    print(f"planned {planned:.2f} s (whole test split for clean accuracy, checks and storing included)")
    print(f"plain   {plain:.2f} s")
    print(f"ratio   {plain / planned:.1f}")
    print(f"predictions that agree: {agreement:.2%}")


if __name__ == "__main__":
    main()
