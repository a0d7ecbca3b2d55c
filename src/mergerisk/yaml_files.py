"""YAML files that people write: whatever is wrong with one is said in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that is given twice; PyYAML would keep the last and drop the others silently."""

    # Here, and not where values are made: there, merge keys (<<) have brought in what a mapping may well override.
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                first = seen[key.tag, key.value]
                problem = f"key {key.value!r} is given twice, first on line {first}"
                raise yaml.composer.ComposerError(problem=problem, problem_mark=key.start_mark)
            seen[key.tag, key.value] = key.start_mark.line + 1
        return node


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
        found = list(yaml.load_all(path.read_text(encoding="utf-8"), _UniqueKeyLoader))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date that is none
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise UserError(f"{path}{line}: not valid YAML: {problem}") from error
    documents = [content for content in found if content is not None]  # a file may end in ---
    for content in documents or [None]:
        if not isinstance(content, dict):
            raise UserError(f"{path}: {what} is a mapping of fields, got {type(content).__name__}")
    return documents
