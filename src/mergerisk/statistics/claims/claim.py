"""What every kind of claim shares: a sentence, the settings it is about, and what a kind has to say for itself."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mergerisk.errors import did_you_mean
from mergerisk.statistics.cell_means import MEASURES, is_diagnostic
from mergerisk.validation import check_epsilon, parse_fraction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from mergerisk.statistics.cell_means import Design
    from mergerisk.statistics.claim_tables import Tables
    from mergerisk.statistics.claims.testing import ClaimTest

Unit = Literal["settings", "pairs"]

ROLES = ("expert", "pretrained", "merge", "other")
TARGET_COLUMNS = ("target", "target_role", "method", "correction")
SURROGATE_COLUMNS = ("surrogate", "surrogate_role")
FILTER_COLUMNS = ("task", "attack", *SURROGATE_COLUMNS, *TARGET_COLUMNS, "epsilon")
"""Columns that a claim may choose settings by; see :class:`mergerisk.statistics.Tables`."""


def known_name(name: str, known: Iterable[str], what: str) -> str:
    """The name, if it is known.

    Raises:
        ValueError: it is not.
    """
    names = list(known)
    if name not in names:
        raise ValueError(f"unknown {what} {name!r}{did_you_mean(name, names)}")
    return name


def _filters(value: object) -> object:
    """``{surrogate: expert, epsilon: [2/255]}`` as column → values."""
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of columns to a value or a list of values")  # noqa: TRY004
    found: dict[str, tuple[str | float, ...]] = {}
    for column, given in value.items():
        known_name(str(column), FILTER_COLUMNS, "column")
        values = list(given) if isinstance(given, list | tuple) else [given]
        if not values:
            raise ValueError(f"{column}: names no value")
        if column == "epsilon":
            found[column] = tuple(check_epsilon(parse_fraction(str(item))) for item in values)
            continue
        texts = tuple(str(item) for item in values)
        if column.endswith("_role"):
            for text in texts:
                known_name(text, ROLES, column)
        found[str(column)] = texts
    return found


Number = Annotated[float, Field(ge=-1e6, le=1e6)]
"""What a measure is held against, in its unit."""

Filters = Annotated[dict[str, tuple[str | float, ...]], BeforeValidator(_filters)]


RATES = (*MEASURES, *(f"{name}_all" for name in MEASURES if name != "clean_accuracy"))
"""What is measured of every setting."""

_NEAR = 0.85
"""What is as like the name of a rate as this is meant to be it."""


def _rate(value: object) -> object:
    return known_name(str(value), RATES, "measure")


def _measure(value: object) -> object:
    name = str(value)
    if difflib.get_close_matches(name, RATES, n=1, cutoff=_NEAR) or not name.isidentifier():
        return _rate(name)
    return name


Rate = Annotated[str, BeforeValidator(_rate)]
"""``asr``, ``relative_asr``, ``delta_asr`` (percentage points) or ``surrogate_asr``, among the images that
surrogate and target get right when clean, where that is known; the same with ``_all``, of all images;
``clean_accuracy``. Of several settings together ``relative_asr`` is a ratio of means: mean ASR of targets over
mean ASR of surrogates."""

Measure = Annotated[str, BeforeValidator(_measure)]
"""A :data:`Rate`, or a measure of a diagnostic, as a run's ``causes.parquet`` and ``pair_causes.parquet`` call it:
its mean over the images that surrogate and target get right when clean. Which there are, the data say."""


def _diagnostic(value: object) -> object:
    if not is_diagnostic(str(value)):
        raise ValueError(f"{value} is no measure of a diagnostic; explains compares two of those")
    return _measure(value)


Diagnostic = Annotated[str, BeforeValidator(_diagnostic)]
"""A measure of a diagnostic."""


class Strict(BaseModel):
    """Frozen, and knows no further fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Claim(Strict):
    """What all claims share.

    Attributes:
        name: for results.
        sentence: what is claimed.
        where: the settings it is about. Unless a filter of the claim names ``target`` or ``target_role``, only
            merges count as targets, and of those not the surrogate itself (white box); unless one names
            ``surrogate`` or ``surrogate_role``, only models that are no merge count as surrogates.
    """

    unit: ClassVar[Unit] = "settings"
    """What its numbers are of."""

    name: Annotated[str, Field(min_length=1)]
    sentence: Annotated[str, Field(min_length=1)]
    where: Filters = Field(default_factory=dict)

    @property
    def filters(self) -> tuple[Mapping[str, tuple[str | float, ...]], ...]:
        """All of its filters."""
        return (self.where,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Targets it cannot do without."""
        return ()

    @property
    @abstractmethod
    def measured(self) -> tuple[str, ...]:
        """The measures it speaks of."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The measures that its test looks at: those that it speaks of, and what they are held against."""
        return self.measured

    @property
    def compares_surrogates(self) -> bool:
        """Whether it holds one surrogate's attacks against another's, so that it is about no single attacker."""
        return False

    @abstractmethod
    def tested(self, tables: Tables, denominator: str, level: float) -> ClaimTest:
        """Test the claim with tasks as what is independent.

        Settings of one task share its images and depend on each other, so they are averaged, or clustered, within
        the task. Of a single task the test is laid out, and left to a bootstrap of its images to make.

        Args:
            tables: rates, and outcomes where they are known.
            denominator: ``both_correct`` or ``all``.
            level: of the critical difference, and of what could have been detected.
        """

    @abstractmethod
    def tested_on_epsilon50(self, curves: pd.DataFrame) -> ClaimTest | None:
        """The claim's test on ε50, margins left out; None where ε50 cannot speak to it.

        Args:
            curves: see :func:`mergerisk.statistics.claims.on_epsilon50.curve_table`.
        """

    def image_pairs(self, table: pd.DataFrame) -> Design | None:  # noqa: ARG002
        """Pairs of settings that can be compared image by image; None of a claim that has none."""
        return None
