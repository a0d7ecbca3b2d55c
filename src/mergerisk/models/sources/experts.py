"""Experts that somebody else fine-tuned, from a file, a folder or the hub."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.models.on_disk.checkpoints import Checkpoint, check_merged, is_adapter
from mergerisk.models.on_disk.copies import split_copy
from mergerisk.models.sources.hub import fetch
from mergerisk.models.sources.loading import path_identity
from mergerisk.models.sources.lora import LoraCheckpoint
from mergerisk.models.sources.reading import Renamed, names_on_disk, read_state

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from mergerisk.models.core.encoder import Encoder, State


def read_expert(base: Encoder, path: Path, where: str, prefix: str = "") -> State:
    """An expert's parameters, whatever its configuration; see :func:`mergerisk.load_expert`.

    Args:
        base: the encoder it was fine-tuned from.
        path: of its file or folder.
        where: how messages begin.
        prefix: of the copy that is meant; see :func:`mergerisk.models.on_disk.copies.split_copy`.

    Raises:
        UserError: see there.
    """
    on_disk = names_on_disk(base.backbone)
    if not is_adapter(path):
        pretrained = base.state()
        state = read_state(pretrained, on_disk, Checkpoint(path, prefix), where)
        check_merged(path, ((pretrained[name], tensor.to(base.mean.device)) for name, tensor in state.items()))
        return state
    adapted = _adapted(base, on_disk, path, where)
    return read_state(base.state(), on_disk, adapted, where)


def expert_identity(spec: str | Path, *, offline: bool = False) -> dict[str, str]:
    """SHA-256 of each file that decides an expert's parameters, by its name, and the prefix of the copy that is
    meant, if there is one; see :func:`mergerisk.load_expert`."""
    source, prefix = split_copy(str(spec))
    return path_identity(fetch(source, offline=offline)) | ({"prefix": prefix} if prefix else {})


def _adapted(base: Encoder, on_disk: Mapping[str, str], folder: Path, where: str) -> LoraCheckpoint:
    """The base with an adapter, which knows its modules by their names in memory or by those on disk.

    Raises:
        UserError: it fits under neither.
    """
    state = base.state()
    namings = [{name: name for name in state}, {name: on_disk.get(name, name) for name in state}]
    if type(base.backbone).__name__.startswith("CLIPVision"):
        # An adapter of the whole CLIP has the same names in both towers.
        namings.insert(0, {name: f"vision_model.{name}" for name in state})
    found: list[LoraCheckpoint] = []
    faults: list[UserError] = []
    for naming in namings:
        modules = {_first(name) for name in naming.values()}
        try:
            # What it brings beside the encoder's tensors, as a classifier, is left out.
            found.append(LoraCheckpoint(Renamed(state, naming), folder, ignored=partial(_outside, modules)))
        except UserError as fault:
            faults.append(fault)
    best = max(found, key=lambda adapted: len(adapted.changed), default=None)
    if best is not None and best.changed:
        return best
    if faults:
        raise faults[-1]
    raise UserError(f"{where}: the adapter changes no tensor of the base; it belongs to another architecture")


def _outside(modules: Collection[str], name: str) -> bool:
    return _first(name) not in modules


def _first(name: str) -> str:
    return name.partition(".")[0]
