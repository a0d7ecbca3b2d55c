"""What docstrings say of classes and their fields, for schemas and reference pages: said once, beside the code."""

from __future__ import annotations

import inspect
import re


def described(kind: type) -> tuple[str, dict[str, str]]:
    """A class's own docstring: what it is, on one line, and what each field is."""
    head, fields = split_docstring(inspect.getdoc(kind) or "")
    return without_marks(head), {name: without_marks(meaning).rstrip(".,;") for name, meaning in fields.items()}


def split_docstring(text: str) -> tuple[str, dict[str, str]]:
    """A docstring's words before its ``Attributes:``, and the texts of these, as they stand there."""
    head, _, attributes = text.partition("Attributes:\n")
    return head, dict(re.findall(r"^    (\w+): (.*(?:\n     .*)*)", attributes, re.MULTILINE))


def without_marks(text: str) -> str:
    """On one line, without the marks of reStructuredText."""
    return " ".join(re.sub(r":\w+:`~?([^`]*)`|``([^`]*)``|`([^`]*)`", r"\1\2\3", text).split())
