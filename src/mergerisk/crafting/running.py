"""From a model and a folder of images to a folder of adversarial ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mergerisk.attacks import ball, describe
from mergerisk.attacks.rounding import exact_pixels, round_to_bytes
from mergerisk.crafting.images import balanced, chunks, examples, image_names, probe_images, read_batch, read_image
from mergerisk.crafting.labels import counting_remark, read_said, to_labels
from mergerisk.crafting.outcomes import AIM, CLEAN, FLOATING, SAVED, column, model_rates, saving
from mergerisk.crafting.panel import load_panel
from mergerisk.crafting.writing import SUMMARY, TABLE, check_output, png_names, write_png
from mergerisk.disk import new_folder, write_flushed
from mergerisk.errors import UserError
from mergerisk.provenance import versions
from mergerisk.seeds import derive_seed
from mergerisk.tasks.arrays import Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mergerisk.attacks import Attack
    from mergerisk.crafting.images import ImageFile
    from mergerisk.crafting.panel import Panel
    from mergerisk.crafting.settings import Crafting
    from mergerisk.models.core.stated import StatedPreprocessing

SCHEMA_VERSION = 1
"""Of ``attack.json``."""

_AIMED_AT = "shows the class that is aimed at"


@dataclass(frozen=True)
class CraftedFolder:
    """A finished folder of adversarial images.

    Attributes:
        folder: where it is.
        summary: what ``attack.json`` holds.
        outcomes: what ``attack.csv`` holds.
    """

    folder: Path
    summary: dict[str, Any]
    outcomes: pd.DataFrame


def craft_folder(
    model: str,
    images: str | Path,
    out: str | Path,
    crafting: Crafting,
    *,
    labels: str | Path | None = None,
    targets: Sequence[str] = (),
    preprocessing: Mapping[str, StatedPreprocessing] | None = None,
    samples: int | None = None,
    limit: int | None = None,
    device: str = "cpu",
    batch_size: int = 32,
    force: bool = False,
    offline: bool = False,
    listener: Callable[[int, int], None] = lambda *_: None,
) -> CraftedFolder:
    """Attack a model with a folder of images; keep what was made, and what the models say of what was kept.

    Results do not depend on ``batch_size`` nor, but for attacks that mix images, on which others the folder holds.
    Whatever goes wrong, ``out`` is as it was before.

    Args:
        model: see :func:`mergerisk.models.sources.classifiers.load_classifier`.
        images: a folder of class folders, or of images.
        out: the folder to make; absent or empty.
        crafting: the attack and its budget.
        labels: a CSV table ``file,label``. Without it, class folders say what images show; where there are none
            either, the model's own clean predictions do.
        targets: other models with the same classes, on which transfer is measured.
        preprocessing: by model, what is done to its pixels instead of what comes with it; under an empty name for
            all models.
        samples: over how many fixed draws the logits of a model that draws at random are averaged; such a model is
            refused without.
        limit: attack at most so many images, as evenly over the classes as they allow.
        device: where models compute.
        batch_size: images at a time.
        force: replace what an earlier run left in ``out``.
        offline: take models of the hub from the cache only.
        listener: told how many passes of one image through a model, of how many, are done.

    Raises:
        UserError: a setting, a model, an image or a label is wrong; found before anything is crafted, except for
            NaN in what a model computes, a budget too small for images of more than 8 bits, and a disk that fills
            up.
    """
    images, out, table = Path(images), Path(out), None if labels is None else Path(labels)
    for name, value, least in (
        ("limit", limit, 1),
        ("batch-size", batch_size, 1),
        ("seed", crafting.seed, 0),
        ("samples", samples, 1),
    ):
        if value is not None and value < least:
            raise UserError(f"--{name} must be {least} or more, got {value}")
    attack = crafting.create_attack()
    attack.check_files()
    check_output(out, force=force, images=images, models=[Path(name) for name in (model, *targets)])
    names = image_names(images, table)
    said, skipped = read_said(images, names, table)
    # Models are asked with an image that is going to be attacked: files that are left out count for nothing.
    size = _first_size(images, names if said is None else [*said])
    panel = load_panel(
        [model, *targets],
        size,
        device=device,
        batch_size=batch_size,
        preprocessing=preprocessing or {},
        samples=samples,
        seed=crafting.seed,
        offline=offline,
    )
    classes = panel.common_classes(size)
    known = None if said is None else to_labels(said, classes)
    aim = None if crafting.target_label is None else classes.index(crafting.target_label, "--target-label")
    if known is not None:
        skipped += [Skipped(name, _AIMED_AT) for name, label in known.items() if label == aim]
        names = [name for name, label in known.items() if label != aim]
    files, unreadable = probe_images(images, balanced(names, known or {}, crafting.seed), limit)
    skipped += unreadable
    for size in sorted({file.size for file in files}):
        ball(crafting.norm, torch.zeros(1, 3, *size), crafting.epsilon)
        for name in panel.loaded:
            panel.count_classes(name, size)

    bench = _Bench(crafting, attack, panel, known, aim, png_names([file.name for file in files]))
    passes = len(files) * (attack.gradients_per_image + 3 + 2 * len(targets))
    room = sum(3 * file.size[0] * file.size[1] + 4096 for file in files)
    with new_folder(out, room) as folder, panel.counting(passes, listener):
        frames = [frame for chunk in chunks(files) if (frame := bench.craft(chunk, folder)) is not None]
        if not frames:
            raise UserError(f"{images}: no image to attack{examples(skipped)}")
        outcomes = pd.concat(frames).sort_values("file", ignore_index=True)
        left = {file.name for file in files} - set(outcomes["file"])
        skipped += [Skipped(name, _AIMED_AT) for name in left]
        summary = {
            "schema_version": SCHEMA_VERSION,
            "model": model,
            "targets": list(targets),
            "commits": {name: loaded.commit for name, loaded in panel.loaded.items() if loaded.commit},
            "remarks": [
                *(loaded.remark for loaded in panel.loaded.values() if loaded.remark),
                *counting_remark(known or {}, classes),
            ],
            "images": str(images),
            "labels": str(table) if table else "folders" if known is not None else "clean predictions",
            "attack": {"name": crafting.attack, **describe(attack)},
            "epsilon": crafting.epsilon,
            "norm": crafting.norm,
            "target_label": aim,
            "seed": crafting.seed,
            "limit": limit,
            "preprocessing": {name: stated.fields() for name, stated in (preprocessing or {}).items()},
            "samples": samples,
            "class_names": classes.names,
            "attacked": len(outcomes),
            "skipped": [{"file": item.name, "reason": item.reason} for item in sorted(skipped)],
            "rates": model_rates(outcomes, model, targets),
            "saving": saving(outcomes),
            "zero_gradient_images": int((outcomes["zero_gradients"] > 0).sum()),
            "versions": versions(),
        }
        write_flushed(folder / TABLE, outcomes.to_csv(index=False, lineterminator="\n"))
        write_flushed(folder / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return CraftedFolder(out, summary, outcomes)


@dataclass(frozen=True)
class _Bench:
    """What every chunk of images is attacked with.

    Attributes:
        crafting: the attack and its budget, in words.
        attack: the attack.
        panel: the models.
        known: labels by name of the image; None for the attacked model's clean predictions.
        aim: the label to aim at.
        saved: name of the image → of the file it is saved in.
    """

    crafting: Crafting
    attack: Attack
    panel: Panel
    known: Mapping[str, int] | None
    aim: int | None
    saved: Mapping[str, str]

    def craft(self, chunk: Sequence[ImageFile], folder: Path) -> pd.DataFrame | None:
        """Craft images of one size, save them, and see what the models say of what was saved.

        Returns:
            A row per image; None if all show the class that is aimed at.
        """
        panel, settings = self.panel, self.crafting
        images = read_batch(chunk)
        clean = panel.predict(panel.attacked, images)
        labels = clean if self.known is None else torch.tensor([self.known[file.name] for file in chunk])
        if self.aim is not None:
            kept = (labels != self.aim).nonzero().flatten()
            if not len(kept):
                return None
            chunk = [chunk[position] for position in kept.tolist()]
            images, labels, clean = images[kept], labels[kept], clean[kept]
        made = self.attack.craft(
            panel.module(panel.attacked),
            images.to(panel.device),
            labels.to(panel.device),
            epsilon=settings.epsilon,
            norm=settings.norm,
            targets=None if self.aim is None else torch.full_like(labels, self.aim).to(panel.device),
            seed=settings.seed,
            indices=[derive_seed(0, file.name) for file in chunk],
            batch_size=panel.batch_size,
        )
        adversarial = made.adversarial.cpu()
        saved = [self.saved[file.name] for file in chunk]
        # One by one: rounding is done in float64.
        for name, attacked, image in zip(saved, adversarial.split(1), images.split(1), strict=True):
            write_png(folder / name, round_to_bytes(attacked, image, settings.epsilon, settings.norm)[0])
        read = torch.stack([read_image(folder / name) for name in saved])
        rows = {
            "file": [file.name for file in chunk],
            "saved": saved,
            "label": labels,
            **({} if made.targets is None else {AIM: made.targets.cpu()}),
            CLEAN: clean,
            FLOATING: panel.predict(panel.attacked, adversarial),
            SAVED: panel.predict(panel.attacked, read),
            **self._lengths(read, images),
            "zero_gradients": made.zero_gradients.cpu(),
        }
        for name in panel.targets:
            rows[column(CLEAN, name)] = panel.predict(name, images)
            rows[column(SAVED, name)] = panel.predict(name, read)
        return pd.DataFrame(rows)

    def _lengths(self, read: torch.Tensor, images: torch.Tensor) -> dict[str, list[float]]:
        """How far what was saved is from the clean images, in either norm.

        Raises:
            RuntimeError: farther than the budget.
        """
        lengths: dict[str, list[float]] = {"linf": [], "l2": []}
        for saved, image in zip(read.split(1), images.split(1), strict=True):
            exact, points = exact_pixels(image), exact_pixels(saved)
            lengths["linf"].append(float(ball("linf", exact, 0.0).lengths(points)))
            lengths["l2"].append(float(ball("l2", exact, 0.0).lengths(points)))
        if max(lengths[self.crafting.norm]) > self.crafting.epsilon * (1 + 1e-9):
            raise RuntimeError("a saved image lies outside its budget")
        return lengths


def _first_size(images: Path, names: Sequence[str]) -> tuple[int, int]:
    found, skipped = probe_images(images, names, limit=1)
    if not found:
        raise UserError(f"{images}: no image can be read{examples(skipped)}")
    return found[0].size
