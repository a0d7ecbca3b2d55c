"""How hard defended models are attacked before a study says that something defends."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mergerisk.study.fields.basics import Model
from mergerisk.validation import Count


class Checks(Model):
    """What every defended model is tried with, at the middle budget; see :func:`mergerisk.defenses.gather`.

    Attributes:
        images: of every task, at most; of those that are attacked.
        steps: of the white box.
        restarts: of it, from random starts.
        queries: of an attack without gradients, per image.
    """

    images: Count = 50
    steps: Annotated[int, Field(ge=10, le=10_000)] = 20
    restarts: Annotated[int, Field(ge=2, le=1000)] = 3
    queries: Count = 200
