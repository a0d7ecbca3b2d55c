"""Safetensors that the hub's conversion bot proposes for a repository whose ``main`` has none.

The bot opens a pull request that adds them, which many owners leave open. It is found as transformers finds it
(``transformers/safetensors_conversion.py``, version 5): by author, title and state; and it must have been made of
what ``main`` holds now.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.hub_downloads import COMMIT, PATIENCE, asking, cached_repository, noted
from mergerisk.models.on_disk.filenames import INDEX, PICKLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from huggingface_hub import HfApi

BOT = "SFconvertbot"
TITLE = "Adding `safetensors` variant of this model"

_NOTES = "conversion-of-main"
"""Where the cache's ``refs`` say which conversion was taken: a file ``refs/pr/N`` with its commit."""

_NO_DISCUSSIONS = frozenset({403, 404, 410})
"""What a hub answers where a repository's pull requests are switched off."""


@dataclass(frozen=True)
class Conversion:
    """A revision with the safetensors that ``main`` lacks.

    Attributes:
        reference: of the pull request, ``refs/pr/N``.
        commit: at its head.
    """

    reference: str
    commit: str


class NoConversionError(UserError):
    """There is no conversion of what a repository holds; the message says why, without its name."""


def find(name: str, *, endpoint: str | None = None) -> Conversion:
    """The newest conversion of what ``main`` holds.

    Args:
        name: ``org/name`` of a model.
        endpoint: the hub's address; huggingface.co or ``HF_ENDPOINT`` by default.

    Raises:
        NoConversionError: there is none, or only one of other weights or configurations.
        UserError: the hub refuses or, as an :class:`~mergerisk.hub_downloads.UnavailableError`, cannot be asked.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint)
    with asking(name, "model", "main has no safetensors, and asked for a conversion "):
        _, main = _contents(api, name, "main")
        stale = []
        for number in _pull_requests(api, name):
            reference = f"refs/pr/{number}"
            commit, files = _contents(api, name, reference)
            if not any(file.endswith(".safetensors") and "/" not in file for file in files):
                continue
            differs = _first_difference(main, files)
            if differs is None:
                return Conversion(reference, commit)
            stale.append(f"those of the hub's conversion bot, on {reference}, were made of another {differs}")
    raise NoConversionError(stale[0] if stale else "the hub's conversion bot has proposed none")


def note(folder: Path, conversion: Conversion) -> None:
    """Note in the cache that a conversion stands for its repository, for :func:`taken`."""
    notes = folder.parents[1] / "refs" / _NOTES
    for former in [path for path in notes.rglob("*") if path.is_file()]:
        former.unlink()
    noted(folder, conversion.reference)
    noted(folder, f"{_NOTES}/{conversion.reference}")


def taken(name: str, *, cache: Path | None = None) -> tuple[Conversion, Path] | None:
    """The conversion that was last taken for a model's ``main``, and its folder, if the cache still has it."""
    repository = cached_repository(name, kind="model", cache=cache)
    conversion = _read_note(repository)
    if conversion is None:
        return None
    folder = repository / "snapshots" / conversion.commit
    return (conversion, folder) if folder.is_dir() else None


def conversion_in(folder: Path) -> Conversion | None:
    """The conversion that a folder of the cache was noted as; None for any other folder."""
    if folder.parent.name != "snapshots":
        return None
    conversion = _read_note(folder.parents[1])
    return conversion if conversion is not None and conversion.commit == folder.name else None


def _read_note(repository: Path) -> Conversion | None:
    notes = repository / "refs" / _NOTES
    for path in sorted(notes.rglob("*")):
        if path.is_file():
            commit = path.read_text(encoding="utf-8").strip()
            if COMMIT.fullmatch(commit):
                return Conversion(path.relative_to(notes).as_posix(), commit)
    return None


def _pull_requests(api: HfApi, name: str) -> list[int]:
    """Numbers of the bot's open pull requests, newest first."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = [
            talk.num
            for talk in api.get_repo_discussions(
                name, author=BOT, discussion_type="pull_request", discussion_status="open"
            )
            # A hub that does not know these filters answers with everything.
            if (talk.author, talk.title, talk.status, talk.is_pull_request) == (BOT, TITLE, "open", True)
        ]
    except HfHubHTTPError as error:
        if error.response.status_code in _NO_DISCUSSIONS:
            return []
        raise
    return sorted(found, reverse=True)


def _contents(api: HfApi, name: str, revision: str) -> tuple[str, dict[str, str]]:
    """A revision's commit, and its files with the hub's digests of them."""
    found = api.model_info(name, revision=revision, files_metadata=True, timeout=PATIENCE)
    assert found.sha is not None
    return found.sha, {file.rfilename: str(file.blob_id) for file in found.siblings or []}


def _first_difference(main: Mapping[str, str], conversion: Mapping[str, str]) -> str | None:
    """A file of pickled weights, or one that says what is made of them, in which two revisions differ."""
    ours, theirs = _decisive(main), _decisive(conversion)
    return min((file for file in ours.keys() | theirs.keys() if ours.get(file) != theirs.get(file)), default=None)


def _decisive(files: Mapping[str, str]) -> dict[str, str]:
    endings = PICKLES | {".json", ".txt"}
    return {
        file: digest
        for file, digest in files.items()
        if "/" not in file and Path(file).suffix in endings and file != INDEX
    }
