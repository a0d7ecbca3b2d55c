"""A page for every name that a study can give, written from the catalogue, the class and the handwritten page.

Names, defaults, ranges and sources are the code's; equations and figures are the rows of the handwritten page's
tables that begin with the name. So nothing here can go stale.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from links import ROOT, Elsewhere, replaced

from mergerisk.attacks import ATTACKS, ENSEMBLE_ALGORITHMS, FILTERS, INPUTS
from mergerisk.causes import CAUSES
from mergerisk.defenses import DEFENSES
from mergerisk.docstrings import split_docstring
from mergerisk.merging import CORRECTIONS, METHODS
from mergerisk.study.file_schema import parameters_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.registry import Entry, Registry


@dataclass(frozen=True)
class Catalogue:
    """Pages of one kind.

    Attributes:
        folder: of the pages.
        page: the handwritten one, in ``docs/``.
        title: of the section.
        registry: where the names are.
        study: an entry of a study file, with ``{}`` for the name and its hyper-parameters.
        python: how it is made in Python, with ``{}`` likewise.
        name: as a study file writes it, with ``{}`` for the name.
    """

    folder: str
    page: str
    title: str
    registry: Registry[Any]
    study: str
    python: str
    name: str = "{}"


CATALOGUES = (
    Catalogue("methods", "merging.md", "Merging methods", METHODS, "merging:\n  - {{method: {}}}",
              "mr.merging.create({})"),
    Catalogue("corrections", "merging.md", "Corrections", CORRECTIONS,
              "merging:\n  - {{method: ties+{}}}", "mr.merging.create({})", "ties+{}"),
    Catalogue("attacks", "attacks.md", "Attacks", ATTACKS, "attacks:\n  - {{attack: {}}}",
              "mr.attacks.create({})"),
    Catalogue("inputs", "attacks.md", "Input transformations", INPUTS,
              "attacks:\n  - {{attack: mi_fgsm, inputs: [{{input: {}}}]}}", "", "{}"),
    Catalogue("filters", "attacks.md", "Gradient filters", FILTERS,
              "attacks:\n  - {{attack: mi_fgsm, gradient: [{{filter: {}}}]}}", "", "{}"),
    Catalogue("ensembles", "attacks.md", "Ensemble algorithms", ENSEMBLE_ALGORITHMS,
              "surrogates:\n  - {{ensemble: [expert, pretrained], algorithm: {{algorithm: {}}}}}",
              "mr.attacks.create_algorithm({})"),
    Catalogue("causes", "causes.md", "Diagnostics", CAUSES, "causes:\n  - {{cause: {}}}", "mr.causes.create({})"),
    Catalogue("defenses", "defenses.md", "Defenses", DEFENSES, "defenses:\n  - {{defense: {}, of: ties}}",
              "mr.defenses.create({})"),
)  # fmt: skip


def pages() -> Iterator[tuple[str, str]]:
    """Address and Markdown of every page."""
    for catalogue in CATALOGUES:
        for entry in own_entries(catalogue.registry):
            yield f"{catalogue.folder}/{entry.name}.md", page_of(catalogue, entry)


def own_entries(registry: Registry[Any]) -> list[Entry]:
    """What mergerisk itself has."""
    return [entry for entry in registry.entries() if entry.target.startswith("mergerisk.")]


def page_of(catalogue: Catalogue, entry: Entry) -> str:
    """The page of one name."""
    kind = catalogue.registry.load(entry.name)
    parameters = parameters_of(kind)
    told = _told(catalogue, entry.name)
    stands = catalogue.name.format(entry.name)
    source = _linked(entry.paper)
    parts = [
        f"# `{stands if stands != entry.name else entry.name}`\n",
        f"{entry.summary[0].upper()}{entry.summary[1:]}." + (f" Source: {source}." if source else ""),
        f"*[{catalogue.title}](../{catalogue.page}), all of them side by side.*\n",
        _upright(told[0]) if told else "",
        "## What it does\n",
        _words(kind),
        "## Hyper-parameters\n",
        _table(parameters),
        "## How it is asked for\n",
        _examples(catalogue, entry.name, parameters),
        "## What was measured\n" if told[1:] else "",
        _measured(told[1:]),
        "## Code\n",
        _code(kind),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def _linked(paper: str) -> str:
    """arXiv numbers as links."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", paper)


@dataclass
class _Told:
    """What a table of the handwritten page says of one name.

    Attributes:
        section: it stands in.
        above: the paragraph above it.
        titles: of its columns.
        rows: about the name.
    """

    section: str
    above: str
    titles: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)


def _told(catalogue: Catalogue, name: str) -> list[_Told]:
    """What the handwritten page's tables say of a name; a row that begins with a dash goes on from the last."""
    told: list[_Told] = []
    section, above, within, matching = "", "", False, False
    text = (ROOT / "docs" / catalogue.page).read_text(encoding="utf-8")
    address = f"{catalogue.folder}/{name}.md"
    lines = replaced(text, f"docs/{catalogue.page}", address, Elsewhere()).splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        within = within != line.startswith("```")
        cells = _cells(line)
        if within or _RULE.fullmatch(line):
            continue
        if line.startswith("#"):
            section = line.lstrip("# ")
        if not cells:
            above = line if line and above == "\n" else f"{above} {line}" if line else "\n"
            matching = False
        elif _RULE.fullmatch(after):
            told.append(_Told(section, above.strip(), cells))
        elif told:
            named = [one.removeprefix("…+") for one in re.findall(r"`([^`]+)`", cells[0])]
            matching = (matching and cells[0].startswith("–")) or name in named
            told[-1].rows += [cells] if matching else []
    return [table for table in told if table.rows and table.section != "Speed and memory"]


_RULE = re.compile(r"\|[-| :]+\|")


def _upright(table: _Told) -> str:
    """A table about one name, its columns below each other; of several rows, each with its first cell above."""
    parts = []
    for cells in table.rows:
        pairs = zip(table.titles[1:], cells[1:], strict=False)
        said = "\n".join(f"| {title} | {cell} |" for title, cell in pairs if cell and cell != "–")
        parts.append(f"| {cells[0]} | |\n|---|---|\n{said}\n" if said else "")
    return "\n".join(parts)


def _measured(tables: list[_Told]) -> str:
    """Tables of figures, with what stands above them on the page."""
    parts = []
    for table in tables:
        lines = [table.titles, ("---",) * len(table.titles), *table.rows]
        rows = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        said = (table.section, table.above.partition(". ")[0].rstrip("."))
        parts.append(f"{'. '.join(part for part in said if part)}.\n\n{rows}\n")
    return "\n".join(parts)


def _cells(line: str) -> tuple[str, ...]:
    """The cells of a table's row; none of another line."""
    if not line.startswith("|"):
        return ()
    inside = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return tuple(cell.strip() for cell in inside)


def _words(kind: Any) -> str:
    """The class's docstring without its fields, as Markdown."""
    head, _ = split_docstring(inspect.getdoc(kind) or "")
    return as_markdown(head)


def as_markdown(text: str) -> str:
    """Words of a docstring: marks of reStructuredText as code, arXiv numbers as links."""
    text = re.sub(r":\w+:`~?([^`]*)`|``([^`]*)``", lambda m: f"`{m[1] or m[2]}`", text)
    return _linked(text).replace("::\n", ":\n")


def _table(parameters: dict[str, dict[str, Any]]) -> str:
    if not parameters:
        return "None."
    lines = ["| name | default | values | what it is |", "|---|---|---|---|"]
    for name, schema in parameters.items():
        default = _yaml(schema["default"]) if "default" in schema else "*required*"
        default = default if default.startswith("*") else f"`{default}`"
        meaning = as_markdown(schema.get("description", "")).replace("|", "\\|")
        lines.append(f"| `{name}` | {default} | {values(schema)} | {meaning} |")
    return "\n".join(lines)


def values(schema: dict[str, Any]) -> str:
    """What a hyper-parameter may be, in words."""
    if "enum" in schema:
        return ", ".join(f"`{_yaml(one)}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{_yaml(schema['const'])}`"
    if "anyOf" in schema:
        if "pattern" in json.dumps(schema):
            return "a budget: a number above 0, or a fraction such as `8/255`"
        return ", or ".join(dict.fromkeys(values(one) for one in schema["anyOf"]))
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return f"{len(schema['prefixItems'])} values: {values(schema['prefixItems'][0])}"
        return f"a list of: {values(schema.get('items', {}))}"
    if kind in {"number", "integer"}:
        return ("a number" if kind == "number" else "a whole number") + _range(schema)
    words = {"boolean": "`true`, `false`", "string": "a text", "null": "nothing", "object": "a mapping"}
    if kind == "string" and "examples" in schema:
        return "names such as " + ", ".join(f"`{one}`" for one in schema["examples"][:3])
    return words.get(str(kind), "")


def _range(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if high is not None and high >= 1e9:
        high = None  # a bound of machines, not of the method
    left = f"[{low:g}" if low is not None else f"({above:g}" if above is not None else None
    right = f"{high:g}]" if high is not None else f"{below:g})" if below is not None else None
    if left and right:
        return f" in {left}, {right}"
    if left:
        return f", {low:g} or more" if low is not None else f" above {above:g}"
    if right:
        return f", at most {high:g}" if high is not None else f" below {below:g}"
    return ""


def _yaml(value: Any) -> str:
    """A value as a study file writes it, on one line."""
    if isinstance(value, float):
        fraction = value * 255
        near = abs(fraction - round(fraction)) < 1e-9 and 0 < value < 0.2
        return f"{round(fraction)}/255" if near else f"{value:g}"
    return json.dumps(value, ensure_ascii=False).strip('"') if value is not None else "null"


_BROUGHT = {"file": "perturbation.npy", "style": "restyling:network@style.safetensors"}
"""What stands in examples for hyper-parameters that have no default."""


def _examples(catalogue: Catalogue, name: str, parameters: dict[str, dict[str, Any]]) -> str:
    """In a study file and in Python, with a hyper-parameter where there is one to show."""
    given = {key: schema["default"] for key, schema in parameters.items() if _is_plain(schema.get("default"))}
    given |= {key: _BROUGHT[key] for key, schema in parameters.items() if "default" not in schema}
    first = dict([*given.items()][-1:] if "default" not in (parameters.get("file") or {"default": 0}) else given)
    nested = "" if catalogue.registry is not CORRECTIONS else name
    inside = ", ".join(f"{key}: {_yaml(value)}" for key, value in first.items())
    written = name + (f", {nested}: {{{inside}}}" if nested and first else f", {inside}" if first else "")
    study = "# part of study.yaml\n" + catalogue.study.format(written)
    parts = [f"```yaml\n{study}\n```"]
    if catalogue.python:
        keywords = ", ".join(f"{key}={value!r}" for key, value in first.items())
        keywords = f"{nested}={json.dumps(first)}" if nested and first else keywords
        call = f'"{catalogue.name.format(name)}"' + (f", {keywords}" if keywords else "")
        parts.append(f"```python\nimport mergerisk as mr\n\nmade = {catalogue.python.format(call)}\n```")
    return "\n\n".join(parts)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _code(kind: Any) -> str:
    file = inspect.getsourcefile(kind)
    assert file is not None
    source = inspect.getsource(kind)
    place = file[file.index("mergerisk/") :]
    body = "\n".join(f"    {line}".rstrip() for line in source.rstrip().splitlines())
    return f'??? quote "src/{place}"\n\n    ```python\n{body}\n    ```\n'
