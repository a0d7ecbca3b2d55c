"""The ``mergerisk`` command.

Everything heavy is imported inside the commands: ``--help`` and ``list`` answer without loading PyTorch.
"""

from __future__ import annotations

import shutil
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mergerisk._version import __version__
from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

LISTS = {
    "tasks": "what models are attacked on: the starter suite's, and those of the hub that have a name",
    "backbones": "what a model may be given as",
    "surrogates": "models that the attacker may hold",
    "merging": "merging methods, and corrections on top of them",
    "attacks": "transfer attacks",
    "causes": "diagnostics that may explain transfer",
    "defenses": "what can be put around a merge",
    "inputs": "input transformations that attacks can name",
    "filters": "gradient filters that attacks can name",
    "studies": "studies that ship with the package",
}
"""What ``mergerisk list`` can show, each in a few words."""

EXIT_FAULT, EXIT_MISTAKE, EXIT_GATE, EXIT_INTERRUPTED = 1, 2, 3, 130

_STUDY = click.argument("study")
_SEED = click.option("--seed", type=int, help="Replace the study's seeds by this one.")
_LIMIT = click.option("--limit", type=int, metavar="N", help="Attack at most N images per task.")
_OUT = click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/NAME]", metavar="DIR"
)
_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder that STUDY's relative paths start from.  [default: STUDY's own]",
)
_STORE = click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of artefacts, to share between studies.  [default: OUT/store]",
)

_OFFLINE = click.option("--offline", is_flag=True, help="Take what comes from the hub from its cache only.")

_DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
_WORKERS = click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Processes to compute with.  [default: one per core, at most 4; one on a GPU]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mergerisk")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:  # read by `main`
    """How easily do adversarial examples, made on a model an attacker can download, fool a merged model?

    Start with: mergerisk run starter
    """


@cli.command()
@_STUDY
@_OUT
@_STORE
@_DATA
@_SEED
@_LIMIT
@_OFFLINE
@_DEVICE
@_WORKERS
@click.option("--force", is_flag=True, help="Replace the run of another study in DIR.")
def run(
    study: str,
    out: Path | None,
    store: Path | None,
    data: Path | None,
    seed: int | None,
    limit: int | None,
    offline: bool,
    device: str,
    workers: int | None,
    force: bool,
) -> None:
    """Run STUDY (a shipped one, such as "starter", or a YAML file), or what is left of it.

    Running into the same folder resumes: everything finished is kept, whatever stopped the run.
    """
    from mergerisk import api
    from mergerisk.cli.words import describe_result

    result = api.run(
        study,
        out,
        seed=seed,
        limit=limit,
        device=device,
        workers=workers,
        store=store,
        data=data,
        offline=offline,
        force=force,
    )
    click.echo(describe_result(result))


@cli.command()
@_STUDY
@_OUT
@_STORE
@_DATA
@_SEED
@_LIMIT
@_OFFLINE
@click.option("--measure", is_flag=True, help="Time the backbone for seconds, to tell how long it will take.")
@_DEVICE
def plan(
    study: str,
    out: Path | None,
    store: Path | None,
    data: Path | None,
    seed: int | None,
    limit: int | None,
    offline: bool,
    measure: bool,
    device: str,
) -> None:
    """Show what running STUDY would do: stages, counts, what is there already, and the work left."""
    from mergerisk import api
    from mergerisk.cli.words import describe_plan

    made = api.plan(study, out, store=store, data=data, seed=seed, limit=limit, offline=offline)
    click.echo(describe_plan(*made, speeds=api.measure(made[0], device) if measure else None))


@cli.command()
@_STUDY
@_DATA
@_OFFLINE
def validate(study: str, data: Path | None, offline: bool) -> None:
    """Check STUDY and every file it names, without running anything; everything that is wrong is said at once.

    STUDY is a study, or the file of an audit; of a recipe or of claims the file alone is checked.
    """
    from mergerisk.audit.validating import validate_file
    from mergerisk.cli.words import note_lines

    found, notes = validate_file(study, data=data, offline=offline)
    click.echo(f"{study}: valid; {found}")
    for line in note_lines(notes):
        click.echo(line)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The folder to write.  [default: audits/NAME]", metavar="DIR"
)
@_STORE
@_LIMIT
@_OFFLINE
@_DEVICE
@_WORKERS
@click.option("--force", is_flag=True, help="Replace what another audit left in DIR.")
@click.option(
    "--fail-if",
    "gates",
    multiple=True,
    metavar="GATE",
    help="Exit with 3 if it holds, as 'asr > 50% at 4/255'; repeatable.",
)
@click.option(
    "--verify",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Audit nothing: check whether files are those that were audited into DIR.",
)
def audit(
    file: Path | None,
    out: Path | None,
    store: Path | None,
    limit: int | None,
    offline: bool,
    device: str,
    workers: int | None,
    force: bool,
    gates: tuple[str, ...],
    verify: Path | None,
) -> None:
    """Audit a merged model, or choose the safest way to merge, as the YAML file FILE says.

    Exits with 3 if a gate on what is to be released fails, so that it can stand in a release pipeline.

    With --verify, files are compared by their SHA-256 with those that were audited into DIR, where the audit found
    them, or where FILE says that they are now. Exits with 3 if they differ.
    """
    if verify is not None:
        _verify(verify, file)
        return
    if file is None:
        raise UserError("give the audit's file: mergerisk audit FILE; or check one: mergerisk audit --verify DIR")
    from mergerisk.audit import audit as run_audit
    from mergerisk.cli.audit_words import describe_audit

    result = run_audit(
        file,
        out,
        fail_if=gates,
        limit=limit,
        device=device,
        workers=workers,
        store=store,
        offline=offline,
        force=force,
    )
    click.echo(describe_audit(result))
    if result.verdict.failed:
        sys.exit(EXIT_GATE)


def _verify(folder: Path, file: Path | None) -> None:
    """Raises:
    UserError: an option is given that only running an audit has, or there is no audit to check against.
    """
    from mergerisk.audit.verifying import verify
    from mergerisk.cli.audit_words import describe_verification

    context = click.get_current_context()
    for name in ("out", "store", "limit", "offline", "device", "workers", "force", "gates"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = "fail-if" if name == "gates" else name
            raise UserError(f"--verify runs nothing: leave out --{option}")
    found = verify(folder, file)
    click.echo(describe_verification(found))
    if not found.agrees:
        sys.exit(EXIT_GATE)


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to make.")
@click.option("--force", is_flag=True, help="Replace what an earlier merge left in DIR.")
@_OFFLINE
@click.option("--checksums", is_flag=True, help="Name the SHA-256 of every local ingredient in the model card.")
def merge(recipe: Path, out: Path, force: bool, offline: bool, checksums: bool) -> None:
    """Merge checkpoints on disk or on the hub, as the YAML file RECIPE says, into a model in DIR.

    Tensors are streamed: in memory is one of them at a time, for some methods of every expert. mergekit's
    files are understood where they have a counterpart.
    """
    from rich.progress import DownloadColumn

    from mergerisk.progress.bar import Bar
    from mergerisk.recipe import load_merges, merge_checkpoints

    for content, place in load_merges(recipe, out):
        with Bar("merging", DownloadColumn(binary_units=True)) as progress:
            folder = merge_checkpoints(
                content,
                place,
                force=force,
                offline=offline,
                checksums=checksums,
                listener=progress.listen,
                remark=lambda line: click.echo(line, err=True),
            )
        click.echo(folder)


@cli.command()
@click.argument("source")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to make.")
@click.option("--key", metavar="NAME", help="Where in the file the state dict is, if it holds several.")
@_OFFLINE
def convert(source: str, out: Path, key: str | None, offline: bool) -> None:
    """Write pickled weights as safetensors into DIR, with the configurations beside them.

    SOURCE is a file (.bin, .pt, .pth, …), a folder, or org/name on the hub. It is read by PyTorch's restricted
    unpickler in a process of its own: a pickle that wants more than tensors is refused, and never runs.
    """
    from mergerisk.recipe import convert as convert_pickles

    click.echo(convert_pickles(source, out, key=key, offline=offline))


@cli.command()
@click.argument("model")
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to make.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Table with the columns file,label.  [default: class folders, else the model's own clean predictions]",
)
@click.option("--attack", "name", default="mi_fgsm", show_default=True, help="See: mergerisk list attacks.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A hyper-parameter, as steps=20 or inputs=[di, si].",
)
@click.option("--epsilon", default="8/255", show_default=True, help="The budget, of pixels in [0, 1].")
@click.option(
    "--norm",
    type=click.Choice(["linf", "l2"]),
    default="linf",
    show_default=True,
    help="What the budget bounds: the largest change of a pixel, or the length of an image's change.",
)
@click.option(
    "--targeted", is_flag=True, help="Aim at a label, drawn at random, instead of away from the true one."
)
@click.option("--target-label", metavar="CLASS", help="The label to aim at, by name or index.")
@click.option("--target", "targets", multiple=True, metavar="MODEL", help="Measure transfer on MODEL; repeatable.")
@click.option(
    "--preprocessing",
    multiple=True,
    metavar="[MODEL=]{mean: …, std: …}",
    help="What is done to pixels in [0, 1] instead of what comes with a model; repeatable.",
)
@click.option(
    "--samples",
    type=int,
    metavar="N",
    help="Average the logits of a model that draws at random over N fixed draws.  [default: refuse it]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is random.")
@_DEVICE
@click.option("--batch-size", type=int, default=32, show_default=True, metavar="N", help="Images at a time.")
@click.option("--limit", type=int, metavar="N", help="Attack at most N images, evenly over the classes.")
@_OFFLINE
@click.option("--force", is_flag=True, help="Replace what an earlier attack left in DIR.")
def attack(
    model: str,
    images: Path,
    out: Path,
    labels: Path | None,
    name: str,
    settings: tuple[str, ...],
    epsilon: str,
    norm: Literal["linf", "l2"],
    targeted: bool,
    target_label: str | None,
    targets: tuple[str, ...],
    preprocessing: tuple[str, ...],
    samples: int | None,
    seed: int,
    device: str,
    batch_size: int,
    limit: int | None,
    offline: bool,
    force: bool,
) -> None:
    """Craft adversarial images for MODEL from the folder IMAGES, and measure what they do once saved.

    MODEL is a folder or org/name on the hub with a transformers image classifier, or package.module:factory.
    IMAGES holds one folder per class, or images. Every saved image keeps to the budget.
    """
    from rich.progress import TaskProgressColumn

    from mergerisk.cli.words import describe_attack
    from mergerisk.crafting import (
        Crafting,
        craft_folder,
        parse_epsilon,
        parse_preprocessing,
        parse_settings,
    )
    from mergerisk.progress.bar import Bar
    from mergerisk.study.preflight import resolve_device

    crafting = Crafting(
        attack=name,
        parameters=parse_settings(settings),
        epsilon=parse_epsilon(epsilon),
        norm=norm,
        targeted=targeted,
        target_label=target_label,
        seed=seed,
    )
    with Bar("crafting", TaskProgressColumn()) as progress:
        crafted = craft_folder(
            model,
            images,
            out,
            crafting,
            labels=labels,
            targets=targets,
            preprocessing=parse_preprocessing(preprocessing),
            samples=samples,
            limit=limit,
            device=resolve_device(device),
            batch_size=batch_size,
            force=force,
            offline=offline,
            listener=progress.listen,
        )
    click.echo(describe_attack(crafted.folder, crafted.summary))


@cli.command()
@click.argument("model")
@click.argument("images", type=click.Path(path_type=Path), required=False)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Table with the columns file,label.  [default: class folders, if there are any]",
)
@click.option("--image-size", type=int, metavar="S", help="Of a study's backbone, in pixels.  [default: its own]")
@click.option("--size", type=int, metavar="S", help="Of a study's task, in pixels.  [default: as a task's]")
@click.option(
    "--limit", type=int, default=50, show_default=True, metavar="N", help="Images, evenly over the classes."
)
@click.option(
    "--tolerance",
    type=float,
    default=0.1,
    show_default=True,
    help="Difference that counts, as a share of the length of an image's logits.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of which images are looked at.")
@click.option("--json", "out", type=click.Path(path_type=Path), metavar="FILE", help="Write all of it as JSON.")
@_OFFLINE
def check(
    model: str,
    images: Path | None,
    labels: Path | None,
    image_size: int | None,
    size: int | None,
    limit: int,
    tolerance: float,
    seed: int,
    out: Path | None,
    offline: bool,
) -> None:
    """Compare what MODEL says of the folder IMAGES in its own library's way with what it says here, and say why.

    MODEL is a folder or org/name on the hub, timm:NAME, open_clip:NAME/WEIGHTS, or package.module:factory.
    Exits with 3 if they differ beyond the tolerance.

    Without IMAGES, MODEL is the file of a study or an audit: its pretrained encoder, its experts and what was
    merged elsewhere are shown its clean test images. What that makes is kept where a run or an audit finds it.
    """
    from mergerisk.audit.checking import check_file
    from mergerisk.checking import check as run_check
    from mergerisk.cli.check_words import check_to_json, describe_check, describe_study_check
    from mergerisk.progress.stages import StudyProgress
    from mergerisk.study.files import write_bytes

    if images is None:
        _needs_images(model)
        with StudyProgress() as progress:
            checked = check_file(
                model, device="cpu", offline=offline, prepared=progress.prepare, listener=progress.listen
            )
        if out is not None:
            write_bytes(out, check_to_json(checked).encode())
        click.echo(describe_study_check(checked))
        return
    found = run_check(
        model,
        images,
        labels=labels,
        image_size=image_size,
        size=size,
        limit=limit,
        tolerance=tolerance,
        seed=seed,
        offline=offline,
    )
    if out is not None:
        write_bytes(out, check_to_json(found).encode())
    click.echo(describe_check(found))
    if not found.agrees:
        sys.exit(EXIT_GATE)


def _needs_images(model: str) -> None:
    """Raises:
    UserError: what is checked is no study, or an option is given that only a model with images has.
    """
    context = click.get_current_context()
    for name in ("labels", "image_size", "size", "limit", "tolerance", "seed"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise UserError(f"--{name.replace('_', '-')} is of MODEL IMAGES; a study says such things itself")
    if ":" in model or Path(model).is_dir():
        raise UserError(
            f"{model}: a model is checked on images; give their folder too: mergerisk check MODEL IMAGES"
        )


@cli.command()
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
    result = api.write_report(folder)
    page = result.folder / "report.html"
    click.echo(page)
    for file in write_exports(result.summary, out, wanted) if out is not None else ():
        click.echo(file)
    if show:
        click.launch(page.resolve().as_uri())


@cli.command()
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


@cli.command()
@click.argument("source")
@click.option(
    "--claims",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A YAML file of claims.  [default: those of the published study]",
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
    from mergerisk.statistics.claims import BUILT_IN, load_claims
    from mergerisk.statistics.judging import judge_claims
    from mergerisk.statistics.sources import read_tables

    stated = BUILT_IN if file is None else load_claims(file)
    tables = read_tables(source)
    verdicts = judge_claims(tables, stated, correction=correction, seed=seed)
    if out is not None:
        from mergerisk.study.files import write_bytes

        write_bytes(out, claims_to_json(tables, verdicts, seed).encode())
    click.echo(describe_claims(tables, verdicts))


@cli.command("list")
@click.argument("what", type=click.Choice([*LISTS]), required=False)
def list_(what: str | None) -> None:
    """Show the names a study file can use; one line per name if the output goes to a pipe or a file.

    Without a kind of names, show what kinds there are.
    """
    from mergerisk.cli.words import describe_kinds, describe_names

    if what is None:
        click.echo(describe_kinds(LISTS))
        return
    click.echo(describe_names(what, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every error is one line, and a traceback only with ``--debug``.

    Exit codes: 0 done, 1 our fault, 2 the user's mistake, 3 a gate failed, 130 interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        # `--debug` may stand anywhere.
        cli.main([word for word in given if word != "--debug"], prog_name="mergerisk", standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail([_one_line(error)], EXIT_MISTAKE, debug)
    except (click.Abort, KeyboardInterrupt):
        kept = "; run again to resume: everything finished is kept" if {"run", "audit"} & set(given) else ""
        _fail([f"interrupted{kept}"], EXIT_INTERRUPTED, debug)
    except UserError as error:
        _fail(error.faults, EXIT_MISTAKE, debug)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe went away, as `head` does
        sys.exit(EXIT_FAULT)
    except Exception as error:
        what = f"{type(error).__name__}: {_last_line(error)}"
        _fail([f"internal error, please report it: {what} (--debug shows the traceback)"], EXIT_FAULT, debug)


def _one_line(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    hint = f"; see: {context.command_path} --help" if context is not None else ""
    return f"{error.format_message().splitlines()[0].rstrip('.')}{hint}"


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[-1]


def _fail(messages: Iterable[str], code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    for message in messages:
        click.echo(f"mergerisk: {' '.join(message.splitlines())}", err=True)
    sys.exit(code)
