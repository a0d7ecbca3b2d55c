"""``report``, ``compare``, ``claims``, ``causes``, ``prices``: what finished runs say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from mergerisk.cli.common_options import JSON, SET
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
    from mergerisk.cli.speaking import speaking
    from mergerisk.report.exports import parse_formats, write_exports

    wanted = parse_formats(formats)
    if formats is not None and out is None:
        raise UserError("--formats says what --export writes; add --export DIR")
    result = api.write_report(folder, progress=speaking())
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
@JSON
def compare(a: Path, b: Path, out: Path | None, json_file: Path | None) -> None:
    """Compare the finished runs in A and B, setting by setting; differences are B - A.

    Where both attacked the same images, they are compared image by image.
    """
    from mergerisk import api
    from mergerisk.cli.telling import tell
    from mergerisk.report.comparison import comparison_text
    from mergerisk.report.export import found_to_json

    found = api.compare(a, b, out)
    page = "" if out is None else f"\n{out / 'compare.html'}"
    tell(f"{comparison_text(found)}{page}", json_file, lambda: found_to_json(found))


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
@SET
@JSON
def claims(
    source: str,
    file: Path | None,
    correction: Literal["holm", "bh"],
    seed: int,
    settings: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Judge claims on SOURCE: supported, contradicted or inconclusive, with the tests behind it.

    SOURCE is a finished run's folder, a CSV or Parquet file of rates (task, attack, surrogate, target, asr_all
    or the like), or the word "poster" for the published table that ships with the package.
    """
    from mergerisk.cli.claims_words import claims_to_json, describe_claims
    from mergerisk.cli.telling import tell
    from mergerisk.statistics.claim_sources import read_tables
    from mergerisk.statistics.claims import load_claims
    from mergerisk.statistics.judging import judge_claims

    if settings and file is None:
        raise UserError("--set changes the file of claims; add --claims FILE")
    stated = None if file is None else load_claims(file, settings=settings)
    tables = read_tables(source)
    verdicts = judge_claims(tables, stated, correction=correction, seed=seed)
    tell(describe_claims(tables, verdicts), json_file, lambda: claims_to_json(tables, verdicts, seed))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of whatever is drawn.")
@JSON
def causes(folder: Path, seed: int, json_file: Path | None) -> None:
    """Say what explains who is fooled in the finished run in FOLDER, whose study asked for causes.

    Every diagnostic is held against the outcomes: strongest first, with intervals, and with what cannot be said.
    Where merges were changed on purpose, what moved with the outcomes.
    """
    from mergerisk import api
    from mergerisk.cli.causes_words import describe_causes
    from mergerisk.cli.speaking import speaking
    from mergerisk.cli.telling import tell
    from mergerisk.report.export import explanations_to_json

    found = api.explained(folder, seed=seed, progress=speaking())
    explanations = found.explanations
    assert explanations is not None
    words = describe_causes(explanations, found.moves)
    tell(words, json_file, lambda: explanations_to_json(explanations, found.moves))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
@JSON
def prices(folder: Path, seed: int, json_file: Path | None) -> None:
    """Say what defenses gain and cost in the finished run in FOLDER, whose study has some.

    Every defended model beside the same without the defense, on the same images, against attackers who know of it
    and who do not; and whether it may be said to defend.
    """
    from mergerisk import api
    from mergerisk.cli.prices_words import describe_prices
    from mergerisk.cli.telling import tell
    from mergerisk.report.export import found_to_json

    found = api.prices(folder, seed=seed)
    tell(describe_prices(found), json_file, lambda: found_to_json(found))
