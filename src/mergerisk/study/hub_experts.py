"""Experts of the hub that belong to a backbone: those of FusionBench."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

_BACKBONES = {
    f"openai/{name}": f"tanganke/{name}"
    for name in ("clip-vit-base-patch32", "clip-vit-base-patch16", "clip-vit-large-patch14")
}
"""What the names of a backbone's experts start with."""

_TASKS = {
    "sun397": "sun397",
    "cars": "stanford-cars",
    "resisc45": "resisc45",
    "eurosat": "eurosat",
    "svhn": "svhn",
    "gtsrb": "gtsrb",
    "mnist": "mnist",
    "dtd": "dtd",
}
"""What they end with."""


def hub_experts(backbone: str, tasks: Sequence[str]) -> dict[str, str]:
    """Task → hub id of the expert that FusionBench (Tang et al. 2024, arXiv 2406.03280) fine-tuned from
    ``backbone``: CLIP's vision tower without its projection, one for each of eight tasks.

    Raises:
        UserError: it has none for the backbone, or for a task.
    """
    name, _, _ = backbone.partition("@")
    if name not in _BACKBONES:
        raise UserError(
            f"experts: from: hub: there are experts of {', '.join(_BACKBONES)}, not of {backbone!r}; give files"
        )
    for task in tasks:
        if task not in _TASKS:
            raise UserError(
                f"experts: from: hub: none for task {task!r}{did_you_mean(task, _TASKS)}; name the task after one "
                "of them, or give experts.files for all"
            )
    return {task: f"{_BACKBONES[name]}_{_TASKS[task]}" for task in tasks}
