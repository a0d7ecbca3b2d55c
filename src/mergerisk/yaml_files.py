"""YAML files that people write: whatever is wrong with one is said in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from mergerisk.errors import UserError, located, shown_text
from mergerisk.plain_data import DEEPEST, MOST_VALUES, check_plain, unfit_text

if TYPE_CHECKING:
    from pathlib import Path


_LARGEST = 2**24
"""Bytes of a file that a person has written."""

_MERGE = "tag:yaml.org,2002:merge"
_NUMBER_TAGS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_LONGEST_NUMBER = 400
"""Characters."""

_KEY_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:value", _MERGE}


class _Loader(yaml.SafeLoader):
    """Refuses, before values are made: a key that is given twice, of which PyYAML would keep the last and drop the
    others silently; one that is no text; texts that are no Unicode; and aliases that stand for more than memory
    holds, or for themselves."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            problem = f"nested more than {DEEPEST} deep"
            raise yaml.composer.ComposerError(problem=problem, problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_document(self) -> yaml.Node | None:
        node = super().compose_document()
        if node is not None:
            _check_aliases(node)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        fault = unfit_text(node.value)
        if node.tag in _NUMBER_TAGS and len(node.value) > _LONGEST_NUMBER:
            fault = f"of {len(node.value)} digits for a number"
        if fault:
            raise yaml.composer.ComposerError(problem=f"a text {fault}", problem_mark=node.start_mark)
        return node

    # Here, and not where values are made: there, merge keys (<<) have brought in what a mapping may well override.
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.tag not in _KEY_TAGS:
                problem = f"key {key.value} must be text, as '{key.value}'"
                raise yaml.composer.ComposerError(problem=problem, problem_mark=key.start_mark)
            if (key.tag, key.value) in seen:
                first = seen[key.tag, key.value]
                problem = f"key {key.value!r} is given twice, first on line {first}"
                raise yaml.composer.ComposerError(problem=problem, problem_mark=key.start_mark)
            seen[key.tag, key.value] = key.start_mark.line + 1
        return node


def _check_aliases(root: yaml.Node) -> None:
    """Whether a document is small with all its aliases written out, as merge keys (<<) do.

    Raises:
        yaml.composer.ComposerError: it is not, or something holds itself.
    """
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise yaml.composer.ComposerError(problem="an alias holds itself", problem_mark=node.start_mark)
            return known
        sizes[id(node)] = None
        parts = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else []
        found = 1
        for part in parts:
            found += sum(map(size, part)) if isinstance(part, tuple) else size(part)
        if found > MOST_VALUES:
            problem = f"more than {MOST_VALUES:,} values, with what its aliases stand for"
            raise yaml.composer.ComposerError(problem=problem, problem_mark=node.start_mark)
        sizes[id(node)] = found
        return found

    size(root)


def parse_value(text: str) -> Any:
    """The value that a text of YAML stands for, as :func:`read_mapping` reads one.

    Raises:
        ValueError: it is no YAML, or what no machine can hold.
    """
    try:
        value = yaml.load(text, _Loader)  # a safe loader
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not valid YAML: {_problem(error)}") from error
    check_plain(value)
    return value


def _as_text(written: bytes) -> str:
    if len(written) > _LARGEST:
        raise ValueError(f"larger than {_LARGEST // 2**20} MiB, as nothing is that a person writes")
    return written.decode()


def _problem(error: Exception) -> str:
    return shown_text(str(getattr(error, "problem", None) or error).partition("\n")[0])


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        path: the file.
        what: what it should hold, for messages: ``a study``.

    Raises:
        UserError: it cannot be read, is not valid YAML (as when a key is given twice), or holds something else.
    """
    first, *others = read_mappings(path, what)
    if others:
        raise UserError(f"{path}: {len(others) + 1} documents, where one is read; save each as a file of its own")
    return first


def read_mappings(path: Path, what: str) -> list[dict[str, Any]]:
    """The mappings in a YAML file of one document or several; see :func:`read_mapping`."""
    try:
        with path.open("rb") as file:
            written = file.read(_LARGEST + 1)
        found = list(yaml.load_all(_as_text(written), _Loader))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date that is none
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {_problem(error)}") from error
    documents = [content for content in found if content is not None]  # a file may end in ---
    for content in documents or [None]:
        if content is None:
            raise UserError(f"{path}: nothing is in it; {what} is a mapping of fields")
        if not isinstance(content, dict):
            raise UserError(f"{path}: {what} is a mapping of fields, got {type(content).__name__}")
        with located(str(path)):
            check_plain(content)
    return documents
