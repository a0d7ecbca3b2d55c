"""A store whose artefacts are kept in a bucket as well, where machines share them.

Layout in the bucket::

    objects/ab/abcd…/manifest.json     written last, and only where there is none: then the artefact exists
    objects/ab/abcd…/SHA256            its files, named by their content, so that no writer changes another's
    damaged/abcd…-RANDOM/…             what was not what had been written, moved aside

The folder is a store as any other: work is locked in it, and read from it. What it lacks is fetched and held
against its checksums; what is made is published in it, then sent. Machines do not lock one another: where two make
the same artefact, the work is done twice, and the manifest that is there first counts, on both.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.disk import flush, make_folder, write_flushed
from mergerisk.errors import UserError, described
from mergerisk.store._checksums import compare
from mergerisk.store._manifests import MANIFEST, unsealed
from mergerisk.store.artefacts import DamagedArtefactError, LostArtefactError, MissingArtefactError
from mergerisk.store.store import ARRAYS, ROWS, Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mergerisk.store._checksums import Pieces
    from mergerisk.store.artefacts import Artefact, Spooled

BUCKET = "bucket"
"""The file of a store's folder that names the bucket."""

_FRESH = 5.0
"""Seconds for which a listing of the bucket is believed, by which a run sees what is there before it begins. Who
reads or publishes an artefact asks for that one."""


class MirroredStore(Store):
    """See the module.

    Args:
        root: the folder on this machine.
        url: of the bucket and what its keys begin with, as fsspec writes it: ``s3://bucket/prefix``.

    Raises:
        UserError: the folder cannot be written to, or the bucket cannot be reached.
    """

    def __init__(self, root: Path, url: str) -> None:
        super().__init__(root)
        self.url = self.bucket = url.rstrip("/")
        self._files, self._top = _opened(self.url)
        self._listed: set[str] = set()
        self._listed_at = -_FRESH
        self._sizes: dict[str, int] = {}
        """Of tensors, as :meth:`tensor_bytes` found them."""
        with self._asking():  # now, not after hours of work, is it seen that it can be reached
            self._files.find(f"{self._top}/{BUCKET}")

    def has(self, key: str) -> bool:
        return super().has(key) or self._in_bucket(key)

    def is_published(self, key: str) -> bool:
        """Whether the bucket has it; a copy that is here and not there, since whoever made it was killed or what
        was there turned out damaged, is sent first."""
        with self._asking():
            there = bool(self._files.exists(f"{self._place(key)}/{MANIFEST}"))
        if not there and super().has(key):
            with suppress(LostArtefactError):  # and then it is here no longer either
                super().verify(key)
                self._send(key)
                there = True
        (self._listed.add if there else self._listed.discard)(key)
        return there

    def share(self, keys: Iterable[str]) -> None:
        for key in keys:
            if super().has(key) and not self._in_bucket(key):
                self.is_published(key)

    def get(self, key: str) -> Artefact:
        self._fetch(key)
        return super().get(key)

    def verify(self, key: str) -> None:
        self._fetch(key)
        super().verify(key)

    def tensors(self, key: str) -> Path:
        self._fetch(key)
        return super().tensors(key)

    def tensor_bytes(self, key: str) -> int:
        """Fetches none of them, and asks the bucket once: whoever hands out stages wants to know of every input of
        each."""
        if key not in self._sizes:
            with suppress(LostArtefactError):
                self._sizes[key] = int(self.manifest(key)["files"].get(ARRAYS, {}).get("bytes", 0))
        return self._sizes.get(key, 0)

    def manifest(self, key: str) -> dict[str, Any]:
        return super().manifest(key) if super().has(key) else self._manifest_there(key)

    def set_aside(self, key: str) -> None:
        """Here; what is in the bucket is looked at anew when it is fetched."""
        super().set_aside(key)

    def remove(self, key: str) -> None:
        """Here and in the bucket, where its manifest goes first: what is left if the rest cannot be removed is no
        artefact."""
        super().remove(key)
        self._listed.discard(key)
        with suppress(UserError), self._asking():
            for path in self._all_of(key):
                with suppress(FileNotFoundError):  # another machine was quicker
                    self._files.rm_file(path)

    def _publish(self, key: str, files: Mapping[str, Pieces], spooled: Mapping[str, Spooled]) -> None:
        super()._publish(key, files, spooled)
        self._send(key)

    def _send(self, key: str) -> None:
        """Send what is here; if another machine was quicker, what it published counts."""
        manifest, place = super().manifest(key), self._place(key)
        with self._asking():
            for name, about in _contents(manifest).items():
                there = f"{place}/{about['sha256']}"
                if not self._files.exists(there):
                    self._files.put_file(str(self.folder(key) / name), there)
            try:
                written = (self.folder(key) / MANIFEST).read_bytes()
                self._files.pipe_file(f"{place}/{MANIFEST}", written, mode="create")
            except FileExistsError:
                lost = self._files.cat_file(f"{place}/{MANIFEST}") != written
            else:
                lost = False
        self._listed.add(key)
        if lost:
            shutil.rmtree(self.folder(key))

    def _place(self, key: str) -> str:
        return f"{self._top}/objects/{key[:2]}/{key}"

    def _in_bucket(self, key: str) -> bool:
        """Whether the bucket has the artefact, by a listing that is a few seconds old at most."""
        if key not in self._listed and time.monotonic() - self._listed_at >= _FRESH:
            with self._asking():
                found = self._files.find(f"{self._top}/objects")
            self._listed = {path.rsplit("/", 2)[1] for path in found if path.endswith(f"/{MANIFEST}")}
            self._listed_at = time.monotonic()
        return key in self._listed

    def _manifest_there(self, key: str) -> dict[str, Any]:
        """The bucket's manifest.

        Raises:
            DamagedArtefactError: it is not what was written; the artefact has been moved aside there.
            MissingArtefactError: there is none.
        """
        try:
            return unsealed(self._bytes(key), key)
        except ValueError as error:
            self._set_aside_there(key)
            raise DamagedArtefactError(key) from error

    def _bytes(self, key: str) -> bytes:
        with self._asking():
            try:
                content: bytes = self._files.cat_file(f"{self._place(key)}/{MANIFEST}")
            except FileNotFoundError as error:
                self._listed.discard(key)
                raise MissingArtefactError(key) from error
        return content

    def _fetch(self, key: str) -> None:
        """Copy an artefact from the bucket, checked, unless it is here.

        Raises:
            DamagedArtefactError: it is not what was written; it has been moved aside there.
            MissingArtefactError: there is none.
        """
        if super().has(key):
            return
        manifest, content = self._manifest_there(key), self._bytes(key)
        temporary = Path(tempfile.mkdtemp(prefix=key[:8], dir=self.root / "temporary"))
        try:
            for name, about in _contents(manifest).items():
                with self._asking():
                    try:
                        self._files.get_file(f"{self._place(key)}/{about['sha256']}", str(temporary / name))
                        compare(temporary / name, about)
                    except (FileNotFoundError, ValueError) as error:
                        self._set_aside_there(key)
                        raise DamagedArtefactError(key) from error
                flush(temporary / name)
            write_flushed(temporary / MANIFEST, content)
            flush(temporary)
            make_folder(self.folder(key).parent)
            if not super().has(key):  # another process may have fetched it meanwhile
                temporary.rename(self.folder(key))
                flush(self.folder(key).parent)
        except OSError as error:
            if not super().has(key):
                raise UserError(f"{self.root}: cannot be written to: {error.strerror}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _set_aside_there(self, key: str) -> None:
        """Move an artefact of the bucket to ``damaged``, its manifest first: then it exists no longer."""
        self._listed.discard(key)
        aside = f"{self._top}/damaged/{key}-{secrets.token_hex(4)}"
        with self._asking():
            for path in self._all_of(key):
                with suppress(FileNotFoundError):  # another machine was quicker
                    self._files.copy(path, f"{aside}/{path.rsplit('/', 1)[1]}")
                    self._files.rm_file(path)

    def _all_of(self, key: str) -> list[str]:
        """What the bucket has of an artefact, its manifest first."""
        return sorted(self._files.find(self._place(key)), key=lambda path: not path.endswith(MANIFEST))

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Whatever a bucket's library raises, in one line."""
        try:
            yield
        except (UserError, DamagedArtefactError, MissingArtefactError):
            raise
        except Exception as error:  # every library has errors of its own
            raise UserError(
                f"{self.url}: the bucket does not answer as it should: {described(error)}; run again, finished "
                "stages are kept"
            ) from error


def _contents(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """File → its size and checksum."""
    rows = {f"{name}{ROWS}": about for name, about in manifest.get("rows", {}).items()}
    return {**manifest["files"], **rows}


def _opened(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it."""
    import fsspec

    try:
        files, top = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        raise UserError(
            f"{url}: needs a package that is not installed ({error}); pip install 'mergerisk[s3]'"
        ) from error
    except ValueError as error:
        raise UserError(f"{url}: no address of a bucket: {error}") from error
    return files, str(top).rstrip("/")


def bucket_named(store: Path | str | None) -> str | None:
    """The URL that a ``--store`` names, if it names one; ``Path`` makes one slash of two."""
    scheme, separator, rest = str(store or "").partition(":/")
    if not separator or not scheme.isalnum() or len(scheme) < 2:
        return None
    return f"{scheme}://{rest.lstrip('/')}"


def copies_of(url: str) -> Path:
    """Where a machine that shares no folder with the run's keeps copies of a bucket: in the user's cache."""
    said = Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = said if said.is_absolute() else Path("~/.cache").expanduser()
    return cache / "mergerisk" / "buckets" / hashlib.sha256(url.encode()).hexdigest()[:16]


def open_store(root: Path, url: str | None = None) -> Store:
    """The store in a folder; one that is a bucket's if ``url`` says so, or its folder does from earlier.

    Raises:
        UserError: see :class:`Store` and :class:`MirroredStore`; or the folder belongs to another bucket.
    """
    said = root / BUCKET
    known = said.read_text(encoding="utf-8").strip() if said.is_file() else None
    if url is not None and known is not None and url != known:
        raise UserError(f"{root}: holds copies of {known}; choose another --out for {url}")
    if (url or known) is None:
        return Store(root)
    store = MirroredStore(root, url or str(known))
    if known is None:
        write_flushed(said, store.url)
    return store
