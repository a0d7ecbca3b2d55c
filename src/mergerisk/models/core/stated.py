"""How pixels become a model's own, where a study, an audit, a recipe or a command says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mergerisk.validation import construct, first_finding

if TYPE_CHECKING:
    from collections.abc import Mapping

Resample = Literal["nearest", "bilinear", "bicubic"]

_Std = Annotated[float, Field(ge=1e-6, le=1e6)]

BASE: Literal["base"] = "base"
"""In place of a mapping: the base's own, for whatever is made from it."""


class StatedPreprocessing(BaseModel):
    """What replaces a model's own preprocessing: ``{mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}``.

    Attributes:
        mean: per channel, subtracted from pixels in [0, 1]; given together with ``std``.
        std: per channel, divides what is left.
        resample: how images of another size than the model's are resized.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: tuple[float, float, float] | None = None
    std: tuple[_Std, _Std, _Std] | None = None
    resample: Resample | None = None

    @model_validator(mode="after")
    def _whole(self) -> StatedPreprocessing:
        if (self.mean is None) != (self.std is None):
            raise ValueError("give mean and std together, three numbers each, of pixels in [0, 1]")
        if self.mean is None and self.resample is None:
            raise ValueError("give mean and std, or resample")
        if max(map(abs, self.mean or (0,))) > 1:
            raise ValueError(
                f"mean is of pixels in [0, 1], got {list(self.mean or ())}: divide mean and std by 255"
            )
        return self

    def fields(self) -> dict[str, Any]:
        """What is given, as plain data."""
        return self.model_dump(mode="json", exclude_none=True)

    def __str__(self) -> str:
        parts = [] if self.mean is None else [f"mean {list(self.mean)}", f"std {list(self.std or ())}"]
        return ", ".join([*parts, *([] if self.resample is None else [f"resample {self.resample}"])])


def stated_preprocessing(
    given: StatedPreprocessing | Mapping[str, Any] | None, where: str = "preprocessing"
) -> StatedPreprocessing | None:
    """What was given, checked.

    Raises:
        UserError: an unknown field, a number out of range, mean without std; ``where`` begins the message.
    """
    if given is None or isinstance(given, StatedPreprocessing):
        return given
    return construct(StatedPreprocessing, given, where)


def _stated_or_base(value: object) -> object:
    """What a file holds, of which what is wrong is said once, not once per alternative."""
    if value is None or value == BASE or isinstance(value, StatedPreprocessing):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"must be {BASE!r}, or a mapping with mean and std, got {value!r}")  # noqa: TRY004
    try:
        return StatedPreprocessing(**value)
    except ValidationError as error:
        raise ValueError(first_finding(error, StatedPreprocessing.model_fields)) from None


StatedOrBase = Annotated[StatedPreprocessing | Literal["base"] | None, BeforeValidator(_stated_or_base)]
"""How the pixels of a base and of all that is made from it are prepared: as stated; as the base's own are; each as
it says itself, for None."""


def of_base(given: StatedPreprocessing | Literal["base"] | None) -> StatedPreprocessing | None:
    """What is stated of the base."""
    return None if given == BASE else given


def stated_from(text: str | None) -> StatedPreprocessing | Literal["base"] | None:
    """What a stage's sources say, in JSON; see :meth:`StatedPreprocessing.fields`."""
    given: Any = None if text is None else json.loads(text)
    return given if given is None or given == BASE else StatedPreprocessing(**given)
