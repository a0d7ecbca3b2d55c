"""What decides the adversarial images of a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError
from mergerisk.given_settings import key_values
from mergerisk.models.core.stated import stated_preprocessing
from mergerisk.validation import check_epsilon, parse_fraction
from mergerisk.yaml_files import parse_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.attacks import Attack, Norm
    from mergerisk.models.core.stated import StatedPreprocessing


@dataclass(frozen=True, kw_only=True)
class Crafting:
    """An attack with its budget.

    Attributes:
        attack: its name.
        parameters: its hyper-parameters.
        epsilon: the budget in pixel units.
        norm: what ``epsilon`` bounds: ``linf`` or ``l2``.
        targeted: aim at a label rather than away from the true one.
        target_label: the label to aim at, by name or index; one of the others per image, drawn at random, if none
            is given.
        seed: of everything random.
    """

    attack: str = "mi_fgsm"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    epsilon: float = 8 / 255
    norm: Norm = "linf"
    targeted: bool = False
    target_label: str | None = None
    seed: int = 0

    def create_attack(self) -> Attack:
        """The attack itself.

        Raises:
            UserError: unknown name or hyper-parameter, a value out of range, a label to aim at for an attack that
                aims at none.
        """
        from mergerisk.attacks import create

        attack = create(self.attack, **{**self.parameters, **({"targeted": True} if self.targeted else {})})
        if self.target_label is not None and not attack.targeted:
            raise UserError("--target-label: the attack aims at no label; add --targeted")
        return attack


def parse_epsilon(text: str) -> float:
    """``8/255``, or a number.

    Raises:
        UserError: neither, or not above zero.
    """
    try:
        return check_epsilon(parse_fraction(text))
    except ValueError as error:
        raise UserError(f"--epsilon: {error}") from None


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Hyper-parameters from ``key=value``, values as in YAML; fractions are numbers.

    Raises:
        UserError: no ``=``, not YAML, or a key that is given twice.
    """
    return {key: _with_fractions(value) for key, value in key_values(settings, "steps=20")}


def parse_preprocessing(settings: Sequence[str]) -> dict[str, StatedPreprocessing]:
    """What is done to pixels, by model, from ``MODEL={mean: […], std: […]}``; under an empty name for all models,
    from the mapping alone.

    Raises:
        UserError: no mapping, a field that is wrong, or a model that is given twice.
    """
    parsed: dict[str, StatedPreprocessing] = {}
    for setting in settings:
        name, brace, text = setting.partition("{")
        model, where = name.rstrip().removesuffix("="), f"--preprocessing {setting!r}"
        try:
            given = parse_value(brace + text)
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise UserError(
                f"{where}: write {{mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}, with MODEL= before it for one "
                "of the models"
            )
        if model in parsed:
            raise UserError(f"{where}: given twice")
        stated = stated_preprocessing(given, where)
        assert stated is not None, "a mapping was given"
        parsed[model] = stated
    return parsed


def _with_fractions(value: Any) -> Any:
    match value:
        case list():
            return [_with_fractions(part) for part in value]
        case dict():
            return {key: _with_fractions(part) for key, part in value.items()}
        case str() if "/" in value:
            try:
                return parse_fraction(value)
            except ValueError:
                return value  # a path, say
        case _:
            return value
