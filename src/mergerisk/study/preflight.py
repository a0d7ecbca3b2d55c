"""What can be found wrong before any expensive work is found wrong here."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.models.loading import BACKBONES
from mergerisk.study.query_budget import shared_queries
from mergerisk.tasks.loading import task_source

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mergerisk.study.planning import Stage
    from mergerisk.study.schema import Study

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
            try:
                shared_queries(root, spec).check(count)
            except UserError as error:
                raise UserError(f"target {spec['label']}: {error}") from error


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
        source = task_source(spec)
        if source.kind != "starter":
            image_bytes = max(image_bytes, source.check())
    for attack in study.attacks:
        from mergerisk.attacks import create

        create(attack.name, **attack.parameters).check_files()
    for target in study.targets:
        from mergerisk.study.black_boxes import make_black_box
        from mergerisk.transfer import Queries

        for name in target.places:
            try:
                # No class name matters before it is asked.
                make_black_box(target.model_dump(), name, ("", ""), Queries(target.queries or 0))
            except UserError as error:
                raise UserError(f"target {target.label}: {error}") from error
    if study.backbone in BACKBONES and not study.experts.files:
        return image_bytes

    from mergerisk.models import load_encoder, load_expert

    base = load_encoder(study.backbone, image_size=study.image_size)
    for task_name, path in study.experts.files.items():
        try:
            load_expert(base, path)
        except UserError as error:
            raise UserError(f"experts.files.{task_name}: {error}") from error
    return image_bytes
