"""Which targets of a study differ in one thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.merging.catalogue import split_name

if TYPE_CHECKING:
    from mergerisk.statistics.explaining import Contrast
    from mergerisk.study.fields.named import MethodSpec
    from mergerisk.study.schema import Study


def contrasts_of(study: Study) -> tuple[Contrast, ...]:
    """The changes of a resolved study, each with its targets and their doses: paths; a merge with and without
    placebo, its own ingredient, a block's order; and one with and without a correction."""
    from mergerisk.statistics.explaining import Contrast

    found: dict[str, dict[str, float]] = {}
    for spec in study.merging:
        change = spec.intervention
        whole = next((other for other in study.merging if _is_plain(other, spec)), None)
        if change is not None and change.kind == "path":
            name = f"{spec.name if whole is None else whole.label}, path"
            found.setdefault(name, {})[spec.label] = float(change.value)
        elif whole is not None and whole is not spec:
            found[spec.label] = {whole.label: 0.0, spec.label: 1.0}
    return tuple(Contrast(name, doses) for name, doses in found.items() if len(doses) > 1)


def _is_plain(other: MethodSpec, spec: MethodSpec) -> bool:
    """Whether a merge is that of a spec as it is: without its change and its correction."""
    method, correction = split_name(spec.name)
    parameters = {name: value for name, value in spec.parameters.items() if name != correction}
    return other.intervention is None and (other.name, other.parameters) == (method, parameters)
