"""What is planned of an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergerisk.attacks.catalogue import ATTACKS
from mergerisk.attacks.parts import FILTERS, INPUTS
from mergerisk.registry import plugins

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
        parameters: its hyper-parameters; those that name what lies elsewhere by its content.
        brought: those, as the study names them.
        gradients: input gradients per image.
        steps: after how many outcomes are kept, its own number last.
        plugins: installed packages that add it, or parts of it, and revisions of these.
    """

    label: str
    name: str
    parameters: Mapping[str, Any]
    brought: Mapping[str, Any]
    gradients: int
    steps: tuple[int, ...]
    plugins: tuple[str, ...]


def plan_attack(spec: AttackSpec, after: tuple[int, ...]) -> PlannedAttack:
    """An attack as it is going to be run.

    Args:
        spec: as the study has it, resolved.
        after: numbers of steps after which outcomes are kept as well, if the attack takes more.

    Raises:
        UserError: what its parameters name cannot be read.
    """
    from mergerisk.attacks import create

    attack = create(spec.name, **spec.parameters)
    contents = attack.brought()
    parameters = {**spec.parameters, **contents}
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
        {name: getattr(attack, name) for name in contents},
        attack.gradients_per_image,
        (*(steps for steps in after if steps < taken), taken),
        plugins(*entries),
    )


def single_step_attacks(study: Study) -> frozenset[str]:
    """Labels of the attacks that take one step."""
    from mergerisk.attacks import create

    return frozenset(spec.label for spec in study.attacks if create(spec.name, **spec.parameters).iterations == 1)
