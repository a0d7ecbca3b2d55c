"""Pickled weights, as ``torch.save`` writes them, into a folder of safetensors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import mergerisk
from mergerisk.disk import mebibytes, new_folder, write_flushed
from mergerisk.errors import UserError, shown_text
from mergerisk.hub_downloads import download
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.on_disk.filenames import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    INDEX,
    PICKLED_ADAPTER,
    PICKLES,
    TOKENIZER,
    WEIGHTS,
    converted_name,
    read_json,
)
from mergerisk.models.sources.hub import is_hub_id
from mergerisk.recipe.unpickling import Job, to_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PICKLED = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"

_BOOKKEEPING = ("training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states")
"""What the names of pickles begin with that trainers leave beside weights."""

_SOUND = "2.10"
"""PyTorch's first version whose restricted unpickler is not known to run code: CVE-2025-32434 was mended in 2.6,
CVE-2026-24747 in 2.10."""

_SPARE_MEMORY = 2**29
"""Bytes beside the tensors themselves: what PyTorch maps when it first computes."""

_SPARE_SECONDS = 120
_BYTES_PER_SECOND = 2**22
"""A slow disk and a slow processor; reading and writing both."""


@dataclass(frozen=True)
class _Pickles:
    """What is converted.

    Attributes:
        folder: where the files are.
        files: name of the pickle → of what becomes of it.
        configs: files that are copied.
        index: whether an index says which tensor is in which file.
    """

    folder: Path
    files: Mapping[str, str]
    configs: tuple[str, ...] = ()
    index: bool = False


def convert(source: str, out: str | Path, *, key: str | None = None, offline: bool = False) -> Path:
    """Write the tensors of pickled weights as safetensors, with the configurations that lie beside them.

    Nothing is unpickled in this process: another one does, with PyTorch's restricted unpickler and bounds on
    memory and time (:mod:`mergerisk.recipe.unpickling`). Names and values stay as they are. Whatever goes wrong,
    ``out`` is as it was before.

    Args:
        source: a file, a folder with ``pytorch_model.bin``, its index and shards, ``adapter_model.bin`` or one
            other pickle of weights, or ``org/name[@revision]`` on the hub.
        out: the folder to make; absent or empty.
        key: under which a file keeps the state dict, dots between nested ones; None to find it.
        offline: take what comes from the hub from the cache only.

    Raises:
        UserError: a PyTorch before 2.10; no such file; nothing to convert; a pickle that wants more than tensors;
            no state dict, or several; tensors with NaN or infinity, quantised or sparse; more memory or time than
            the file's size explains.
    """
    if torch.__version__ < _SOUND:
        raise UserError(
            f"pickles are read with PyTorch {_SOUND} or later only, this is {torch.__version__}: files can make "
            f"earlier ones run code (CVE-2026-24747); pip install 'torch>={_SOUND}'"
        )
    out = Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"{out}: {'not empty' if out.is_dir() else 'a file'}; choose another --out")
    pickles = _find(source, offline=offline)
    sources = [pickles.folder / name for name in pickles.files]
    _check_whole(sources)
    sizes = [source.stat().st_size for source in sources]
    with new_folder(out, sum(sizes)) as folder:
        files = {str(source): str(folder / pickles.files[source.name]) for source in sources}
        seconds = _SPARE_SECONDS + sum(sizes) // _BYTES_PER_SECOND
        _carry_out(Job(files, key, 3 * max(sizes) + _SPARE_MEMORY, seconds))
        if pickles.index:
            _write_index(pickles, folder)
        for name in pickles.configs:
            write_flushed(folder / name, (pickles.folder / name).read_bytes())
        # Read as any stranger's file: the process that wrote it had seen the pickle.
        Checkpoint(folder / ADAPTER_WEIGHTS if ADAPTER_WEIGHTS in pickles.files.values() else folder)
    return out


def _find(source: str, *, offline: bool) -> _Pickles:
    path = Path(source).expanduser()
    if path.is_dir():
        return replace(_chosen(source, _names(path)), folder=path)
    if path.is_file():
        if path.suffix == ".safetensors":
            raise UserError(f"{path}: is safetensors already; give it as it is")
        return _Pickles(path.parent, {path.name: converted_name(path.name)})
    if not is_hub_id(source):
        raise UserError(f"{path}: no such file or folder; a model on the hub is written org/name")
    name, _, revision = source.partition("@")

    def wanted(files: list[str]) -> list[str]:
        found = _chosen(source, [file for file in files if "/" not in file])
        return [*found.files, *found.configs, *([PICKLED_INDEX] if found.index else [])]

    def lacking(folder: Path | None) -> str | None:
        if folder is None:
            return ""
        try:
            missing = [file for file in wanted(_names(folder)) if not (folder / file).is_file()]
        except UserError:
            return f"{folder} has no {PICKLED}"
        return f"{folder} lacks {missing[0]}" if missing else None

    folder = download(
        name,
        revision or None,
        kind="model",
        choose=wanted,
        lacking=lacking,
        offline=offline,
        instead="no such file or folder, and ",
    )
    return replace(_chosen(source, _names(folder)), folder=folder)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _chosen(where: str, names: Iterable[str]) -> _Pickles:
    """What is converted of the files of a folder or a repository.

    Raises:
        UserError: no pickles of weights, several, or safetensors beside them.
    """
    there = sorted(names)
    done = [name for name in there if name.endswith(".safetensors")]
    if done:
        raise UserError(f"{where}: has {done[0]} already; give it as it is")
    configs = tuple(name for name in there if name.endswith("config.json") or name in TOKENIZER)
    nowhere = Path()
    if PICKLED_INDEX in there:
        shards = [name for name in there if name.startswith("pytorch_model-") and name.endswith(".bin")]
        return _Pickles(nowhere, {name: _renamed(name) for name in shards}, configs, index=True)
    pickles = [name for name in there if Path(name).suffix in PICKLES and not name.startswith(_BOOKKEEPING)]
    usual = [name for name in (PICKLED, PICKLED_ADAPTER) if name in pickles] or pickles
    if not usual:
        raise UserError(f"{where}: no {PICKLED} and no other pickle of weights; nothing to convert")
    if len(usual) > 1 and PICKLED not in usual:
        raise UserError(f"{where}: several pickles ({', '.join(usual[:4])}); give one of the files")
    adapter = usual[0] == PICKLED_ADAPTER or (ADAPTER_CONFIG in there and usual[0] != PICKLED)
    return _Pickles(nowhere, {usual[0]: ADAPTER_WEIGHTS if adapter else WEIGHTS}, configs)


def _renamed(shard: str) -> str:
    return f"model{shard.removeprefix('pytorch_model').removesuffix('.bin')}.safetensors"


def _write_index(pickles: _Pickles, folder: Path) -> None:
    """Which tensor is in which file, as it was, checked against the files."""
    given = pickles.folder / PICKLED_INDEX
    owners = read_json(given).get("weight_map")
    if not isinstance(owners, dict):
        raise UserError(f"{given}: weight_map is missing")
    written = {
        name: (target, spec.nbytes)
        for target in pickles.files.values()
        for name, spec in Checkpoint(folder / target).specs.items()
    }
    renamed = {name: _renamed(str(shard)) for name, shard in owners.items()}
    differ = [name for name in written.keys() | renamed.keys() if written.get(name, ("",))[0] != renamed.get(name)]
    if differ:
        name = min(differ)
        raise UserError(f"{given}: places tensor {name!r} elsewhere than the files do; download the folder again")
    content = {"metadata": {"total_size": sum(size for _, size in written.values())}, "weight_map": renamed}
    write_flushed(folder / INDEX, json.dumps(content, indent=2) + "\n")


def _check_whole(sources: Iterable[Path]) -> None:
    """Raises:
    UserError: Git left its pointer to a file instead of the file.
    """
    for source in sources:
        with source.open("rb") as opened:
            if opened.read(40).startswith(b"version https://git-lfs"):
                raise UserError(
                    f"{source}: a pointer of Git LFS, not the file itself; fetch that with: git lfs pull"
                )


def _carry_out(job: Job) -> None:
    """Have another process convert files.

    Raises:
        UserError: it refused, or took too much.
    """
    what = ", ".join(job.files)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mergerisk.recipe.unpickling", to_text(job)],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=2 * job.seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{what}: not converted: reading it took over {2 * job.seconds} seconds") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        raise UserError(
            f"{what}: not converted: the process that read it, which may take {mebibytes(job.memory)} and "
            f"{job.seconds} seconds, failed: {shown_text(last)}"
        )
    try:
        refused = json.loads(done.stdout)
    except ValueError as error:
        raise UserError(f"{what}: not converted: the process that read it answered nonsense") from error
    if refused is not None:
        raise UserError(shown_text(str(refused), 600))


def _environment() -> dict[str, str]:
    """What Python needs to start; no tokens, no proxies."""
    kept = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "ATEN_CPU_CAPABILITY")
    known = {name: os.environ[name] for name in kept if name in os.environ}
    package = str(Path(mergerisk.__file__).parents[1])
    return known | {"PYTHONPATH": package, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
