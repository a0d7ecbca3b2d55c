"""The reference of the Python interface: a page per room, with every public name, as the stubs name them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from links import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = ROOT / "src" / "mergerisk"

ROOMS = {
    "tasks": "Tasks",
    "models": "Models",
    "merging": "Merging",
    "attacks": "Attacks",
    "transfer": "Transfer",
    "statistics": "Statistics",
    "causes": "Causes",
    "defenses": "Defenses",
    "study": "Studies",
    "audit": "Audits",
    "leaderboard": "Leaderboards",
    "plots": "Pictures",
    "listeners": "Listeners",
}
"""Public rooms, and what their pages are called."""

GROUPS = {
    "Whole studies": ("run", "plan", "validate", "load_study", "load_run", "StudyResult", "Study", "write_report",
                      "export_report", "compare", "claims", "explain", "moves", "prices", "recommend",
                      "Recommendation"),
    "Audits": ("Audit", "load_audit"),
    "Tasks": ("load_task", "load_tasks", "Task", "Split"),
    "Models": ("load_encoder", "load_expert", "load_sibling", "load_classifier", "Encoder", "Head", "Classifier",
               "linear_probe", "zero_shot", "checkpoint_head", "fine_tune", "FineTuning", "check", "Check"),
    "Transfer": ("measure_transfer",),
    "Errors": ("UserError",),
}  # fmt: skip
"""The names of ``mergerisk`` itself in the order in which one meets them; others follow under *More*."""

_CONVENTIONS = """
Pixels are floats in [0, 1], images N × 3 × H × W; budgets are in the same units, `8/255` say. Labels are int64,
one per image. Encoders map images to features N × D, heads features to logits N × K. Whatever is random takes a
`seed`. What a caller can get wrong raises [`UserError`][mergerisk.UserError], whose message is one line.
"""


def pages() -> Iterator[tuple[str, str]]:
    """Address and Markdown of every page."""
    yield "api/index.md", _front()
    for room, title in ROOMS.items():
        names = names_of_room(room)
        parts = [f"# {title}: `mergerisk.{room}`\n", f"::: mergerisk.{room}\n    options: {{members: false}}\n"]
        parts += [_reference(f"mergerisk.{room}.{name}") for name in names]
        yield f"api/{room}.md", "\n".join(parts)


def _front() -> str:
    parts = ["# Python\n", _CONVENTIONS, f"`import mergerisk as mr`; the rooms are {_rooms()}.\n"]
    known = public_names(SOURCE / "__init__.pyi")
    rest = {name for name in known if name not in ROOMS}
    for title, names in GROUPS.items():
        parts += [f"## {title}\n", *(_reference(f"mergerisk.{name}", 3) for name in names)]
        rest -= set(names)
    if rest:
        parts += ["## More\n", *(_reference(f"mergerisk.{name}", 3) for name in sorted(rest))]
    return "\n".join(parts)


def _rooms() -> str:
    return ", ".join(f"[`{room}`]({room}.md)" for room in ROOMS)


def _reference(name: str, level: int = 2) -> str:
    return f"::: {name}\n    options: {{heading_level: {level}}}\n"


def names_of_room(room: str) -> list[str]:
    """What a room exports, in its order: a package by its stub, a module by ``__all__``."""
    if (SOURCE / room).is_dir():
        return public_names(SOURCE / room / "__init__.pyi")
    for statement in ast.parse((SOURCE / f"{room}.py").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return list(ast.literal_eval(statement.value))
    return []


def public_names(stub: object) -> list[str]:
    """What a stub exports, in its order."""
    tree = ast.parse(ROOT.joinpath(str(stub)).read_text(encoding="utf-8"))
    aliases = [
        alias for statement in tree.body if isinstance(statement, ast.ImportFrom) for alias in statement.names
    ]
    return [alias.asname for alias in aliases if alias.asname and not alias.asname.startswith("_")]
