"""``report``, ``compare``, ``claims``, ``causes``, ``prices``: what finished runs say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from mergerisk.errors import UserError


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--open", "show", is_flag=True, help="Open the report in a browser.")
@click.option(
    "--export",
    "out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write what the report shows into DIR as well: data, tables and figures.",
)
@click.option(
    "--formats", metavar="LIST", help="Of the export: json,csv,parquet,md,tex,svg,png.  [default: all of them]"
)
def report(folder: Path, show: bool, out: Path | None, formats: str | None) -> None:
    """Write the results and the report of the finished run in FOLDER anew, without computing anything."""
    from mergerisk import api
    from mergerisk.report.exports import parse_formats, write_exports

    wanted = parse_formats(formats)
    if formats is not None and out is None:
        raise UserError("--formats says what --export writes; add --export DIR")
    result = api.write_report(folder, progress=True)
    page = result.folder / "report.html"
    click.echo(page)
    for file in write_exports(result.summary, out, wanted) if out is not None else ():
        click.echo(file)
    if show:
        click.launch(page.resolve().as_uri())


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a page and a table of every setting into DIR.",
)
def compare(a: Path, b: Path, out: Path | None) -> None:
    """Compare the finished runs in A and B, setting by setting; differences are B - A.

    Where both attacked the same images, they are compared image by image.
    """
    from mergerisk import api
    from mergerisk.report.comparison import comparison_text

    click.echo(comparison_text(api.compare(a, b, out)))
    if out is not None:
        click.echo(out / "compare.html")


@click.command()
@click.argument("source")
@click.option(
    "--claims",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A YAML file of claims.  [default: those of the published study, and on causes where a run has them]",
)
@click.option(
    "--correction",
    type=click.Choice(["holm", "bh"]),
    default="holm",
    show_default=True,
    help="For the number of claims: against any false finding, or too large a share (Benjamini-Hochberg).",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--json", "out", type=click.Path(path_type=Path), metavar="FILE", help="Write the verdicts as JSON.")
def claims(source: str, file: Path | None, correction: Literal["holm", "bh"], seed: int, out: Path | None) -> None:
    """Judge claims on SOURCE: supported, contradicted or inconclusive, with the tests behind it.

    SOURCE is a finished run's folder, a CSV or Parquet file of rates (task, attack, surrogate, target, asr_all
    or the like), or the word "poster" for the published table that ships with the package.
    """
    from mergerisk.cli.claims_words import claims_to_json, describe_claims
    from mergerisk.statistics.claim_sources import read_tables
    from mergerisk.statistics.claims import load_claims
    from mergerisk.statistics.judging import judge_claims

    stated = None if file is None else load_claims(file)
    tables = read_tables(source)
    verdicts = judge_claims(tables, stated, correction=correction, seed=seed)
    if out is not None:
        from mergerisk.study.files import write_bytes

        write_bytes(out, claims_to_json(tables, verdicts, seed).encode())
    click.echo(describe_claims(tables, verdicts))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of whatever is drawn.")
@click.option("--json", "out", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures as JSON.")
def causes(folder: Path, seed: int, out: Path | None) -> None:
    """Say what explains who is fooled in the finished run in FOLDER, whose study asked for causes.

    Every diagnostic is held against the outcomes: strongest first, with intervals, and with what cannot be said.
    Where merges were changed on purpose, what moved with the outcomes.
    """
    from mergerisk import api
    from mergerisk.cli.causes_words import describe_causes

    found = api.explained(folder, seed=seed, progress=True)
    assert found.explanations is not None
    if out is not None:
        from mergerisk.report.export import explanations_to_json
        from mergerisk.study.files import write_bytes

        write_bytes(out, explanations_to_json(found.explanations, found.moves).encode())
    click.echo(describe_causes(found.explanations, found.moves))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--json", "out", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures as JSON.")
def prices(folder: Path, seed: int, out: Path | None) -> None:
    """Say what defenses gain and cost in the finished run in FOLDER, whose study has some.

    Every defended model beside the same without the defense, on the same images, against attackers who know of it
    and who do not; and whether it may be said to defend.
    """
    from mergerisk import api
    from mergerisk.cli.prices_words import describe_prices

    found = api.prices(folder, seed=seed)
    if out is not None:
        from mergerisk.report.export import prices_to_json
        from mergerisk.study.files import write_bytes

        write_bytes(out, prices_to_json(found).encode())
    click.echo(describe_prices(found))
