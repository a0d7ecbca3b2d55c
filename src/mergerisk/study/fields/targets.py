"""Models that are attacked besides the merges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mergerisk.study.fields.basics import RESERVED_TARGETS, Model
from mergerisk.study.fields.names import ModelName
from mergerisk.study.fields.written import AlsoWritten
from mergerisk.transfer.queries import LONGEST_TIMEOUT
from mergerisk.validation import Count

if TYPE_CHECKING:
    from collections.abc import Mapping


ENSEMBLE, ROUTED = "experts_ensemble", "experts_routed"
ReferenceLine = Literal["experts_ensemble", "experts_routed"]
"""Lines to hold merges against that are no merges: the mean of all ingredients' probabilities, each under the
attacked task's head; every task answered by its own expert, which supposes that somebody knows the task."""


class TargetSpec(Model):
    """A target besides the merges: a model of the study's architecture, such as a merge made elsewhere, or one
    that is asked rather than loaded; see :mod:`mergerisk.transfer.black_box`.

    Attributes:
        label: what results call it.
        encoder: folder, file or hub id of a model, which carries the heads of all tasks.
        http: task → URL of the service that answers for it.
        callable: task → ``package.module:function``.
        answer: what the service sends: ``labels`` or ``scores``.
        batch_size: images in one request.
        queries: how many images may be sent in all, repeated requests included; for ``http``.
        timeout: seconds until a request is given up; a day at most.
        retries: of one request.
        token_variable: environment variable with a bearer token for the service.
        header_variables: header of a request → environment variable with its value.
        version: of the target: raise it when the target changes, so that older answers are not taken for it.
    """

    label: str
    encoder: ModelName | None = None
    http: dict[str, str] = Field(default_factory=dict)
    callable: dict[str, str] = Field(default_factory=dict)
    answer: Literal["labels", "scores"] = "labels"
    batch_size: Count = 16
    queries: Count | None = None
    timeout: Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT)] = 30.0
    retries: Annotated[int, Field(ge=0, le=1000)] = 3
    token_variable: str | None = None
    header_variables: dict[str, str] = Field(default_factory=dict)
    version: Annotated[str, AlsoWritten({"type": "number"})] = ""

    @field_validator("version", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return str(value) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _consistent(self) -> TargetSpec:
        if [bool(self.encoder), bool(self.http), bool(self.callable)].count(True) != 1:
            raise ValueError(
                "give encoder, a model's folder or file, or else http or callable, a mapping of tasks to where "
                "they are answered"
            )
        if self.http and self.queries is None:
            raise ValueError("an http target needs queries, the number of images that may be sent to it")
        if self.label in RESERVED_TARGETS:
            raise ValueError(f"label {self.label!r} is taken by a target that is no merge")
        return self

    @property
    def places(self) -> Mapping[str, str]:
        """Task → where it is answered, of one that is asked."""
        return self.http or self.callable
