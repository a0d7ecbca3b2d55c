"""What MkDocs calls while it builds the site: pages written from the code, and links as the site has them."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import api_pages
import catalogues
import commands
import notebooks
from links import PROJECT, ROOT, Elsewhere, replaced, shown, with_dark
from mkdocs.structure.files import File

from mergerisk.audit import Audit
from mergerisk.report import summary_schema
from mergerisk.study import Study
from mergerisk.study.file_schema import written_schema

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_log = logging.getLogger("mkdocs.hooks.mergerisk")  # below mkdocs, so that a warning fails a strict build

_GENERATED = "generated:"
"""In ``nav``: what stands for the pages of a folder that are written here."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the names of written pages where ``nav`` has a place for them."""
    config.nav = _filled(config.nav)
    return config


def _filled(nav: Any) -> Any:
    if isinstance(nav, list):
        return [made for item in nav for made in _items(item)]
    if isinstance(nav, dict):
        return {title: _filled(inside) for title, inside in nav.items()}
    return nav


def _items(item: Any) -> list[Any]:
    if not isinstance(item, str) or not item.startswith(_GENERATED):
        return [_filled(item)]
    folder = item.removeprefix(_GENERATED)
    if folder == "api":
        return [{title: f"api/{room}.md"} for room, title in api_pages.ROOMS.items()]
    catalogue = next(one for one in catalogues.CATALOGUES if one.folder == folder)
    return [{entry.name: f"{folder}/{entry.name}.md"} for entry in catalogues.own_entries(catalogue.registry)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is written from the code, the notebooks' pages, and what pages link to elsewhere."""
    written: dict[str, str | bytes] = {**dict(catalogues.pages()), **dict(api_pages.pages())}
    written["commands.md"] = commands.page()
    written |= _schemas()
    elsewhere = Elsewhere()
    for name, place in PROJECT.items():
        if place.startswith("project/"):
            text = (ROOT / name).read_text(encoding="utf-8")
            written[place] = replaced(text, name, place, elsewhere)
    for file in list(files):
        source = ROOT / "docs" / file.src_uri
        if file.src_uri.endswith(".ipynb"):
            text, pictures = notebooks.as_page(source)
            page = file.src_uri.removesuffix(".ipynb") + ".md"
            written[page] = replaced(text, f"docs/{page}", page, elsewhere).replace(
                f"({source.stem}.md){{ download", f"({source.name}){{ download"
            )
            folder = file.src_uri.removesuffix(".ipynb")
            written |= {f"{folder}/{name}": content for name, content in pictures.items()}
        elif file.src_uri.endswith(".md"):
            replaced(source.read_text(encoding="utf-8"), f"docs/{file.src_uri}", file.src_uri, elsewhere)
    for path, place in elsewhere.pages.items():
        written[place] = shown(path)
    for place, content in written.items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Links and pictures as the site has them; names in a handwritten page's tables lead to their own pages."""
    uri = page.file.src_uri
    if page.file.generated_by is not None:
        return markdown
    markdown = replaced(with_dark(markdown, f"docs/{uri}"), f"docs/{uri}", uri, Elsewhere())
    for catalogue in catalogues.CATALOGUES:
        if catalogue.page == uri:
            for entry in catalogues.own_entries(catalogue.registry):
                markdown = re.sub(
                    rf"^(\|[^|\n]*?)(?<!\[)`((?:…\+)?{re.escape(entry.name)})`(?!\])",
                    rf"\1[`\2`]({catalogue.folder}/{entry.name}.md)",
                    markdown,
                    flags=re.MULTILINE,
                )
    return markdown


def _schemas() -> dict[str, str | bytes]:
    import json

    return {
        "schemas/study.schema.json": written_schema(Study, "A study of mergerisk"),
        "schemas/audit.schema.json": written_schema(Audit, "An audit of mergerisk"),
        "schemas/summary.schema.json": json.dumps(summary_schema(), indent=1, ensure_ascii=False) + "\n",
        "schemas/index.md": _SCHEMAS,
    }


_SCHEMAS = """# Schemas

- [study.schema.json](study.schema.json): a study file. [How an editor uses it](../editors.md).
- [audit.schema.json](audit.schema.json): an audit file.
- [summary.schema.json](summary.schema.json): a run's [summary.json](../summary_schema.md).
"""
