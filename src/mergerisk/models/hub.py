"""Model folders by path, or from a hub of models such as huggingface.co."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.hub_downloads import COMMIT, HUB_ID, download, find_commit
from mergerisk.models.files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    INDEX,
    PICKLES,
    PREPROCESSOR,
    PROCESSOR,
    TOKENIZER,
    WEIGHTS,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_INSTEAD = "no such folder, and "
"""Where a spec is taken for a model of the hub, it was looked for on this machine."""

_CONFIGS = (CONFIG, PREPROCESSOR, PROCESSOR, ADAPTER_CONFIG, *TOKENIZER)


def fetch(spec: str, *, offline: bool = False, endpoint: str | None = None, cache: Path | None = None) -> Path:
    """The file or folder that ``spec`` names, downloaded if need be.

    A path that exists wins. Of a hub's repository only safetensors at its top and the configurations and
    tokenizers beside them are downloaded, into the cache that transformers uses too.

    Args:
        spec: a file, a folder, ``org/name`` or ``org/name@revision``.
        offline: use what is cached only.
        endpoint: the hub's address; huggingface.co or ``HF_ENDPOINT`` by default.
        cache: folder of downloads; the usual cache by default.

    Raises:
        UserError: no such path; no such repository or revision, or none without logging in; no safetensors in it;
            the hub cannot be reached and nothing is cached.
    """
    path = Path(spec).expanduser()
    if path.exists():
        return path
    if is_path(spec):
        raise UserError(f"{path}: no such file or folder")
    name, _, revision = spec.partition("@")
    if "\\" in spec:
        raise UserError(
            f"{spec!r}: no such file or folder here; it is a path of Windows: write this machine's own"
        )
    if not is_hub_id(spec):
        raise UserError(f"{spec!r}: no such file or folder; a model on the hub is written org/name")
    return _download(name, revision or None, offline=offline, endpoint=endpoint, cache=cache)


def ask(spec: str) -> str:
    """The commit of a model of the hub, of which nothing is downloaded.

    Args:
        spec: ``org/name`` or ``org/name@revision``.

    Raises:
        UserError: no such repository or revision; the hub cannot be reached and nothing of it is cached.
    """
    name, _, revision = spec.partition("@")
    return find_commit(name, revision or None, kind="model", instead=_INSTEAD)


def is_hub_id(spec: str) -> bool:
    """Whether a spec is written as a model of the hub, and no such path exists."""
    name = spec.partition("@")[0]
    return HUB_ID.fullmatch(name) is not None and not is_path(spec) and not Path(spec).expanduser().exists()


def is_path(spec: str) -> bool:
    """Whether a spec that names no existing file can only be a path."""
    return spec.startswith((".", "/", "~")) or spec.partition("@")[0].count("/") > 1


def commit_of(path: Path) -> str | None:
    """The commit a folder in the hub's cache belongs to; None for any other folder."""
    inside = path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--")
    return path.name if inside and COMMIT.fullmatch(path.name) else None


def _download(name: str, revision: str | None, *, offline: bool, endpoint: str | None, cache: Path | None) -> Path:
    where = f"{name}@{revision}" if revision else name
    return download(
        name,
        revision,
        kind="model",
        choose=lambda files: _wanted(where, files),
        lacking=_lacking,
        offline=offline,
        endpoint=endpoint,
        cache=cache,
        instead=_INSTEAD,
    )


def _lacking(folder: Path | None) -> str | None:
    """What a cached folder lacks to be a model, in words; None if nothing."""
    if folder is None:
        return ""
    return None if any(folder.glob("*.safetensors")) else f"{folder} lacks {WEIGHTS}"


def _wanted(where: str, files: Iterable[str]) -> list[str]:
    """The files of a repository that hold a model, or an adapter.

    Raises:
        UserError: it has no safetensors.
    """
    top = [file for file in files if "/" not in file]
    weights = [file for file in top if file.endswith(".safetensors")]
    if not weights:
        pickles = [file for file in top if Path(file).suffix in PICKLES]
        hint = f"only {pickles[0]}, and loading a pickle can run code; " if pickles else ""
        raise UserError(f"{where}: the repository has no safetensors; {hint}convert it, or use another revision")
    whole = [file for file in weights if file == WEIGHTS]
    # An adapter beside a whole model is not read, but tells what to make sure of: that it was merged into it.
    adapter = [file for file in weights if file == ADAPTER_WEIGHTS and ADAPTER_CONFIG in top]
    return [file for file in top if file in _CONFIGS or file == INDEX] + (whole + adapter if whole else weights)
