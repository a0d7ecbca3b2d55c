"""A defended model, attacked in all the ways that tell whether it may be said to defend."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.results import ArrayStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray
    from torch import nn

    from mergerisk.defenses import Evidence
    from mergerisk.store import Artefact
    from mergerisk.study.variants.variant import SurrogateVariant
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task

_ROUNDS = 3
"""In which answers are timed, the first to warm up."""


@dataclass(frozen=True, kw_only=True)
class CheckDefense(ArrayStage):
    """Evidence on a defended model, on one task's images; see :func:`mergerisk.defenses.gather`. And what its
    answers cost: ``seconds`` per image and ``bytes`` of weights, of the defended model and of the undefended one.

    Attributes:
        task: whose attacked images are looked at.
        target: the defended model.
        known: what an attacker crafts on who knows the defense and holds the model.
        undefended: the model without the defense.
        transferred: by name, what was crafted elsewhere, within the same budget.
        epsilon: the budget in question, of pixels in [0, 1].
        norm: of the budget.
        images: how many are looked at, if as many are attacked.
        steps: of the white box.
        restarts: likewise.
        queries: of the attack without gradients, per image.
        seed: of everything random.
        checked: images.
        gradients: per image, of the white box.
    """

    kind: ClassVar[str] = "check_defense"
    noun: ClassVar[str] = "check defenses"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 8

    task: Input[Task]
    target: SurrogateVariant
    known: SurrogateVariant
    undefended: SurrogateVariant
    transferred: Mapping[str, Input[torch.Tensor]]
    epsilon: float
    norm: Literal["linf", "l2"]
    images: int
    steps: int
    restarts: int
    queries: int
    seed: int
    checked: int = unkeyed()
    gradients: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Gradients of the white box and of the undefended model, and answers of the defended one."""
        answers = self.queries + len(self.transferred) + _ROUNDS
        return {
            "gradient": self.checked * (self.gradients * self.known.passes + self.steps * self.undefended.passes),
            "forward": self.checked * answers * self.target.passes,
        }

    def run(self, bench: Workbench) -> Result:
        """What attacks did to the images that the defended model names rightly, and what its answers cost; or,
        where it names none, nothing but the latter."""
        import numpy as np
        import torch

        from mergerisk import attacks
        from mergerisk.defenses import gather
        from mergerisk.models.inside.hooks import evaluating
        from mergerisk.study.attacked import attacked
        from mergerisk.transfer import predict

        task, device = bench.task(self.task), bench.compute.device
        indices = attacked(task, self.images)
        images, labels = task.test.images[indices].to(device), task.test.labels[indices].to(device)
        target, undefended = self.target.classifier(bench), self.undefended.classifier(bench)
        spent = [_seconds(model, images) for model in (target, undefended)]
        arrays: dict[str, NDArray[Any]] = {
            "seconds": np.array(spent),
            "bytes": np.array([_bytes(model) for model in (target, undefended)]),
        }
        right = (predict(target, images, batch_size=bench.compute.batch_size).to(device) == labels).nonzero()[:, 0]
        if not len(right):
            return Result(arrays, {"transferred": []})
        images, labels = images[right], labels[right]
        made: dict[str, torch.Tensor] = {}
        for name, crafted in self.transferred.items():
            kept = bench.crafted(crafted.key)
            places = torch.searchsorted(kept["indices"], indices[right.cpu()])
            made[name] = kept["adversarial"][-1][places].to(device)
        unaware = attacks.create("pgd", steps=self.steps, float64_logits=True)
        with evaluating(undefended):
            made["the undefended model"] = unaware(
                undefended, images, labels, epsilon=self.epsilon, norm=self.norm, seed=self.seed
            )
        found = gather(
            target,
            self.known.classifier(bench),
            images,
            labels,
            epsilon=self.epsilon,
            norm=self.norm,
            transferred=made,
            steps=self.steps,
            restarts=self.restarts,
            queries=self.queries,
            seed=self.seed,
            fewest=1,
        )
        return Result(arrays | _as_arrays(found), {"transferred": [*found.transferred]})


def _seconds(model: nn.Module, images: torch.Tensor) -> float:
    """That an answer takes per image."""
    import torch

    from mergerisk.attacks import answers
    from mergerisk.memory import synchronise

    rounds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        with torch.no_grad():
            answers(model, images)
        synchronise(images.device)
        rounds.append(time.perf_counter() - start)
    return min(rounds[1:]) / len(images)


def _bytes(model: nn.Module) -> int:
    """Of weights and what else a model keeps, what is shared counted once."""
    kept = {tensor.data_ptr(): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())


def _as_arrays(found: Evidence) -> dict[str, NDArray[Any]]:
    """What the checks found, as the store keeps it: an array per field, mappings as keys and stacked values."""
    import numpy as np

    arrays: dict[str, NDArray[Any]] = {
        "epsilons": np.array([*found.by_epsilon]),
        "by_epsilon": np.stack([*found.by_epsilon.values()]),
        "steps": np.array([*found.by_steps]),
        "by_steps": np.stack([*found.by_steps.values()]),
        "transferred": np.stack([*found.transferred.values()]),
    }
    for name in ("white_box", "noise", "queried", "flat_steps", "losses", "restarts"):
        arrays[name] = np.asarray(getattr(found, name))
    return arrays


def evidence_of(kept: Artefact) -> Evidence:
    """The evidence that a stage keeps."""
    from mergerisk.defenses import Evidence

    arrays = kept.arrays
    if "white_box" not in arrays:
        return Evidence()
    return Evidence(
        white_box=arrays["white_box"],
        transferred=dict(zip(kept.info["transferred"], arrays["transferred"], strict=True)),
        by_epsilon=dict(zip(arrays["epsilons"].tolist(), arrays["by_epsilon"], strict=True)),
        by_steps=dict(zip(arrays["steps"].tolist(), arrays["by_steps"], strict=True)),
        noise=arrays["noise"],
        queried=arrays["queried"],
        flat_steps=arrays["flat_steps"],
        losses=arrays["losses"],
        restarts=arrays["restarts"],
    )
