"""``schema``: the JSON Schema of what people write, and of what programs read."""

from __future__ import annotations

import click

TITLES = {
    "study": "A study of mergerisk",
    "audit": "An audit of mergerisk",
    "summary": "",
}
"""What has a schema, and how the schema is titled where it does not say so itself."""


@click.command()
@click.argument("what", type=click.Choice([*TITLES]))
def schema(what: str) -> None:
    """Print the JSON Schema of a study or audit file, for editors, or of summary.json, for programs.

    With `mergerisk schema study > study.schema.json`, an editor that speaks YAML's language server completes and
    checks files that begin with `# yaml-language-server: $schema=study.schema.json`. Names that installed packages
    add are in it.
    """
    click.echo(_text(what), nl=False)


def _text(what: str) -> str:
    if what == "summary":
        import json

        from mergerisk.report import summary_schema

        return json.dumps(summary_schema(), indent=1, ensure_ascii=False) + "\n"
    from mergerisk.audit import Audit
    from mergerisk.study import Study
    from mergerisk.study.file_schema import written_schema

    return written_schema(Study if what == "study" else Audit, TITLES[what])
