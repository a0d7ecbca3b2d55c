"""Repositories of a hub such as huggingface.co: commits, files, and what is cached of them."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mergerisk.errors import UserError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Kind = Literal["model", "dataset"]

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
_UNANSWERED = re.compile(r"Connect|Timeout|Protocol|ReadError|Proxy|SSL")
"""In the names of errors, which differ between the versions of the hub's library."""
_SHORT = re.compile(r"[0-9a-f]{7,39}")


class UnavailableError(UserError):
    """What is wanted of the hub is not in the cache, and is not, or cannot be, fetched now."""


PATIENCE = 15.0
"""Seconds that the hub may take to answer."""


def download(
    name: str,
    revision: str | None,
    *,
    kind: Kind,
    choose: Callable[[list[str]], list[str]],
    lacking: Callable[[Path | None], str | None],
    offline: bool = False,
    endpoint: str | None = None,
    cache: Path | None = None,
    instead: str = "",
    path: str = "folder",
) -> Path:
    """The folder of a commit in the cache, with the files that ``choose`` takes, downloaded if need be.

    Args:
        name: ``org/name``.
        revision: branch, tag or commit, which may be cut to its first seven digits or more; ``main`` if None.
        kind: of repository.
        choose: from the names of all files, those wanted.
        lacking: what is missing in a cached folder (None if there is none), in words; None if it will do.
        offline: use what is cached only.
        endpoint: the hub's address; huggingface.co or ``HF_ENDPOINT`` by default.
        cache: folder of downloads; the usual cache by default.
        instead: begins what messages say is wrong.
        path: what could be given instead of a download.

    Raises:
        UserError: no such repository or revision, or none without logging in; the hub cannot be reached and
            what is wanted is not cached, of which the class is :class:`UnavailableError`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    where = f"{name}@{revision}" if revision else name
    fault: Exception | None = None
    if not offline:
        try:
            commit, files = _listed(name, revision, kind, endpoint)
            # Pinned, since a branch may move after its files were listed.
            pinned = snapshot_download(
                name,
                repo_type=kind,
                revision=commit,
                allow_patterns=choose(files),
                endpoint=endpoint,
                cache_dir=cache,
            )
            return noted(Path(pinned), revision or "main")
        except (HfHubHTTPError, HFValidationError) as error:
            raise UserError(f"{where}: {instead}{_explain(error, kind)}") from error
        except UserError:
            raise
        except Exception as error:  # no connection, or a broken one; the library documents no class of errors
            fault = error
    folder = cached_folder(name, revision, kind=kind, cache=cache)
    missing = lacking(folder)
    if folder is not None and missing is None:
        return folder
    if fault is None:
        missing = f"{missing}: " if missing else ""
        raise UnavailableError(
            f"{where}: {missing}{instead}not in the cache of downloads; fetch it once without --offline"
        )
    raise UnavailableError(
        f"{where}: {instead}it cannot be downloaded: {_trouble(fault, endpoint)}, or give a {path}"
    ) from fault


def cached_folder(name: str, revision: str | None, *, kind: Kind, cache: Path | None) -> Path | None:
    """The folder in which the cache keeps what it has of a revision; None if it has nothing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        # Whole or not: of no file is it asked that it be there.
        found = snapshot_download(
            name, repo_type=kind, revision=revision, cache_dir=cache, local_files_only=True, allow_patterns=[]
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return Path(found) if COMMIT.fullmatch(Path(found).name) else None


def cached_repository(name: str, *, kind: Kind, cache: Path | None) -> Path:
    """The folder of a repository in the cache, whether it is there or not.

    For what the library has no words for: it notes no branch that was found without it, and looks for none. The
    layout is documented: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(cache or constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type=kind))


def find_commit(
    name: str,
    revision: str | None,
    *,
    kind: Kind,
    offline: bool = False,
    endpoint: str | None = None,
    cache: Path | None = None,
    instead: str = "",
) -> str:
    """The commit that a revision stands for; a whole commit is not asked for.

    Raises:
        UserError: no such repository or revision, or, as an :class:`UnavailableError`, it can neither be asked for
            nor is noted in the cache.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    where = f"{name}@{revision}" if revision else name
    fault: Exception | None = None
    if not offline:
        try:
            return _listed(name, revision, kind, endpoint)[0]
        except (HfHubHTTPError, HFValidationError) as error:
            raise UserError(f"{where}: {instead}{_explain(error, kind)}") from error
        except UserError:
            raise
        except Exception as error:  # as in `download`
            fault = error
    folder = cached_folder(name, revision, kind=kind, cache=cache)
    if folder is not None:
        return folder.name
    if fault is None:
        raise UnavailableError(f"{where}: {instead}not in the cache of downloads; fetch it once without --offline")
    raise UnavailableError(f"{where}: {instead}the hub cannot be asked: {_trouble(fault, endpoint)}") from fault


def _listed(name: str, revision: str | None, kind: Kind, endpoint: str | None) -> tuple[str, list[str]]:
    """A revision's commit, and the files it has."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint)
    if revision is not None and _SHORT.fullmatch(revision):
        commits = [commit.commit_id for commit in api.list_repo_commits(name, repo_type=kind)]
        whole = [commit for commit in commits if commit.startswith(revision)]
        if len(whole) != 1:
            raise UserError(f"{name}@{revision}: {'several commits begin' if whole else 'no commit begins'} so")
        revision = whole[0]
    found = (api.model_info if kind == "model" else api.dataset_info)(name, revision=revision, timeout=PATIENCE)
    assert found.sha is not None
    return found.sha, [file.rfilename for file in found.siblings or []]


@contextmanager
def asking(where: str, kind: Kind, instead: str) -> Iterator[None]:
    """Whatever goes wrong when a hub is asked, as an error for the user; see :func:`find_commit`."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (HfHubHTTPError, HFValidationError) as error:
        raise UserError(f"{where}: {instead}{_explain(error, kind)}") from error
    except UserError:
        raise
    except Exception as error:  # as in `download`
        raise UnavailableError(f"{where}: {instead}the hub cannot be asked: {_trouble(error)}") from error


def noted(folder: Path, revision: str) -> Path:
    """A commit's folder, noted in the cache as what a branch or tag stands for, so that it is found offline."""
    if revision != folder.name:
        note = folder.parents[1] / "refs" / revision
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(folder.name, encoding="utf-8")
    return folder


def _trouble(fault: Exception, endpoint: str | None = None) -> str:
    """What keeps the hub from answering, and what to do, whatever library under the hub's met it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(fault, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so that nothing may be asked of it; unset HF_HUB_OFFLINE"
    if isinstance(fault, ConnectionError | TimeoutError) or _UNANSWERED.search(type(fault).__name__):
        place = endpoint or constants.ENDPOINT
        return f"{place} does not answer ({first_line(fault)}); check the connection, and HF_ENDPOINT if it is set"
    return f"{first_line(fault)}; mend that"


def _explain(error: Exception, kind: Kind) -> str:
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return "on the hub it is gated; accept its conditions there, then log in with: hf auth login"
        case errors.RevisionNotFoundError():
            return "the hub's repository has no such revision"
        case errors.RepositoryNotFoundError():
            return f"no such {kind} on the hub, or a private one; check the name, or log in with: hf auth login"
        case _:
            return f"the hub refuses: {first_line(error)}"
