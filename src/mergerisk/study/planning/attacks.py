"""What is planned of an attack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.attacks.catalogue import ATTACKS
from mergerisk.attacks.parts import FILTERS, INPUTS
from mergerisk.registry import plugins
from mergerisk.tasks.digests import file_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.study.fields.named import AttackSpec
    from mergerisk.study.schema import Study


@dataclass(frozen=True)
class PlannedAttack:
    """What crafting needs to know of an attack.

    Attributes:
        label: what results call it.
        name: of the attack.
        parameters: its hyper-parameters, a file by its digest.
        file: where that file lies, if there is one.
        gradients: input gradients per image.
        steps: after how many outcomes are kept, its own number last.
        plugins: installed packages that add it, or parts of it.
    """

    label: str
    name: str
    parameters: Mapping[str, Any]
    file: str | None
    gradients: int
    steps: tuple[int, ...]
    plugins: tuple[str, ...]


def plan_attack(spec: AttackSpec, after: tuple[int, ...]) -> PlannedAttack:
    """An attack as it is going to be run.

    Args:
        spec: as the study has it, resolved.
        after: numbers of steps after which outcomes are kept as well, if the attack takes more.

    Raises:
        UserError: a file of its parameters cannot be read.
    """
    from mergerisk.attacks import create

    attack = create(spec.name, **spec.parameters)
    parameters, file = dict(spec.parameters), None
    if "file" in parameters:
        file = str(parameters["file"])
        parameters["file"] = file_digest(Path(file))
    taken = attack.iterations
    entries = [
        ATTACKS.check(spec.name),
        *(INPUTS.check(part["input"]) for part in parameters.get("inputs", ())),
        *(FILTERS.check(part["filter"]) for part in parameters.get("gradient", ())),
    ]
    return PlannedAttack(
        spec.label,
        spec.name,
        parameters,
        file,
        attack.gradients_per_image,
        (*(steps for steps in after if steps < taken), taken),
        plugins(*entries),
    )


def single_step_attacks(study: Study) -> frozenset[str]:
    """Labels of the attacks that take one step."""
    from mergerisk.attacks import create

    return frozenset(spec.label for spec in study.attacks if create(spec.name, **spec.parameters).iterations == 1)
