"""Among which recipes one is looked for, as a study file says it; a run reads none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.merging.catalogue import split_name
from mergerisk.study.fields.basics import Model, looks, no_twins
from mergerisk.study.fields.written import TEXT, AlsoWritten, name_or_mapping
from mergerisk.validation import Count, first_finding

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

NO_DEFENSE = "none"
"""Stands among defenses for a merge as it is."""


class Between(Model):
    """Numbers from a range: ``{low: 0.1, high: 0.5}``, whole ones where both ends are; ``log: true`` for steps
    that grow."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Between:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: low must be above 0, got {self.low}")
        return self

    @property
    def whole(self) -> bool:
        """Whether numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[float, ...]:
        """The smallest and the largest."""
        return self.low, self.high


class OneOf(Model):
    """One of several values: ``[50, 75, 90]``, or the one value that is given."""

    values: Annotated[tuple[Any, ...], Field(min_length=1)]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All of them."""
        return self.values


Values = Between | OneOf


class Searched(Model):
    """A method or a defense to choose, with what its hyper-parameters may be: ``ties``, or
    ``{method: ties, density: {low: 0.1, high: 0.5}, scaling: [0.5, 1.0]}``.

    Attributes:
        name: of it.
        values: hyper-parameter → its values; those that are not named are searched in their usual ranges, if they
            have some.
    """

    key: ClassVar[str]
    """What stands before the name in a mapping."""

    name: str
    values: dict[str, Values]

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return name_or_mapping(core, handler, {cls.key: TEXT}, cls.key, name=TEXT)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return {"name": value, "values": {}}
        if not isinstance(value, dict) or not isinstance(value.get(cls.key), str):
            message = f"must be a name, or a mapping with {cls.key!r} and what hyper-parameters may be"
            raise ValueError(message)  # noqa: TRY004
        if "label" in value or "of" in value:
            raise ValueError(
                "label, of: what is found is named by itself, and defenses go on every merge; leave it out"
            )
        given = {name: _values(name, said) for name, said in value.items() if name != cls.key}
        return {"name": value[cls.key], "values": given}


def _values(name: str, said: object) -> Values:
    try:
        if isinstance(said, dict):
            return Between.model_validate(said)
        return OneOf(values=tuple(said) if isinstance(said, list) else (said,))
    except ValidationError as error:
        raise ValueError(f"{name}: {first_finding(error, Between.model_fields)}") from error


class SearchedMethod(Searched):
    """A merging method to choose."""

    key: ClassVar[str] = "method"

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> SearchedMethod:
        if looks(info):
            split_name(self.name)
        return self


class SearchedDefense(Searched):
    """A defense to choose; ``none`` is to leave a merge as it is."""

    key: ClassVar[str] = "defense"

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> SearchedDefense:
        if looks(info) and self.name != NO_DEFENSE:
            DEFENSES.check(self.name)
        return self


class Search(Model):
    """Where :func:`mergerisk.recommend` looks for recipes.

    Attributes:
        merging: methods to choose from; by default every one that reads no images.
        defenses: what may be put around a merge, or trains it; by default ``none`` and those that change pixels,
            at once and without drawing.
        layers: how many defenses may be put upon one another.
        attack: of the study's, by its label; recipes are chosen by this one. By default ``mi_fgsm``, or the first
            that takes several steps.
        images_per_task: held-out images that are attacked to choose by, at most.
        recipes: how many of the best trades are measured in the end, at most.
    """

    merging: Annotated[Annotated[tuple[SearchedMethod, ...], Field(min_length=1)] | None, AlsoWritten(TEXT)] = None
    defenses: Annotated[Annotated[tuple[SearchedDefense, ...], Field(min_length=1)] | None, AlsoWritten(TEXT)] = (
        None
    )
    layers: Annotated[int, Field(ge=0, le=4)] = 2
    attack: str | None = None
    images_per_task: Count = 64
    recipes: Annotated[int, Field(ge=1, le=20)] = 4

    @field_validator("merging", "defenses", mode="before")
    @classmethod
    def _one_is_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _named_once(self) -> Search:
        no_twins([entry.name for entry in self.merging or ()], "method")
        no_twins([entry.name for entry in self.defenses or ()], "defense")
        return self
