"""``--set KEY=VALUE``: one value of a file that people write, said on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, located, shown_text
from mergerisk.plain_data import check_plain
from mergerisk.yaml_files import parse_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def key_values(settings: Sequence[str], example: str) -> Iterator[tuple[str, Any]]:
    """What each of ``key=value`` says, its value read as YAML.

    Args:
        settings: as given.
        example: of one, for messages.

    Raises:
        UserError: no ``=``, not YAML, or a key that is given twice.
    """
    seen = set()
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not key or not equals:
            raise UserError(f"--set {shown_text(repr(setting))}: write key=value, such as {example}")
        if key in seen:
            raise UserError(f"--set {shown_text(key)}: given twice")
        seen.add(key)
        try:
            yield key, parse_value(text)
        except ValueError as error:
            raise UserError(f"--set {shown_text(key)}: {error}") from error


def with_settings(content: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A file's content with some of its values replaced, or added.

    Args:
        content: as read; it is not changed.
        settings: ``budgets.epsilon=[2/255]``: mappings' keys and places in lists (from 0), joined by dots, and the
            value as the file would have it. What is not there yet is made, but for places of lists.

    Raises:
        UserError: not written so, or it leads into what is neither a mapping nor a list, or behind a list's end.
    """
    changed: Any = content
    for key, value in key_values(settings, "budgets.epsilon=[2/255]"):
        changed = _replaced(changed, key.split("."), value, key)
    if settings:
        with located("--set"):
            check_plain(changed)
    result: dict[str, Any] = changed
    return result


def _replaced(content: Any, steps: list[str], value: Any, key: str) -> Any:
    if not steps:
        return value
    step, *further = steps
    if content is None:
        content = {}
    if isinstance(content, dict):
        return {**content, step: _replaced(content.get(step), further, value, key)}
    behind = ".".join(key.split(".")[: -len(steps)])
    if not isinstance(content, list):
        is_ = f"{shown_text(behind)} is {shown_text(repr(content))}"
        raise UserError(f"--set {shown_text(key)}: {is_}; give all of it: --set {shown_text(behind)}=VALUE")
    if not step.isdecimal() or int(step) >= len(content):
        places = f"0 … {len(content) - 1}" if content else "none, it is empty"
        raise UserError(
            f"--set {shown_text(key)}: {shown_text(behind)} is a list; write a place of it, from {places}"
        )
    place = int(step)
    return [*content[:place], _replaced(content[place], further, value, key), *content[place + 1 :]]
