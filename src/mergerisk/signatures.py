"""What the implementations of a registry can be given, read from their source without importing them.

Importing an implementation loads PyTorch, which takes seconds; ``mergerisk list`` has to answer at once, and a
second list of hyper-parameters beside the classes would sooner or later lie. So the classes' source is parsed.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mergerisk.registry import Registry

    Names = Mapping[str, ast.ClassDef | str]
    """What a module calls things: classes it defines, and dotted names of what it imports."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A class of hyper-parameters from outside.

    Attributes:
        parameters: hyper-parameter → its default, as Python writes it; None if it has to be given.
        flags: class variables that are True or False.
    """

    parameters: Mapping[str, str | None]
    flags: Mapping[str, bool]


def signatures(registry: Registry[Any]) -> dict[str, Signature | None]:
    """Every entry's signature by name; None where nothing can be found out, as for a broken plugin.

    Inherited fields count where the base class is of this package or of the implementation's own.
    """
    names = cache(_names)  # base classes are shared; forgotten after this call
    found = {}
    for entry in registry.entries():
        if registry.registered(entry.name):
            found[entry.name] = _inspected(registry.load(entry.name))
        else:
            found[entry.name] = _parsed(entry.target.replace(":", "."), names)
    return found


def _inspected(implementation: Any) -> Signature | None:
    try:
        given = inspect.signature(implementation).parameters.values()
    except (TypeError, ValueError):
        return None
    parameters = {p.name: None if p.default is p.empty else repr(p.default) for p in given}
    others = {name: getattr(implementation, name, None) for name in dir(implementation) if name not in parameters}
    flags = {name: value for name, value in others.items() if isinstance(value, bool) and not name.startswith("_")}
    return Signature(parameters, flags)


def _parsed(target: str, names: Callable[[str], Names]) -> Signature | None:
    packages = {"mergerisk", target.partition(".")[0]}
    classes = list(_lineage(target, names, packages, set()))
    parameters: dict[str, str | None] = {}
    flags: dict[str, bool] = {}
    for owner, statement in [(found, statement) for found in classes for statement in found.body]:
        match statement:
            # As in a dataclass: fields are what is annotated in a class that is decorated.
            case ast.AnnAssign(target=ast.Name(name), annotation=kind, value=default) if (
                owner.decorator_list and "ClassVar" not in ast.unparse(kind)
            ):
                parameters[name] = None if default is None else ast.unparse(default)
            case (
                ast.AnnAssign(target=ast.Name(name), value=ast.Constant(bool(value)))
                | ast.Assign(targets=[ast.Name(name)], value=ast.Constant(bool(value)))
            ):
                flags[name] = value
    return Signature(parameters, flags) if classes else None


def _lineage(
    name: str, names: Callable[[str], Names], packages: set[str], seen: set[str]
) -> Iterator[ast.ClassDef]:
    """The class with this dotted name after its base classes, each once, as dataclasses collect fields."""
    if name in seen or name.partition(".")[0] not in packages:
        return
    seen.add(name)
    module, _, attribute = name.rpartition(".")
    known = names(module)
    found = known.get(attribute)
    if isinstance(found, str):
        yield from _lineage(found, names, packages, seen)
    elif found is not None:
        for base in reversed(found.bases):
            first, *rest = ast.unparse(base).partition("[")[0].split(".")
            origin = known.get(first)
            start = origin if isinstance(origin, str) else f"{module}.{first}"
            yield from _lineage(".".join([start, *rest]), names, packages, seen)
        yield found


def _names(module: str) -> Names:
    """What is defined and imported at the top of a module; nothing if it cannot be found or parsed."""
    found: dict[str, ast.ClassDef | str] = {}
    files, package = _files(module)
    for statement in [statement for file in files for statement in _statements(file)]:
        match statement:
            case ast.ClassDef(name=name):
                found[name] = statement
            case ast.Import(names=aliases):
                for alias in aliases:
                    top = alias.name.partition(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            case ast.ImportFrom(module=source, names=aliases, level=level):
                above = package.rsplit(".", level - 1)[0] if level else ""
                start = ".".join(filter(None, [above, source]))
                found |= {alias.asname or alias.name: f"{start}.{alias.name}" for alias in aliases}
    return found


def _files(module: str) -> tuple[list[Path], str]:
    """A module's stub, which says what a lazy package re-exports, and its source; and the package that relative
    imports in them start from."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # no name, or a module without a spec, such as __main__
        return [], ""
    for part in rest:
        if spec is None:
            break
        # importlib.util.find_spec would import the packages on the way.
        spec = PathFinder.find_spec(part, spec.submodule_search_locations or [])
    if spec is None or not spec.has_location or spec.origin is None:
        return [], ""
    source = Path(spec.origin)
    package = module.rpartition(".")[0] if spec.submodule_search_locations is None else module
    return [source.with_suffix(".pyi"), source], package


def _statements(file: Path) -> list[ast.stmt]:
    try:
        return ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return []
