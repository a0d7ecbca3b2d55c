"""Claims from a YAML file, by their kinds; and whether what they name is in the data."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from mergerisk.errors import Faults, UserError, did_you_mean
from mergerisk.given_settings import with_settings
from mergerisk.plain_data import check_plain
from mergerisk.statistics.cell_means import is_diagnostic
from mergerisk.statistics.claims.claim import RATES, Claim, Strict
from mergerisk.statistics.claims.explains import ExplainsClaim
from mergerisk.statistics.claims.extreme import ExtremeClaim
from mergerisk.statistics.claims.paired import PairedClaim
from mergerisk.statistics.claims.published import BUILT_IN, ON_CAUSES
from mergerisk.statistics.claims.rate import RateClaim
from mergerisk.statistics.claims.trend import TrendClaim
from mergerisk.validation import findings
from mergerisk.yaml_files import read_mapping

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

KINDS: dict[str, type[Claim]] = {
    "rate": RateClaim,
    "paired": PairedClaim,
    "trend": TrendClaim,
    "best": ExtremeClaim,
    "worst": ExtremeClaim,
    "explains": ExplainsClaim,
}
"""What a claim's ``kind`` may be."""


class ClaimFile(Strict):
    """A file of claims.

    Attributes:
        schema_version: of this format.
        include: built-in claims to judge too, by name; ``all`` for those of the published study, ``causes`` for
            those on causes.
        claims: one's own.
    """

    schema_version: Literal[1] = 1
    include: tuple[str, ...] = ()
    claims: tuple[Any, ...] = ()


def load_claims(path: Path, *, settings: Sequence[str] = ()) -> tuple[Claim, ...]:
    """The claims of a YAML file.

    Args:
        path: the file.
        settings: values instead of the file's; see :func:`mergerisk.given_settings.with_settings`.

    Raises:
        UserError: it cannot be read, or a field is wrong; the message names it.
    """
    try:
        return parse_claims(with_settings(read_mapping(path, "a file of claims"), settings))
    except UserError as error:
        faults = (fault if fault.startswith(str(path)) else f"{path}: {fault}" for fault in error.faults)
        raise UserError(*faults) from error


def parse_claims(content: Mapping[str, Any]) -> tuple[Claim, ...]:
    """Claims from the fields of :class:`ClaimFile`.

    Raises:
        UserError: a field is wrong; the message names it.
    """
    check_plain(content)
    try:
        file = ClaimFile(**content)
    except ValidationError as error:
        raise UserError(*findings(error, ClaimFile.model_fields)) from error
    built_in = {claim.name: claim for claim in (*BUILT_IN, *ON_CAUSES)}
    groups = {"all": BUILT_IN, "causes": ON_CAUSES}
    grouped = [claim.name for word, group in groups.items() if word in file.include for claim in group]
    wanted = [*grouped, *(name for name in file.include if name not in groups and name not in grouped)]
    faults = Faults()
    claims = []
    for name in wanted:
        with faults.collecting():
            if name not in built_in:
                raise UserError(f"include: unknown claim {name!r}{did_you_mean(name, [*groups, *built_in])}")
            claims.append(built_in[name])
    for position, given in enumerate(file.claims):
        with faults.collecting():
            claims.append(_parse_claim(given, f"claims[{position}]"))
    faults.settle()
    names = [claim.name for claim in claims]
    if not claims:
        raise UserError("names no claim; give claims, a list, or include: [all]")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"claim {name!r} is given twice; give one another name")
    return tuple(claims)


def _parse_claim(given: object, where: str) -> Claim:
    if not isinstance(given, dict):
        raise UserError(f"{where}: must be a mapping with kind, name and sentence")
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(
            f"{where}.kind: {'required, but not given' if kind is None else f'unknown kind {kind!r}'}"
            f"{did_you_mean(str(kind), KINDS)}"
        )
    model = KINDS[kind]
    try:
        return model(**given)
    except ValidationError as error:
        raise UserError(*(f"{where}: {finding}" for finding in findings(error, model.model_fields))) from error
    except TypeError as error:  # a field's name that is no text
        raise UserError(f"{where}: a field's name must be text") from error


def check_claims(claims: Iterable[Claim], rates: pd.DataFrame, diagnostics: Collection[str] = ()) -> None:
    """Whether what claims name is in the data.

    Args:
        claims: what is to be judged.
        rates: of every setting.
        diagnostics: the measures of diagnostics that the data hold.

    Raises:
        UserError: a value of a filter, a target, or a measure is not; the message names it.
    """
    built_in = set(map(id, (*BUILT_IN, *ON_CAUSES)))
    for claim in claims:
        if id(claim) in built_in:
            continue  # of these, what the data lacks is said in the verdict
        for measure in claim.reads:
            if is_diagnostic(measure) and measure not in diagnostics:
                raise UserError(f"claim {claim.name!r}: {_unknown_measure(measure, diagnostics)}")
        for column, values in ((column, values) for part in claim.filters for column, values in part.items()):
            if column.endswith("_role"):
                continue
            if column == "epsilon":
                _check_budgets(claim.name, values, rates)
                continue
            known = [str(name) for name in rates[column].unique()]
            for value in values:
                if value not in known:
                    hint = did_you_mean(str(value), known)
                    raise UserError(f"claim {claim.name!r}: {column} {value!r} is not in the data{hint}")
        targets = [str(name) for name in rates["target"].unique()]
        for target in claim.needs:
            if target not in targets:
                raise UserError(
                    f"claim {claim.name!r}: target {target!r} is not in the data{did_you_mean(target, targets)}"
                )


def _unknown_measure(measure: str, diagnostics: Collection[str]) -> str:
    """Which there are: all of them, since nobody knows them by heart."""
    if not diagnostics:
        return (
            f"unknown measure {measure!r} (known: {', '.join(RATES)}); measures of diagnostics are in runs of a "
            "study with causes: [gradient_alignment, …]"
        )
    near = difflib.get_close_matches(measure, [*RATES, *diagnostics], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"the data hold no measure {measure!r} ({hint}they have: {', '.join([*RATES, *sorted(diagnostics)])})"


def _check_budgets(claim: str, values: tuple[str | float, ...], rates: pd.DataFrame) -> None:
    known = rates["epsilon"].dropna().unique()
    for value in values:
        if not any(abs(float(value) - budget) < 1e-9 for budget in known):
            listed = ", ".join(f"{255 * budget:.3g}/255" for budget in sorted(known)) or "none"
            raise UserError(
                f"claim {claim!r}: epsilon {255 * float(value):.3g}/255 is not in the data (it has: {listed})"
            )
