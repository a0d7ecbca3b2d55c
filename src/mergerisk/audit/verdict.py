"""From a finished study to an audit's verdict: plain data, which every rendering starts from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mergerisk.audit.gate_results import GateResult, try_gate
from mergerisk.audit.gates import OF_A_CURVE, OF_A_MODEL
from mergerisk.audit.readings import Curve, ModelVerdict, Reading, read_outcomes
from mergerisk.errors import Faults, UserError, did_you_mean
from mergerisk.report.fact_words import said
from mergerisk.report.formatting import plural
from mergerisk.report.risk import mean_over_tasks
from mergerisk.report.worst import holds
from mergerisk.statistics import standings, tables_from_outcomes
from mergerisk.statistics.claim_tables import SATURATED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mergerisk.audit.audited import Audited
    from mergerisk.audit.gates import Gate
    from mergerisk.audit.schema import Audit
    from mergerisk.report.prices import PriceList
    from mergerisk.statistics import Fact, Standings

SCHEMA_VERSION = 2
"""Of ``audit.json``. Raised when a field changes its name or meaning."""


@dataclass(frozen=True)
class Verdict:
    """What an audit finds.

    Attributes:
        schema_version: :data:`SCHEMA_VERSION`.
        name: the audit's.
        base: the pretrained backbone.
        surrogates: in the order of the audit.
        epsilons: measured budgets, rising, in pixel units.
        norm: what they bound.
        reference_epsilon: the budget at which models are compared and their worst attackers found: the one that
            gates name; of several, or of all if they name none, where ASR is nearest one half.
        attacks: the strongest of which counts.
        images: attacked, over all tasks.
        models: the audited ones.
        released: the model to be released; None if there are only candidates.
        recommended: the safest within the accuracy tolerance, among all audited models; None if nothing was
            measured.
        as_safe: others within the tolerance that cannot be told from it at the reference budget, on the same
            images.
        standing: what both rest on: the models within the tolerance under the worst attacker; None if nothing was
            measured.
        tolerance: clean accuracy that may be given up, as a share.
        gates: how they ended.
        remarks: what one must know to read the figures.
        audited: what the figures rest on: files by their digests, date, versions; None if that is not known.
        doubts: why there is little to judge; said first.
        made_of: the base and the tasks' own experts, attacked as the models are: what those are measured by.
        beside_ingredients: how they and the models stand, paired on the same images; None if nothing was measured.
        prices: what defenses would gain and cost; None if none was asked for.
    """

    schema_version: int
    name: str
    base: str
    surrogates: tuple[str, ...]
    epsilons: tuple[float, ...]
    norm: str
    reference_epsilon: float
    attacks: tuple[str, ...]
    images: int
    models: tuple[ModelVerdict, ...]
    released: str | None
    recommended: str | None
    as_safe: tuple[str, ...]
    standing: Standings | None
    tolerance: float
    gates: tuple[GateResult, ...]
    remarks: tuple[str, ...]
    audited: Audited | None = None
    doubts: tuple[str, ...] = ()
    made_of: tuple[ModelVerdict, ...] = ()
    beside_ingredients: Standings | None = None
    prices: PriceList | None = None

    @property
    def failed(self) -> bool:
        """Whether a gate failed on what is going to be released; a candidate beside it may fail, and only the
        candidate is told off."""
        return any(result.failed and result.decides for result in self.gates)

    @property
    def reason(self) -> GateResult | None:
        """Why the audit fails: of the gates that failed, the first on which the worst attacker decided, or else
        the first."""
        failed = [result for result in self.gates if result.failed and result.decides]
        by_worst = (it for it in failed if self.model(it.model).is_worst(it.surrogate, it.epsilon))
        return next(by_worst, failed[0] if failed else None)

    def model(self, name: str) -> ModelVerdict:
        """The audited model called ``name``."""
        return next(model for model in self.models if model.name == name)

    @property
    def compared(self) -> tuple[str, ...]:
        """The models within the accuracy tolerance of which an ASR is known: the safest is one of them."""
        return tuple(model.name for model in _accurate_enough(self.models, self.tolerance))

    @property
    def subject(self) -> ModelVerdict:
        """What the verdict is about: the model for which the audit fails, else the (first) one to be released,
        else the recommended, else the first."""
        if self.reason is not None:
            return self.model(self.reason.model)
        return self.model(self.released or self.recommended or self.models[0].name)


def judge(
    audit: Audit,
    outcomes: pd.DataFrame,
    accuracy: pd.DataFrame,
    notes: Sequence[str] = (),
    audited: Audited | None = None,
    doubts: Iterable[Fact] = (),
    prices: PriceList | None = None,
) -> Verdict:
    """The verdict on an audit whose study has run.

    Args:
        audit: what was asked.
        outcomes: per image; see :mod:`mergerisk.transfer.rates`.
        accuracy: see :attr:`mergerisk.report.Summary.accuracy`.
        notes: what one must know of the models and images, in sentences.
        audited: what the figures rest on, where that is known.
        doubts: see :attr:`mergerisk.report.Summary.doubts`.
        prices: see :attr:`mergerisk.report.Summary.prices`.

    Raises:
        UserError: a gate names a surrogate, a budget or a model that was not measured.
    """
    names = list(audit.models)
    readings, curves = read_outcomes(outcomes[_asked(audit, outcomes)], names)
    reference = _reference(readings, audit)
    models = tuple(_model(name, audit, accuracy, readings, curves, reference) for name in names)
    enough = [model.name for model in _accurate_enough(models, audit.accuracy_tolerance)]
    standing = _standing(outcomes[_asked(audit, outcomes)], enough, reference)
    made_of = _made_of(audit, outcomes, accuracy, reference)
    together = [*names, *(model.name for model in made_of)]
    first = outcomes["target"].iloc[0]
    setting = outcomes.loc[outcomes["target"] == first, ["task", "image"]].drop_duplicates()
    verdict = Verdict(
        schema_version=SCHEMA_VERSION,
        name=audit.name,
        base=audit.as_given(audit.base),
        surrogates=tuple(dict.fromkeys(reading.surrogate for reading in readings)),
        epsilons=audit.budgets.epsilon,
        norm=audit.budgets.norm,
        reference_epsilon=reference,
        attacks=tuple(spec.label for spec in audit.attacks),
        images=len(setting),
        models=models,
        released=next(iter(audit.merged), None),
        recommended=standing.leader.name if standing else None,
        as_safe=standing.alike if standing else (),
        standing=standing,
        tolerance=audit.accuracy_tolerance,
        gates=(),
        remarks=(*_remarks(audit, models, reference), *notes),
        audited=audited,
        doubts=tuple(said(doubt) for doubt in doubts),
        made_of=made_of,
        prices=prices,
        beside_ingredients=_standing(_attacked(audit, outcomes), together, reference) if made_of else None,
    )
    default = [*audit.merged] or [verdict.subject.name]
    return replace(
        verdict,
        gates=tuple(
            try_gate(gate, verdict.model(name), decides=not audit.merged or name in audit.merged)
            for gate in audit.gates
            for name in ([gate.model] if gate.model else default)
        ),
    )


def _made_of(
    audit: Audit, outcomes: pd.DataFrame, accuracy: pd.DataFrame, reference: float
) -> tuple[ModelVerdict, ...]:
    """What the models were made of, where it was attacked, too: by every attacker but one that holds it."""
    names = [name for name in ("expert", "pretrained") if (outcomes["target"] == name).any()]
    if not names:
        return ()
    readings, curves = read_outcomes(_attacked(audit, outcomes), names)
    return tuple(_model(name, audit, accuracy, readings, curves, reference) for name in names)


def check_gates(audit: Audit, surrogates: Iterable[str]) -> None:
    """See, before anything runs, that every gate speaks of what is going to be measured.

    Raises:
        UserError: one does not.
    """
    known, faults = list(surrogates), Faults()
    for gate in audit.gates:
        with faults.collecting():
            _check_gate(audit, gate, known)
    faults.settle()


def _check_gate(audit: Audit, gate: Gate, known: list[str]) -> None:
    names = list(audit.models)
    released = next(iter(audit.merged), None)
    if gate.model is not None and gate.model not in names:
        raise UserError(f"gate {gate.text!r}: no model {gate.model!r}{did_you_mean(gate.model, names)}")
    if gate.surrogate is not None and gate.surrogate not in known:
        near = did_you_mean(gate.surrogate, known)
        raise UserError(f"gate {gate.text!r}: no surrogate {gate.surrogate!r}{near}")
    model = gate.model or released
    if gate.surrogate is not None and model is not None and not _holds(audit, gate.surrogate, model):
        raise UserError(
            f"gate {gate.text!r}: attacks on {model} from {gate.surrogate} belong to scenario "
            f"{'merged' if gate.surrogate == model else 'other_merges'}, which is not asked for"
        )
    if gate.surrogate is None and gate.measure not in OF_A_MODEL and set(audit.scenarios) == {"merged"}:
        raise UserError(f"gate {gate.text!r}: every scenario is a white box; say which: from MODEL")
    if gate.measure in OF_A_CURVE and audit.budgets.norm == "linf" and gate.limit > 1:
        raise UserError(f"gate {gate.text!r}: a budget is at most 1, as pixels are; write {gate.limit:g}/255")
    measured = audit.budgets.epsilon
    if gate.epsilon is not None and not any(math.isclose(gate.epsilon, epsilon) for epsilon in measured):
        budgets = ", ".join(f"{255 * epsilon:g}/255" for epsilon in measured)
        raise UserError(f"gate {gate.text!r}: no such budget is measured; budgets.epsilon has {budgets}")


def _holds(audit: Audit, surrogate: str, model: str) -> bool:
    """Whether some attacker of the audit holds ``surrogate`` when ``model`` is attacked."""
    if surrogate not in audit.models:
        return True
    if surrogate == model:
        return "merged" in audit.scenarios
    return "other_merges" in audit.scenarios and surrogate not in audit.merged


def _asked(audit: Audit, outcomes: pd.DataFrame) -> pd.Series[bool]:
    """The rows that a scenario asks for: a study shows every surrogate's images to every model."""
    pairs = outcomes[["surrogate", "target"]].drop_duplicates()
    unwanted = {
        pair for pair in pairs.itertuples(index=False, name=None) if not _holds(audit, str(pair[0]), str(pair[1]))
    }
    wanted = pd.Series(True, index=outcomes.index)
    for surrogate, target in unwanted:
        wanted &= (outcomes["surrogate"] != surrogate) | (outcomes["target"] != target)
    return wanted


def _attacked(audit: Audit, outcomes: pd.DataFrame) -> pd.DataFrame:
    """The rows that a scenario asks for, of attacks on what the attacker does not hold."""
    pairs = outcomes[["surrogate", "target"]].astype(str)
    held = {pair for pair in pairs.drop_duplicates().itertuples(index=False, name=None) if holds(*pair)}
    known = zip(pairs["surrogate"], pairs["target"], strict=True)
    outside = np.array([pair not in held for pair in known], dtype=bool)
    return outcomes[_asked(audit, outcomes) & outside]


def _reference(readings: Sequence[Reading], audit: Audit) -> float:
    """The budget that gates on what is going to be released name. Of several, or of all if they name none, the one
    at which the mean ASR of black boxes is nearest one half: there a ceiling hides least."""
    wanted = [
        gate.epsilon
        for gate in audit.gates
        if gate.epsilon is not None and (gate.model is None or not audit.merged or gate.model in audit.merged)
    ]
    measured = audit.budgets.epsilon
    named = [epsilon for epsilon in measured if any(math.isclose(epsilon, other) for other in wanted)]

    def distance(epsilon: float) -> float:
        here = [r.asr for r in readings if r.epsilon == epsilon and not r.white_box and not math.isnan(r.asr)]
        return abs(sum(here) / len(here) - 0.5) if here else math.inf

    return min(named or measured, key=distance)


def _model(
    name: str,
    audit: Audit,
    accuracy: pd.DataFrame,
    readings: Sequence[Reading],
    curves: Sequence[Curve],
    reference: float,
) -> ModelVerdict:
    own = tuple(reading for reading in readings if reading.model == name)
    rows = accuracy[accuracy["model"] == name]
    black = [r for r in own if not r.white_box and r.epsilon == reference and not math.isnan(r.asr)]
    return ModelVerdict(
        name,
        name in audit.merged,
        mean_over_tasks(rows, "accuracy", "low", "high"),
        dict(zip(rows["task"].tolist(), rows["accuracy"].tolist(), strict=True)),
        own,
        tuple(curve for curve in curves if curve.model == name),
        max(black, key=lambda reading: reading.asr, default=None),
    )


def _accurate_enough(models: Sequence[ModelVerdict], tolerance: float) -> list[ModelVerdict]:
    best = max(model.clean_accuracy.value for model in models)
    return [m for m in models if m.worst is not None and m.clean_accuracy.value >= best - tolerance]


def _standing(outcomes: pd.DataFrame, names: Sequence[str], epsilon: float) -> Standings | None:
    """The models under the worst attacker at one budget: whoever holds the surrogate, with the attack, that fools
    the model most often; the model itself is nobody's surrogate."""
    here = outcomes[outcomes["target"].isin(names) & np.isclose(outcomes["epsilon"], epsilon)]
    here = here[here["surrogate"].astype(str) != here["target"].astype(str)]
    if here.empty:
        return None
    whose = here["surrogate"].astype(str) + " with " + here["attack"].astype(str)
    attackers = here.assign(surrogate=whose, attack="the strongest", steps=0).reset_index(drop=True)
    tables = tables_from_outcomes(attackers, merges=names)
    found = standings(tables, names, rows=np.ones(len(tables.rates), dtype=bool))
    return found[0] if found else None


def _remarks(audit: Audit, models: Sequence[ModelVerdict], reference: float) -> tuple[str, ...]:
    found = []
    for model in models:
        if model.worst is not None and model.worst.asr >= SATURATED:
            found.append(
                f"{model.name}: at {255 * reference:g}/255 nearly every image is fooled; ε50 tells models "
                "apart, ASR does not"
            )
        few = min(model.readings, key=lambda reading: reading.images_both_correct, default=None)
        if few is not None and few.images_both_correct < _FEW:
            number = few.images_both_correct
            whom = "it classifies" if few.white_box else f"it and {few.surrogate} both classify"
            found.append(
                f"{model.name}: {whom} only {plural(number, 'image')} correctly when clean; mind the intervals"
            )
    if audit.calibration == "test" and audit.candidates:
        found.append("data-driven merging has read the images that are attacked, without their labels")
    return tuple(found)


_FEW = 30
"""Images; below, an interval is wider than most differences."""
