"""What is read from source must be what importing would show."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from mergerisk.attacks.catalogue import ATTACKS
from mergerisk.merging.catalogue import CORRECTIONS, METHODS
from mergerisk.registry import Entry, Registry
from mergerisk.signatures import Signature, signatures
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REGISTRIES: dict[str, Registry[Any]] = {registry.kind: registry for registry in (METHODS, CORRECTIONS, ATTACKS)}
BUILT_IN = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()]


def read(target: str) -> Signature | None:
    return signatures(Registry("toy", "mergerisk.tests.toys", [Entry("it", target, "")]))["it"]


def fields(cls: Any) -> dict[str, object]:
    """The truth: what the imported class can be given, with defaults."""
    return {field.name: field.default for field in dataclasses.fields(cls)}


def evaluated(signature: Signature) -> dict[str, object]:
    """Without any names in scope: a default that is a constant's name would tell a reader nothing."""
    return {
        name: dataclasses.MISSING if default is None else eval(default, {"__builtins__": {}})
        for name, default in signature.parameters.items()
    }


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_source_says_what_the_imported_class_says(kind: str, name: str) -> None:
    signature = signatures(REGISTRIES[kind])[name]
    cls = REGISTRIES[kind].load(name)
    assert signature is not None
    # As lists: the order counts, and so does 1 against 1.0.
    assert repr(list(evaluated(signature).items())) == repr(list(fields(cls).items()))
    flags = {METHODS: {"needs_calibration", "encoder_per_task"}, CORRECTIONS: {"changes_encoder"}}
    for flag in flags.get(REGISTRIES[kind], set()):
        assert signature.flags[flag] is getattr(cls, flag)


PLUGIN = {
    "__init__.py": "from .methods import Diamond as Best\n",
    "methods.pyi": "class Diamond:\n    right: int = ...\n",
    "methods.py": """
from dataclasses import dataclass
from typing import ClassVar
import mergerisk.merging
import mergerisk as mr
from mergerisk import merging as rooms
from mergerisk.merging import StateMerging
from .parts import roots
from .parts.roots import Root as Trunk

@dataclass(frozen=True, kw_only=True)
class Left(Trunk[int]):
    root: int = 2
    left: str = "a" \\
        "b"

@dataclass(frozen=True, kw_only=True)
class Right(roots.Root):
    needed: float
    right: tuple[
        int, ...
    ] = (
        1,
        2,
    )

@dataclass(frozen=True, kw_only=True)
class Diamond(Left, Right):
    right: tuple[int, ...] | None = None
    kind: "ClassVar[str]" = "diamond"
    plain = 3

class Undecorated(StateMerging):
    declared: int
    late: int
    encoder_per_task: bool = True

@dataclass(frozen=True, kw_only=True)
class Imported(Undecorated):
    needs_calibration: ClassVar[bool] = True
    early: int = 0
    late: int = 1

@dataclass(frozen=True, kw_only=True)
class Dotted(mergerisk.merging.Ties):
    encoder_per_task = True

@dataclass(frozen=True, kw_only=True)
class Short(mr.merging.Ties):
    more: int

@dataclass(frozen=True, kw_only=True)
class Room(rooms.Ties):
    more: int
""",
    "parts/roots.py": """
from dataclasses import dataclass
from typing import Generic, TypeVar
T = TypeVar("T")

@dataclass(frozen=True, kw_only=True)
class Root(Generic[T]):
    root: int = 1
    deep: list[int] | None = None
""",
    "bad/syntax.py": "class Broken(:\n",
    "bad/nulls.py": "class Broken:\0\n",
    "bad/loop.py": "from .loop import Broken\nclass Snake(Snake): pass\n",
    "bad/far.py": "from ......nowhere import Broken\n",
}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a third party's package that can be imported."""
    for path, text in PLUGIN.items():
        file = tmp_path / "third_party" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "third_party"
    for module in [module for module in sys.modules if module.startswith("third_party")]:
        del sys.modules[module]


@pytest.mark.parametrize("name", ["Left", "Right", "Diamond", "Imported", "Dotted", "Short", "Room"])
def test_base_classes_are_followed_wherever_they_come_from(plugin: str, name: str) -> None:
    signature = read(f"{plugin}.methods:{name}")
    assert signature is not None
    assert not [module for module in sys.modules if module.startswith(plugin)], "reading must not import"
    cls = getattr(importlib.import_module(f"{plugin}.methods"), name)
    assert list(evaluated(signature).items()) == list(fields(cls).items())
    for flag in ("needs_calibration", "encoder_per_task"):
        assert signature.flags.get(flag) is getattr(cls, flag, None)


def test_a_class_may_be_named_through_a_package_that_passes_it_on(plugin: str) -> None:
    signature = read(f"{plugin}:Best")
    assert signature is not None
    assert signature == read(f"{plugin}.methods:Diamond")


def test_defaults_are_on_one_line_and_the_required_have_none(plugin: str) -> None:
    signature = read(f"{plugin}.methods:Right")
    assert signature == Signature({"root": "1", "deep": "None", "needed": None, "right": "(1, 2)"}, {})


@pytest.mark.parametrize(
    "target",
    [
        "third_party.bad.syntax:Broken",
        "third_party.bad.nulls:Broken",
        "third_party.bad.loop:Broken",
        "third_party.bad.far:Broken",
        "third_party.methods:Missing",
        "third_party.missing:Broken",
        "third_party.methods.deeper:Broken",
        "no_such_package_at_all:Broken",
        "__main__:Broken",
        "math:sqrt",
        "third_party",
        ".third_party:Broken",
        ":",
        "",
    ],
)
def test_what_cannot_be_read_has_no_signature(plugin: str, target: str) -> None:  # noqa: ARG001
    assert read(target) is None


def test_a_class_that_is_its_own_base_ends_the_search(plugin: str) -> None:
    assert read(f"{plugin}.bad.loop:Snake") == Signature({}, {})


def test_what_was_registered_in_this_process_is_asked_itself() -> None:
    registry: Registry[Any] = Registry("toy", "mergerisk.tests.toys", [])

    @registry.register("checked")
    @hyperparameters
    class Checked:
        needs_calibration: ClassVar[bool] = True
        size: int
        clamp: bool = True
        name: str = "a"

    @registry.register("plain")
    class Plain:
        def __init__(self, size: int = 3) -> None:
            self.size = size

    assert signatures(registry) == {
        "checked": Signature({"size": None, "clamp": "True", "name": "'a'"}, {"needs_calibration": True}),
        "plain": Signature({"size": "3"}, {}),
    }
