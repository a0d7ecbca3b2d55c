"""Whether an audit's heads can be made, seen before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.errors import UserError, located
from mergerisk.study.locating import locate

if TYPE_CHECKING:
    from mergerisk.study import Study

_OTHERWISE = (
    "of bare encoders take heads: {from: zero_shot} (a CLIP), or heads: {from: linear_probe} and images with a "
    "training part, as images: {task: photos/, test_share: 0.5}"
)


def check_heads(study: Study, *, offline: bool = False) -> None:
    """See that every task gets a head that fits its classes.

    Raises:
        UserError: one does not; the message says what to do.
    """
    from mergerisk.models import checkpoint_head, zero_shot
    from mergerisk.study.heads import fitting_head

    placed, _ = locate(study, offline=offline)
    heads = placed.heads
    for spec in placed.tasks:
        source = spec.source
        if source.kind == "starter" and heads.source != "checkpoint":
            continue  # has training images, and takes a while to render
        names, trains = source.outline()
        with located("heads"):
            if heads.source == "linear_probe" and not trains:
                raise UserError(
                    f"from linear_probe, but the images of {source.name!r} have no training part; give one, as "
                    "test_share: 0.5 or folders train/ and test/, or take heads: {from: checkpoint}"
                )
            if heads.source == "zero_shot":
                zero_shot(placed.backbone, names[:1], ("{}",))
            if heads.source == "checkpoint":
                file = heads.files.get(source.name) or placed.experts.files.get(source.name) or placed.backbone
                try:
                    checkpoint_head(file)
                except UserError as error:
                    raise UserError(f"{error}; {_OTHERWISE}") from error
                fitting_head(file, source.name, names)
