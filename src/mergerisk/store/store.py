"""A folder of artefacts that survives being killed at any moment.

Layout::

    objects/ab/abcd…/manifest.json   what it is the result of, checksums, provenance
    objects/ab/abcd…/*.safetensors   the payload (or *.parquet, compressed; *.rows, read by rows)
    locks/                           who is making what
    temporary/                       unfinished artefacts
    damaged/                         artefacts that were not what was written, moved aside

An artefact is written to ``temporary``, flushed to disk, and renamed to its place: it exists whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from mergerisk.disk import flush, flushed, is_full, locked, make_folder
from mergerisk.errors import UserError
from mergerisk.row_files import RowFile, write_rows
from mergerisk.store._checksums import compare, digest, regular_file
from mergerisk.store._manifests import FORMAT, MANIFEST, sealed, unsealed
from mergerisk.store._serialising import from_parquet, safetensors_pieces, to_parquet
from mergerisk.store.artefacts import Artefact, DamagedArtefactError, MissingArtefactError, Spooled

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from mergerisk.store._checksums import Pieces
    from mergerisk.store.artefacts import Arrays
    from mergerisk.store.keys import Json

_LARGEST_MANIFEST = 2**26
"""Bytes; what is cut off there has no sound checksum."""

_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
ROWS = ".rows"
ARRAYS = "arrays.safetensors"


class Store:
    """Artefacts by key, in a folder.

    Args:
        root: the folder; made if it does not exist.

    Raises:
        UserError: the folder cannot be made or written to.
    """

    bucket: str | None = None
    """The URL of the bucket whose copies the folder holds, if it does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: set[str] = set()
        try:
            for folder in ("objects", "locks", "temporary", "damaged"):
                make_folder(root / folder)
            with tempfile.TemporaryFile(dir=root / "temporary"):
                pass
        except OSError as error:
            raise UserError(
                f"{root}: the store cannot be written to: {error.strerror}; choose another folder"
            ) from error

    def folder(self, key: str) -> Path:
        """Where an artefact is kept, whether or not it exists."""
        return self.root / "objects" / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether the artefact exists. Its checksums are verified when it is read.

        Raises:
            UserError: the system does not let it be looked for.
        """
        try:
            return (self.folder(key) / MANIFEST).is_file()
        except OSError as error:
            raise self._unreadable(key, error) from error

    def is_published(self, key: str) -> bool:
        """Whether all who share the store can read the artefact, as of now."""
        return self.has(key)

    def share(self, keys: Iterable[str]) -> None:
        """See that what is here of these artefacts can be read by all who share the store."""

    def _unreadable(self, key: str, error: OSError) -> UserError:
        return UserError(
            f"{self.folder(key)}: cannot be read: {error.strerror}; run again, finished stages are kept"
        )

    def put(
        self,
        key: str,
        arrays: Mapping[str, NDArray[Any]],
        *,
        recipe: Mapping[str, Json],
        info: Mapping[str, Json] | None = None,
        provenance: Mapping[str, Json] | None = None,
        compressed: Collection[str] = (),
        spooled: Mapping[str, Spooled] | None = None,
    ) -> None:
        """Keep an artefact. Nothing happens if it exists: equal keys mean equal results.

        Args:
            key: :func:`mergerisk.store.content_key` of ``recipe``.
            arrays: the payload.
            recipe: what it is the result of.
            info: small facts that belong to it.
            provenance: how it came about; not part of the key.
            compressed: names of arrays with few distinct values, kept as Parquet (zstd).
            spooled: further arrays of the payload, from :meth:`spool`; moved, not copied.

        Raises:
            UserError: the disk is full or the folder cannot be written to.
        """
        spooled = spooled or {}
        try:
            if not self.is_published(key):
                self._put(key, arrays, recipe, info, provenance, compressed, spooled)
        finally:
            for waiting in spooled.values():
                shutil.rmtree(waiting.path.parent, ignore_errors=True)

    def _put(
        self,
        key: str,
        arrays: Mapping[str, NDArray[Any]],
        recipe: Mapping[str, Json],
        info: Mapping[str, Json] | None,
        provenance: Mapping[str, Json] | None,
        compressed: Collection[str],
        spooled: Mapping[str, Spooled],
    ) -> None:
        plain = {name: array for name, array in arrays.items() if name not in compressed}
        files: dict[str, Pieces] = {ARRAYS: safetensors_pieces(plain)} if plain else {}
        files |= {f"{name}.parquet": [to_parquet(arrays[name])] for name in compressed}
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "key": key,
            "recipe": recipe,
            "info": info or {},
            "provenance": provenance or {},
            "shapes": {name: list(arrays[name].shape) for name in compressed},
            "files": {
                name: {"bytes": sum(map(len, pieces)), "sha256": digest(pieces)} for name, pieces in files.items()
            },
        }
        if spooled:
            manifest["rows"] = {name: asdict(waiting.written) for name, waiting in spooled.items()}
        files[MANIFEST] = [sealed(manifest)]
        try:
            self._publish(key, files, spooled)
        except OSError as error:
            raise UserError(_write_failure(self.root, error)) from error

    def spool(self, key: str, portions: Iterable[NDArray[Any]]) -> Spooled:
        """Write an array that is never whole in memory, to be handed to :meth:`put` under the same key.

        What a killed predecessor left of it is removed; so hold :meth:`making` meanwhile.

        Args:
            key: the artefact's.
            portions: the array, cut along its first dimension; at least one. An ``OSError`` of theirs would be
                taken for the disk's.

        Raises:
            UserError: the disk is full or the folder cannot be written to.
        """
        waiting = self.root / "temporary"
        folder = None
        try:
            for left in waiting.glob(f"{key}-*"):
                shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=waiting))
            with flushed(folder / "rows") as file:
                written = write_rows(file, portions)
        except BaseException as error:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise UserError(_write_failure(self.root, error)) from error
            raise
        return Spooled(folder / "rows", written)

    def _publish(self, key: str, files: Mapping[str, Pieces], spooled: Mapping[str, Spooled]) -> None:
        target = self.folder(key)
        # First, since it fails where the store is away, and makes no folders there.
        temporary = Path(tempfile.mkdtemp(prefix=key[:8], dir=self.root / "temporary"))
        try:
            make_folder(target.parent)
            for name, pieces in files.items():
                with flushed(temporary / name) as file:
                    file.writelines(pieces)
            for name, waiting in spooled.items():
                waiting.path.rename(temporary / f"{name}{ROWS}")
            flush(temporary)
            try:
                temporary.rename(target)
            except OSError as error:
                if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                    raise
                if self._is_sound(key):
                    return  # another process published the same result in the meantime
                temporary.rename(target)
            flush(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def get(self, key: str) -> Artefact:
        """The artefact, its checksums verified; those of arrays read by rows once per store object.

        Raises:
            DamagedArtefactError: it is not what was written; it has been moved aside.
            MissingArtefactError: there is none.
            UserError: the system does not let it be read.
        """
        folder = self.folder(key)
        manifest = self.manifest(key)
        with self._reading(key):
            arrays: Arrays = {}
            for name, expected in manifest["files"].items():
                content = regular_file(folder / name, expected).read_bytes()
                if hashlib.sha256(content).hexdigest() != expected["sha256"]:
                    raise ValueError(name)
                if name.endswith(".parquet"):
                    array = name.removesuffix(".parquet")
                    arrays[array] = from_parquet(content).reshape(manifest["shapes"][array])
                else:
                    arrays |= load_safetensors(content)
            rows = {name: self._open(key, name, about) for name, about in manifest.get("rows", {}).items()}
            return Artefact(arrays, manifest["info"], manifest["provenance"], rows)

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """Whatever reading an artefact meets, as one of the store's errors.

        Raises:
            DamagedArtefactError: it is not what was written; it has been moved aside.
            UserError: the system does not let it be read, which is no damage.
        """
        try:
            yield
        except (*_NOT_THERE, ValueError, KeyError, SafetensorError, pa.ArrowException) as error:
            self.set_aside(key)
            raise DamagedArtefactError(key) from error
        except OSError as error:
            if error.errno in {
                errno.EIO,
                errno.ELOOP,
            }:  # the disk cannot read it any more, or a link leads nowhere
                self.set_aside(key)
                raise DamagedArtefactError(key) from error
            raise self._unreadable(key, error) from error

    def _open(self, key: str, name: str, about: Mapping[str, Any]) -> RowFile:
        path = self.folder(key) / f"{name}{ROWS}"
        if f"{key}/{name}" not in self._verified:
            compare(path, about)
            self._verified.add(f"{key}/{name}")

        def ended() -> DamagedArtefactError:
            # Unless it was made again since this file was opened.
            if not path.is_file() or path.stat().st_size != about["bytes"]:
                self.set_aside(key)
            return DamagedArtefactError(key)

        return RowFile.open(path, tuple(about["shape"]), about["dtype"], ended)

    def tensors(self, key: str) -> Path:
        """The safetensors file of an artefact's uncompressed arrays, for those who read it piece by piece: after
        :meth:`verify`, since nothing of it is checked here."""
        return self.folder(key) / ARRAYS

    def tensor_bytes(self, key: str) -> int:
        """The size of :meth:`tensors`; 0 where there are none, or they cannot be looked at."""
        with suppress(OSError):
            return (self.folder(key) / ARRAYS).stat().st_size
        return 0

    def verify(self, key: str) -> None:
        """Compare an artefact with its checksums, in one pass that holds none of it; once, as for rows.

        Raises:
            DamagedArtefactError: it is not what was written; it has been moved aside.
            MissingArtefactError: there is none.
            UserError: the system does not let it be read.
        """
        manifest = self.manifest(key)
        if key in self._verified:
            return
        with self._reading(key):
            for name, expected in manifest["files"].items():
                compare(self.folder(key) / name, expected)
            for name, about in manifest.get("rows", {}).items():
                compare(self.folder(key) / f"{name}{ROWS}", about)
        self._verified.add(key)

    def manifest(self, key: str) -> dict[str, Any]:
        """The manifest alone, whose own checksum is verified; nothing of the payload is.

        Raises:
            DamagedArtefactError: it is not what was written; the artefact has been moved aside.
            MissingArtefactError: there is none.
            UserError: the system does not let it be read.
        """
        if not self.has(key):
            raise MissingArtefactError(key)
        with self._reading(key), (self.folder(key) / MANIFEST).open("rb") as file:
            return unsealed(file.read(_LARGEST_MANIFEST), key)

    def set_aside(self, key: str) -> None:
        """Move an artefact to ``damaged``, so that it is made again; nothing happens if there is none.

        Raises:
            UserError: the folder cannot be written to.
        """
        self._verified = {known for known in self._verified if known.partition("/")[0] != key}
        try:
            place = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=self.root / "damaged"))
            try:
                self.folder(key).rename(place / "artefact")
            except FileNotFoundError:  # another process was quicker
                place.rmdir()
        except OSError as error:
            raise UserError(_write_failure(self.root, error)) from error

    def remove(self, key: str) -> None:
        """Remove an artefact that nothing needs any more; nothing happens if there is none, or its files cannot be
        removed: :func:`mergerisk.store.housekeeping.collect` finds what is left."""
        self._verified = {known for known in self._verified if known.partition("/")[0] != key}
        with suppress(OSError):
            place = Path(tempfile.mkdtemp(prefix=key[:8], dir=self.root / "temporary"))
            try:
                self.folder(key).rename(place / "artefact")  # whole or not at all, for who reads it now
            finally:
                shutil.rmtree(place, ignore_errors=True)

    def _is_sound(self, key: str) -> bool:
        """Whether there is an artefact with a sound manifest; what stands in its place is moved aside if not."""
        try:
            self.manifest(key)
        except MissingArtefactError:
            self.set_aside(key)  # a folder without a manifest
            return False
        except DamagedArtefactError:
            return False
        return True

    @contextmanager
    def making(self, key: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the right to make an artefact; freed by the system if the process dies.

        Args:
            key: the artefact.
            wait: wait for another holder, instead of giving up at once.

        Yields:
            Whether the right was obtained (always true when waiting).

        Raises:
            UserError: the lock's file cannot be made or locked.
        """
        file = self.root / "locks" / f"{key}.lock"
        with ExitStack() as held:
            try:
                ours = held.enter_context(locked(file, wait=wait))
            except OSError as error:
                what = f"{file}: cannot be locked: {error.strerror}"
                raise UserError(f"{what}; move it away, or choose another store") from error
            yield ours


def _write_failure(place: Path, error: OSError) -> str:
    if is_full(error):
        return f"{place}: the disk is full; free space and run again: everything finished is kept"
    return f"{place}: cannot be written to: {error.strerror}"
