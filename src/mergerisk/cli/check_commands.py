"""``check``: whether a model says here what it says in its own library."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mergerisk.cli.common_options import EXIT_GATE, JSON, OFFLINE, SET
from mergerisk.errors import UserError


@click.command()
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
@SET
@JSON
@OFFLINE
def check(
    model: str,
    images: Path | None,
    labels: Path | None,
    image_size: int | None,
    size: int | None,
    limit: int,
    tolerance: float,
    seed: int,
    settings: tuple[str, ...],
    json_file: Path | None,
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
    from mergerisk.cli.speaking import speaking
    from mergerisk.cli.telling import tell

    progress = speaking(stages=True)
    if images is None:
        _needs_images(model)
        checked = check_file(model, device="cpu", offline=offline, settings=settings, progress=progress)
        tell(describe_study_check(checked), json_file, lambda: check_to_json(checked))
        return
    if settings:
        raise UserError("--set changes the file of a study or an audit; MODEL IMAGES has none")
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
    tell(describe_check(found), json_file, lambda: check_to_json(found))
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
