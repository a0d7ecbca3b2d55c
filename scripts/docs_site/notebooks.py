"""A notebook as a page: its cells' words as they are, its code as blocks, what it printed and drew below them."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import nbformat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STYLE = re.compile(r"<style.*?</style>", re.DOTALL)


def as_page(file: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by name; they lie in a folder called as the notebook is.

    Args:
        file: with its outputs.
    """
    notebook: Any = nbformat.read(file, as_version=4)
    pictures: dict[str, bytes] = {}
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts.append(f"```python\n{cell.source}\n```")
            parts += [text for output in cell.outputs for text in _output(output, file.stem, pictures)]
    about = f"[Download this notebook]({file.name}){{ download }}"
    title, _, rest = parts[0].partition("\n")
    return "\n\n".join([title, about, rest, *parts[1:]]) + "\n", pictures


def _output(output: Any, stem: str, pictures: dict[str, bytes]) -> Iterator[str]:
    """What a cell's output is on a page."""
    if output.output_type == "stream":
        yield _text(output.text)
        return
    if output.output_type == "error":
        raise ValueError(f"{stem}: a cell ended in {output.ename}: {output.evalue}")
    data = output.data
    if "image/png" in data:
        name = f"{len(pictures) + 1}.png"
        pictures[name] = base64.b64decode(data["image/png"])
        yield f"![What the cell above draws]({stem}/{name}){{ .notebook-figure }}"
    elif "text/html" in data:
        html = _STYLE.sub("", data["text/html"])
        lines = [line.strip() for line in html.splitlines() if line.strip()]
        yield '<div class="notebook-output">' + "\n".join(lines) + "</div>"
    elif "text/plain" in data:
        yield _text(data["text/plain"])


def _text(text: str) -> str:
    return f"```{{ .text .notebook-text }}\n{text.rstrip()}\n```"
