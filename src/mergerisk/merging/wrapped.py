"""Methods that change what another one merges: whatever comes of θ0 + Δm, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, WithJsonSchema

from mergerisk.errors import UserError
from mergerisk.merging.catalogue import METHODS
from mergerisk.merging.states import StateMerging
from mergerisk.validation import as_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence


def _resolved(value: object) -> dict[str, Any]:
    """A method as keys and recipes have it: with every hyper-parameter.

    Raises:
        UserError: it is none, or one that is no function of the models' tensors alone.
    """
    given = {"method": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not isinstance(given.get("method"), str):
        raise UserError("must be a method's name, or a mapping with 'method' and hyper-parameters")
    name, rest = given["method"], {key: one for key, one in given.items() if key != "method"}
    made = METHODS.create(name, rest)
    if not isinstance(made, StateMerging):
        raise UserError(f"{name} is no function of the models' tensors alone; name one that is, such as ties")
    return {"method": name, **as_parameters(made)}


_WRITTEN = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"method": {"type": "string"}}, "required": ["method"]},
    ]
}

Inner = Annotated[
    dict[str, Any] | str,  # a default is a name, which is resolved like any other
    BeforeValidator(_resolved),
    WithJsonSchema(_WRITTEN),
    Field(validate_default=True),
]
"""A method by name, or a mapping of ``method`` to it and hyper-parameters."""


class Wrapper(StateMerging):
    """What is made of another method's Δm.

    Attributes:
        of: the method, as a study file names one, which must read no images and give one model of all tasks.
    """

    uses_seed: ClassVar[bool] = True  # what it wraps may

    of: Inner

    @property
    def inner(self) -> StateMerging:
        """The method whose Δm it is."""
        assert isinstance(self.of, dict), "it is resolved where it is given"
        parameters = {name: value for name, value in self.of.items() if name != "method"}
        made: StateMerging = METHODS.create(self.of["method"], parameters)
        return made

    def check_count(self, count: int) -> None:
        self.inner.check_count(count)

    def check_names(self, names: Sequence[str]) -> None:
        self.inner.check_names(names)
