"""Model folders by path, or from a hub of models such as huggingface.co."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.hub_downloads import COMMIT, HUB_ID, UnavailableError, download, find_commit
from mergerisk.models.on_disk.filenames import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    INDEX,
    PICKLES,
    PREPROCESSOR,
    PROCESSOR,
    TOKENIZER,
    WEIGHTS,
    convert_command,
)
from mergerisk.models.sources import conversions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_INSTEAD = "no such folder, and "
"""Where a spec is taken for a model of the hub, it was looked for on this machine."""

_MAIN = (None, "main")
"""Revisions for which the hub's conversion may stand; any other is taken as it is."""

_CONFIGS = (CONFIG, PREPROCESSOR, PROCESSOR, ADAPTER_CONFIG, *TOKENIZER)


def fetch(spec: str, *, offline: bool = False, endpoint: str | None = None, cache: Path | None = None) -> Path:
    """The file or folder that ``spec`` names, downloaded if need be.

    A path that exists wins. Of a hub's repository only safetensors at its top and the configurations and
    tokenizers beside them are downloaded, into the cache that transformers uses too. Where ``main`` has no
    safetensors, those that the hub's conversion bot proposes are taken; :func:`remark` says so.

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
    try:
        return find_commit(name, revision or None, kind="model", instead=_INSTEAD)
    except UnavailableError:
        taken = conversions.taken(name) if (revision or None) in _MAIN else None
        if taken is None:
            raise
        return taken[0].commit


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


def remark(spec: str, folder: Path) -> str:
    """What a reader must know of the folder that :func:`fetch` gave for a spec; empty if nothing."""
    conversion = _conversion(spec, folder)
    if conversion is None:
        return ""
    return (
        f"main of {spec.partition('@')[0]} has no safetensors; taken from the hub's conversion, "
        f"{conversion.reference}, commit {conversion.commit[:7]}, which the repository's owner has not merged"
    )


def revision_of(spec: str, folder: Path) -> str:
    """The spec, with the reference of the conversion that was taken for it, if one was."""
    conversion = _conversion(spec, folder)
    return spec if conversion is None else f"{spec.partition('@')[0]}@{conversion.reference}"


def _conversion(spec: str, folder: Path) -> conversions.Conversion | None:
    name, _, revision = spec.partition("@")
    asked = (revision or None) in _MAIN and HUB_ID.fullmatch(name) is not None
    return conversions.conversion_in(folder) if asked else None


class _NoSafetensorsError(UserError):
    """A revision holds no safetensors.

    Args:
        where: the repository, and the revision if one was given.
        pickles: what weights it may hold otherwise.
    """

    def __init__(self, where: str, pickles: Sequence[str]) -> None:
        hint = f"; only {pickles[0]}, and loading a pickle can run code" if pickles else ""
        super().__init__(f"{where}: the repository has no safetensors{hint}")
        self.advice = f"convert it: {convert_command(where)}" if pickles else "use another revision"
        self.convertible = bool(pickles)


def _download(name: str, revision: str | None, *, offline: bool, endpoint: str | None, cache: Path | None) -> Path:
    where = f"{name}@{revision}" if revision else name

    def get(commit: str | None) -> Path:
        return download(
            name,
            commit,
            kind="model",
            choose=lambda files: _wanted(where, files),
            lacking=_lacking,
            offline=offline,
            endpoint=endpoint,
            cache=cache,
            instead=_INSTEAD,
        )

    try:
        try:
            return get(revision)
        except _NoSafetensorsError as none:
            if revision not in _MAIN or not none.convertible:
                raise UserError(f"{none}; {none.advice}") from none
            try:
                conversion = conversions.find(name, endpoint=endpoint)
            except conversions.NoConversionError as error:
                raise UserError(f"{none}; {error}; {none.advice}") from error
            folder = get(conversion.commit)
            conversions.note(folder, conversion)
            return folder
    except UnavailableError:
        taken = conversions.taken(name, cache=cache) if revision in _MAIN else None
        if taken is None or _lacking(taken[1]) is not None:
            raise
        return taken[1]


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
        raise _NoSafetensorsError(where, [file for file in top if Path(file).suffix in PICKLES])
    whole = [file for file in weights if file == WEIGHTS]
    # An adapter beside a whole model is not read, but tells what to make sure of: that it was merged into it.
    adapter = [file for file in weights if file == ADAPTER_WEIGHTS and ADAPTER_CONFIG in top]
    return [file for file in top if file in _CONFIGS or file == INDEX] + (whole + adapter if whole else weights)
