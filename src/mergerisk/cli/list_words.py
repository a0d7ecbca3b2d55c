"""What ``mergerisk list`` prints."""

from __future__ import annotations

import importlib
import json
from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING, Any

from mergerisk.text_tables import table_of, table_width

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.registry import Entry, Registry
    from mergerisk.signatures import Signature
    from mergerisk.tasks.hub_datasets import HubDataset


_REGISTRIES = {
    "causes": ("causes.catalogue", "CAUSES"),
    "defenses": ("defenses.catalogue", "DEFENSES"),
    "inputs": ("attacks.parts", "INPUTS"),
    "filters": ("attacks.parts", "FILTERS"),
    "ensembles": ("attacks.catalogue", "ENSEMBLE_ALGORITHMS"),
    "searches": ("transfer.catalogue", "SEARCHES"),
    "tables": ("study.further", "TABLES"),
}
"""What is listed as it stands in a registry: its module and its name."""


def describe_names(what: str, width: int | None = None) -> str:
    """A table of names, what they stand for and, of methods and attacks, the hyper-parameters with defaults.

    Args:
        what: one of the names of :data:`mergerisk.cli.list_commands.LISTS`.
        width: columns of the terminal that long cells are wrapped to fit. None for one line per name, however
            long, so that ``grep`` finds a name with everything that belongs to it.
    """
    rows, below = _attacks() if what == "attacks" else (_names(what), [])
    if width is not None:
        rows = _fold(rows, width)
        below = [fill(line, width=width, subsequent_indent="  ", break_on_hyphens=False) for line in below]
    table = table_of(rows)
    return "\n".join([table, *(["", *below] if below else [])])


def names_to_json(what: str) -> str:
    """The same as JSON: an object per name, as the table has columns."""
    return json.dumps(_attacks()[0] if what == "attacks" else _names(what), ensure_ascii=False, indent=1)


def describe_kinds(kinds: Mapping[str, str]) -> str:
    """What can be listed, with the command that lists it."""
    return table_of([{"command": f"mergerisk list {name}", "what it lists": text} for name, text in kinds.items()])


def _names(what: str) -> list[dict[str, str]]:
    """Of every name, title of the column → cell."""
    if what == "tasks":
        from mergerisk.tasks.catalogue import TASK_KINDS
        from mergerisk.tasks.hub_datasets import HUB_TASKS
        from mergerisk.tasks.starter import DESCRIPTIONS

        return [
            *_two_columns(DESCRIPTIONS),
            *({"name": name, "what it is": _dataset(dataset)} for name, dataset in HUB_TASKS.items()),
            *_two_columns({entry.name: entry.summary for entry in TASK_KINDS.entries() if entry.distribution}),
        ]
    if what == "backbones":
        from mergerisk.models.sources.loading import BACKBONES, FORMS

        return _two_columns({entry.name: entry.summary for entry in BACKBONES.values()}) + _two_columns(FORMS)
    if what == "surrogates":
        from mergerisk.study.fields.surrogates import SURROGATES

        forms = {"never": "", "may be": "[/NAME]", "always": "/NAME"}
        return _two_columns({f"{kind}{forms[named]}": summary for kind, (named, summary) in SURROGATES.items()})
    if what in _REGISTRIES:
        module, name = _REGISTRIES[what]
        return _rows(getattr(importlib.import_module(f"mergerisk.{module}"), name))
    if what == "merging":
        return _merging()
    if what == "listeners":
        from mergerisk.listeners.catalogue import LISTENERS

        return _two_columns({entry.name: entry.summary for entry in LISTENERS.entries()})
    from mergerisk.study.shipped import shipped_studies
    from mergerisk.yaml_files import read_mapping

    found = {name: (read_mapping(path, "a study"), path) for name, path in shipped_studies().items()}
    return _two_columns(
        {name: f"{' '.join(study['description'].split())} File: {path}" for name, (study, path) in found.items()}
    )


def _two_columns(summaries: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "what it is": summary} for name, summary in summaries.items()]


def _dataset(dataset: HubDataset) -> str:
    """Where on the hub a task is, and at which commit."""
    config = f", config {dataset.config}" if dataset.config else ""
    return f"hub:{dataset.name}@{dataset.revision}{config}"


def _attacks() -> tuple[list[dict[str, str]], list[str]]:
    """The attacks with the hyper-parameters of their own, and lines on those that most of them share."""
    from mergerisk.attacks.catalogue import ATTACKS
    from mergerisk.signatures import signatures

    found = signatures(ATTACKS)
    known = {name: signature for name, signature in found.items() if signature is not None}
    counts = Counter(pair for signature in known.values() for pair in signature.parameters.items())
    shared = {name: value for (name, value), count in counts.items() if value and 2 * count > len(known)}
    lacking: defaultdict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name, value in shared.items():
        lacking[tuple(other for other, it in known.items() if name not in it.parameters)][name] = value
    rows = []
    for entry in ATTACKS.entries():
        signature = known.get(entry.name)
        if signature is not None:
            own = {name: value for name, value in signature.parameters.items() if shared.get(name, ...) != value}
            signature = replace(signature, parameters=own)
        rows.append(_row(entry, signature, none="(those below)"))
    below = []
    for others, pairs in lacking.items():
        which = f"all but {', '.join(others)}" if others else "all"
        below.append(f"{which}, if not given another value above: {_given(pairs)}")
    return rows, [*below, "what inputs and gradient can name: mergerisk list inputs, mergerisk list filters"]


def _rows(registry: Registry[Any]) -> list[dict[str, str]]:
    from mergerisk.signatures import signatures

    found = signatures(registry)
    return [_row(entry, found[entry.name]) for entry in registry.entries()]


def _merging() -> list[dict[str, str]]:
    from mergerisk.merging.catalogue import CORRECTIONS, METHODS
    from mergerisk.signatures import signatures

    rows = []
    methods, corrections = signatures(METHODS), signatures(CORRECTIONS)
    for entry in METHODS.entries():
        found = methods[entry.name]
        data = _flag(found, "needs_calibration", "images", "none")
        encoder = _flag(found, "encoder_per_task", "per task", "one")
        rows.append(_row(entry, found, data=data, encoder=encoder))
    for entry in CORRECTIONS.entries():
        found = corrections[entry.name]
        encoder = _flag(found, "changes_encoder", "per task", "unchanged")
        rows.append(_row(replace(entry, name=f"…+{entry.name}"), found, data="images", encoder=encoder))
    return rows


def _row(entry: Entry, signature: Signature | None, *, none: str = "(none)", **facts: str) -> dict[str, str]:
    given = "(unknown: no source found)" if signature is None else _given(signature.parameters)
    return {
        "name": entry.name,
        **facts,
        "source": entry.paper,
        "what it is": " ".join(entry.summary.split()),  # a docstring of several lines, it may be
        "hyper-parameters": given or none,
    }


def _given(parameters: Mapping[str, str | None]) -> str:
    return ", ".join(
        f"{name} (required)" if value is None else f"{name}={value}" for name, value in parameters.items()
    )


def _flag(signature: Signature | None, name: str, yes: str, no: str) -> str:
    value = signature.flags.get(name) if signature else None
    return "?" if value is None else yes if value else no


def _fold(rows: list[dict[str, str]], width: int) -> list[dict[str, str]]:
    """The same with each source below the name, and the hyper-parameters below what it is, in a last column that
    is wrapped to what the others leave of ``width``."""
    texts = "what it is", "hyper-parameters"
    left = [
        {title: cell for title, cell in row.items() if title not in {"source", *texts}}
        | {"name": f"{row['name']}\n  {row.get('source', '')}".rstrip()}
        for row in rows
    ]
    used = table_width([tuple(left[0]), *(tuple(row.values()) for row in left)])
    wrap = partial(fill, width=max(28, width - used - 2), break_long_words=False, break_on_hyphens=False)
    last = ", ".join(text for text in texts if text in rows[0])
    right = [
        f"{wrap(row[texts[0]])}\n{wrap(row.get(texts[1], ''), initial_indent='  ', subsequent_indent='  ')}"
        for row in rows
    ]
    return [cells | {last: text} for cells, text in zip(left, right, strict=True)]
