"""Attacks by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergerisk.registry import Entry, Registry

if TYPE_CHECKING:
    from mergerisk.attacks.attack import Attack

_MODULE = "mergerisk.attacks.gradient_sign"

ATTACKS: Registry[type[Attack]] = Registry(
    "attack",
    "mergerisk.attacks",
    [
        Entry("fgsm", f"{_MODULE}:FGSM", "one step of size ε along the gradient's sign", "arXiv 1412.6572"),
        Entry("i_fgsm", f"{_MODULE}:IFGSM", "FGSM in several small steps (BIM)", "arXiv 1607.02533"),
        Entry("mi_fgsm", f"{_MODULE}:MIFGSM", "I-FGSM with momentum", "arXiv 1710.06081"),
        Entry("ni_fgsm", f"{_MODULE}:NIFGSM", "MI-FGSM with Nesterov look-ahead", "arXiv 1908.06281"),
        Entry("ti_fgsm", f"{_MODULE}:TIFGSM", "MI-FGSM with blurred gradients", "arXiv 1904.02884"),
        Entry("di_fgsm", f"{_MODULE}:DIFGSM", "MI-FGSM with randomly resized inputs", "arXiv 1803.06978"),
    ],
)
"""Built in, installed and registered attacks."""


def create(name: str, /, **parameters: Any) -> Attack:
    """The attack called ``name`` with these hyper-parameters, checked.

    Raises:
        UserError: unknown name or hyper-parameter, or a value out of range.
    """
    attack: Attack = ATTACKS.create(name, parameters)
    return attack
