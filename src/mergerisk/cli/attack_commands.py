"""``attack``: a folder of images against a model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from mergerisk.cli.common_options import DEVICE, OFFLINE


@click.command()
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
@DEVICE
@click.option("--batch-size", type=int, default=32, show_default=True, metavar="N", help="Images at a time.")
@click.option("--limit", type=int, metavar="N", help="Attack at most N images, evenly over the classes.")
@OFFLINE
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

    from mergerisk.cli.attack_words import describe_attack
    from mergerisk.cli.speaking import speaking
    from mergerisk.crafting import (
        Crafting,
        craft_folder,
        parse_epsilon,
        parse_preprocessing,
        parse_settings,
    )
    from mergerisk.progress.bar import Bar
    from mergerisk.study.devices import resolve_device

    crafting = Crafting(
        attack=name,
        parameters=parse_settings(settings),
        epsilon=parse_epsilon(epsilon),
        norm=norm,
        targeted=targeted,
        target_label=target_label,
        seed=seed,
    )
    with Bar("crafting", TaskProgressColumn(), shown=speaking()) as progress:
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
