"""Links of pages: files of the repository as they stand on disk, and where the site has them.

Pages link as GitHub follows links, relative to the file. What lies in ``docs/`` keeps its place in the site; what
lies elsewhere, which is little, gets a page of its own.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROJECT = {"CHANGELOG.md": "project/changelog.md", "CONTRIBUTING.md": "project/contributing.md",
           "SECURITY.md": "project/security.md", "README.md": "index.md"}  # fmt: skip
"""Pages outside of ``docs/`` that the site shows, and where."""

_LINK = re.compile(r"(\]\()(?!\w+:|/|\))([^)\s#]*)(#[^)\s]*)?(\))")
_PICTURE = re.compile(r"(!\[[^\]]*\])\((?!\w+:|/)([^)\s#]+\.png)\)(\{[^}\n]*\})?")
_FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


@dataclass
class Elsewhere:
    """What pages link to outside of ``docs/``: repository path → page."""

    pages: dict[str, str] = field(default_factory=dict)

    def place(self, path: str) -> str:
        """Where the site has a file or folder of the repository."""
        if path.startswith("docs/"):
            inside = path.removeprefix("docs/")
            return inside.removesuffix(".ipynb") + ".md" if inside.endswith(".ipynb") else inside
        if path in PROJECT:
            return PROJECT[path]
        if not (ROOT / path).exists():
            return f"../{path}"  # left to the strict build, which says that there is no such page
        return self.pages.setdefault(path, f"project/files/{path.strip('/').replace('/', '-')}.md")


def replaced(text: str, source: str, page: str, elsewhere: Elsewhere) -> str:
    """A page's Markdown with its links to files as the site has them.

    Args:
        text: Markdown; fenced blocks stay as they are.
        source: the file that it stands in, from the repository's root.
        page: the page that shows it, from the site's; not always ``source``'s own.
        elsewhere: takes note of what is linked outside of ``docs/``.
    """

    def one(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2])) if match[2] else source
        if not match[2] and elsewhere.place(source) == page:
            return match[0]
        placed = posixpath.relpath(elsewhere.place(target), posixpath.dirname(page) or ".")
        return f"{match[1]}{placed}{match[3] or ''}{match[4]}"

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(one, part) for part in parts)


def with_dark(text: str, source: str) -> str:
    """A page's Markdown whose pictures give way, for readers in the dark, to those that lie beside them.

    Args:
        text: Markdown; fenced blocks stay as they are.
        source: the page's file, from the repository's root: ``NAME-dark.png`` is looked for beside ``NAME.png``.
    """

    def both(match: re.Match[str]) -> str:
        dark = match[2].removesuffix(".png") + "-dark.png"
        if not (ROOT / posixpath.dirname(source) / dark).is_file():
            return match[0]
        settings = match[3] or ""
        return f"{match[1]}({match[2]}#only-light){settings}{match[1]}({dark}#only-dark){settings}"

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _PICTURE.sub(both, part) for part in parts)


def shown(path: str) -> str:
    """A page with a file of the repository, or with a folder's files."""
    place = ROOT / path
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    parts = [f"# {path}\n"]
    for file in files:
        if "__pycache__" in file.parts or file.suffix == ".pyc":
            continue
        if place.is_dir():
            parts.append(f"## {file.relative_to(place).as_posix()}\n")
        language = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}.get(file.suffix, "text")
        parts.append(f"````{language}\n{file.read_text(encoding='utf-8').rstrip()}\n````\n")
    return "\n".join(parts)
