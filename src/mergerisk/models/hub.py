"""Model folders by path, or from a hub of models such as huggingface.co."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk.errors import UserError, first_line
from mergerisk.models.files import ADAPTER_CONFIG, CONFIG, INDEX, PICKLES, PREPROCESSOR, TOKENIZER, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONFIGS = (CONFIG, PREPROCESSOR, ADAPTER_CONFIG, *TOKENIZER)

_PATIENCE = 15.0
"""Seconds that the hub may take to answer."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


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
    if not is_hub_id(spec):
        raise UserError(f"{spec!r}: no such file or folder; a model on the hub is written org/name")
    return _download(name, revision or None, offline=offline, endpoint=endpoint, cache=cache)


def is_hub_id(spec: str) -> bool:
    """Whether a spec is written as a model of the hub, and no such path exists."""
    name = spec.partition("@")[0]
    return _HUB_ID.fullmatch(name) is not None and not is_path(spec) and not Path(spec).expanduser().exists()


def is_path(spec: str) -> bool:
    """Whether a spec that names no existing file can only be a path."""
    return spec.startswith((".", "/", "~")) or spec.partition("@")[0].count("/") > 1


def commit_of(path: Path) -> str | None:
    """The commit a folder in the hub's cache belongs to; None for any other folder."""
    inside = path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--")
    return path.name if inside and _COMMIT.fullmatch(path.name) else None


def _download(name: str, revision: str | None, *, offline: bool, endpoint: str | None, cache: Path | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = f"{name}@{revision}" if revision else name
    fault: Exception | None = None
    if not offline:
        try:
            found = HfApi(endpoint=endpoint).model_info(name, revision=revision, timeout=_PATIENCE)
            wanted = _wanted(where, [file.rfilename for file in found.siblings or []])
            # Pinned, since a branch may move after its files were listed.
            pinned = snapshot_download(
                name, revision=found.sha, allow_patterns=wanted, endpoint=endpoint, cache_dir=cache
            )
            return _noted(Path(pinned), revision or "main")
        except (HfHubHTTPError, HFValidationError) as error:
            raise UserError(f"{where}: no such folder, and {_explain(error)}") from error
        except UserError:
            raise
        except Exception as error:  # no connection, or a broken one; the library documents no class of errors
            fault = error
    try:
        folder = Path(
            snapshot_download(
                name, revision=revision, allow_patterns=list(_CONFIGS), cache_dir=cache, local_files_only=True
            )
        )
    except LocalEntryNotFoundError:
        folder = None
    if folder is not None and any(folder.glob("*.safetensors")):
        return folder
    if fault is None:
        lacking = "not in the cache of downloads" if folder is None else f"{folder} lacks {WEIGHTS}"
        raise UserError(f"{where}: no such folder, and {lacking}; fetch it once without --offline")
    raise UserError(
        f"{where}: no such folder, and it cannot be downloaded: {first_line(fault)}; mend that, or give a folder"
    ) from fault


def _noted(folder: Path, revision: str) -> Path:
    """A commit's folder, noted in the cache as what a branch or tag stands for, so that it is found offline."""
    if revision != folder.name:
        note = folder.parents[1] / "refs" / revision
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(folder.name, encoding="utf-8")
    return folder


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
    return [file for file in top if file in _CONFIGS or file == INDEX] + (whole or weights)


def _explain(error: Exception) -> str:
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return "on the hub it is gated; accept its conditions there, then log in with: hf auth login"
        case errors.RevisionNotFoundError():
            return "the hub's repository has no such revision"
        case errors.RepositoryNotFoundError():
            return "no such model on the hub, or a private one; check the name, or log in with: hf auth login"
        case _:
            return f"the hub refuses: {first_line(error)}"
