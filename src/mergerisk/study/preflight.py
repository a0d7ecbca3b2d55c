"""What can be found wrong before any expensive work is found wrong here."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from typing import TYPE_CHECKING

from mergerisk.errors import UserError, located
from mergerisk.models.loading import BACKBONES
from mergerisk.study.query_budget import shared_queries

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mergerisk.study.schema import Study
    from mergerisk.study.stage import Stage

_SPARE_BYTES = 64 * 2**20
"""Kept free besides what the adversarial images need."""

_STARTER_IMAGE_BYTES = 3 * 32 * 32 * 4


def check_output(out: Path) -> None:
    """Make the output folder and try to write in it.

    Raises:
        UserError: that fails.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"{out}: cannot be written to: {error.strerror}; choose another --out") from error


def check_space(folder: Path, needed: int) -> None:
    """Raises:
    UserError: less than ``needed`` bytes, and some to spare, are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise UserError(
            f"{folder}: {free / 2**20:.0f} MiB free, about {(needed + _SPARE_BYTES) / 2**20:.0f} MiB needed; free "
            "space, choose another --out or --store, or lower --limit"
        )


def check_queries(missing: Iterable[Stage], root: Path) -> None:
    """See that what is left to ask of every black box fits into its budget.

    Args:
        missing: the stages to run.
        root: the store's folder, where queries are counted.

    Raises:
        UserError: it does not; nothing was asked yet.
    """
    wanted: Counter[str] = Counter()
    for stage in missing:
        if "black_box" in stage.sources:
            wanted[stage.sources["black_box"]] += stage.images["query"]
    for source, count in wanted.items():
        spec = json.loads(source)
        if spec["queries"] is not None:
            with located(f"target {spec['label']}"):
                shared_queries(root, spec).check(count)


def resolve_device(device: str) -> str:
    """``auto`` becomes ``cuda`` if there is one.

    Raises:
        UserError: ``cuda`` was asked for and there is none.
    """
    if device == "cpu":
        return device
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("--device cuda: PyTorch finds no CUDA device; use --device cpu or auto")
    return "cuda" if available else "cpu"


def check_material(study: Study) -> int:
    """Load what the user brought (tasks, attacks' files, black boxes, backbone, experts) once, to see that it is
    sound.

    Returns:
        Bytes of the largest task's image as float32.

    Raises:
        UserError: it is not; the message names the file and what is wrong.
    """
    image_bytes = _STARTER_IMAGE_BYTES
    for spec in study.tasks:
        source = spec.source
        if source.kind != "starter":
            image_bytes = max(image_bytes, source.check())
    for attack in study.attacks:
        from mergerisk.attacks import create

        create(attack.name, **attack.parameters).check_files()
    for target in study.targets:
        from mergerisk.study.black_boxes import make_black_box
        from mergerisk.transfer import Queries

        for name in target.places:
            with located(f"target {target.label}"):
                # No class name matters before it is asked.
                make_black_box(target.model_dump(), name, ("", ""), Queries(target.queries or 0))
    _check_models(study)
    return image_bytes


def _check_models(study: Study) -> None:
    """Load every model that was made elsewhere, one at a time.

    Raises:
        UserError: one cannot be loaded, or is of another architecture; the message says which field names it.
    """
    given = {f"experts.files.{task}": file for task, file in study.experts.files.items()}
    given |= {f"ingredients.{name}": file for name, file in study.ingredients.items()}
    given |= {f"targets: {spec.label}": spec.encoder for spec in study.targets if spec.encoder}
    if study.outsider is not None and study.outsider.file is not None:
        given["outsider.file"] = study.outsider.file
    other = study.other_architecture
    if other is not None and other.backbone not in BACKBONES:
        from mergerisk.models import load_encoder

        with located("other_architecture"):
            load_encoder(other.backbone, image_size=other.image_size)
    if study.backbone in BACKBONES and not given:
        return

    from mergerisk.models import load_encoder, load_expert

    base = load_encoder(study.backbone, image_size=study.image_size)
    for field, file in given.items():
        with located(field):
            load_expert(base, file)
