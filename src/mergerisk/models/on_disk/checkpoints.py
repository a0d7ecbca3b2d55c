"""Checkpoints on disk: what they hold is known from their headers, tensors are read when they are asked for."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mergerisk.errors import UserError, did_you_mean, shown_text
from mergerisk.memory import new_tensor
from mergerisk.models.on_disk.filenames import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    INDEX,
    PICKLES,
    WEIGHTS,
    convert_command,
    read_json,
)
from mergerisk.models.on_disk.quantised import check_not_packed, check_not_quantised
from mergerisk.safetensors_files import read_header, unsound

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What safetensors calls the dtypes that are read here."""

_MAX_ENTRIES = 2**60
"""Of a tensor, counting dimensions of size 0 as 1; PyTorch counts in 64 bits."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor without its values.

    Attributes:
        dtype: its dtype.
        shape: its shape.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def tensor_specs(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, TensorSpec]:
    """Dtype and shape of every tensor, without reading values where they are on disk."""
    known: Mapping[str, TensorSpec] | None = getattr(tensors, "specs", None)
    if known is not None:
        return known
    return {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def loading_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Memory for all of a checkpoint's tensors in float32, and for as many as are stored otherwise beside them."""
    specs = tensor_specs(tensors).values()
    widened = sum(4 * math.prod(spec.shape) for spec in specs)
    return widened + sum(spec.nbytes for spec in specs if spec.dtype != torch.float32)


def pieces_of(tensors: Mapping[str, torch.Tensor], name: str, size: int) -> Iterator[torch.Tensor]:
    """A tensor's entries, flattened, in portions of ``size``; at least one, if it is empty.

    A tensor on disk is then never in memory as a whole.
    """
    by_portions = getattr(tensors, "pieces", None)
    if by_portions is not None:
        yield from by_portions(name, size)
    else:
        yield from tensors[name].detach().reshape(-1).split(size)


class StoredTensors(Mapping[str, torch.Tensor]):
    """Tensors by name that are not kept in memory: every access makes a new one."""

    @property
    @abstractmethod
    def specs(self) -> Mapping[str, TensorSpec]:
        """Dtype and shape of every tensor, known without reading values."""

    @abstractmethod
    def file(self, name: str) -> Path:
        """The file that decides a tensor's values, for messages."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Further names of tensors that are kept once → the name they are kept under."""
        return {}

    def pieces(self, name: str, size: int) -> Iterator[torch.Tensor]:
        """A tensor's entries in portions; see :func:`pieces_of`."""
        yield from self[name].reshape(-1).split(size)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def __contains__(self, name: object) -> bool:
        return name in self.specs


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a file a tensor's values are."""

    file: Path
    start: int
    spec: TensorSpec


class Checkpoint(StoredTensors):
    """The tensors of a safetensors checkpoint.

    A tensor is read from its file into memory of its own, never mapped: resident memory is what the caller keeps,
    however much was read before. Tied tensors that ``safetensors.torch.save_model`` kept once are found under all
    of their names, the further ones last.

    Args:
        path: a ``.safetensors`` file, or a folder with ``model.safetensors`` or its index and shards.
        prefix: of the names of the tensors that are meant, where there are several copies of a model; it is no
            part of the names here.

    Raises:
        UserError: no such checkpoint; pickles, whose loading could run code; a file that is cut short, or whose
            header does not describe it; an index that names a missing shard or a path elsewhere; quantised
            weights; no tensor with the prefix.
    """

    def __init__(self, path: str | Path, prefix: str = "") -> None:
        self.path = Path(path)
        if self.path.is_dir():
            self._places = _read_folder(self.path)
        elif self.path.suffix in PICKLES:
            raise UserError(f"{self.path}: {_why_no_pickles(self.path)}")
        elif self.path.is_file():
            self._places = _read_whole(self.path)
        else:
            raise UserError(f"{self.path}: no such file or folder")
        if prefix:
            self._places = _under(prefix, self._places, self.path)
        for name, place in self._places.items():
            check_not_quantised(name, place.spec.dtype, place.spec.shape, place.file)
        self._specs = {name: place.spec for name, place in self._places.items()}
        firsts: dict[_Place, str] = {}
        for name, place in self._places.items():
            firsts.setdefault(place, name)
        self._aliases = {
            name: firsts[place]
            for name, place in self._places.items()
            if place.spec.nbytes and firsts[place] != name
        }

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        return self._specs

    @property
    def files(self) -> tuple[Path, ...]:
        """The files with the tensors."""
        return tuple(dict.fromkeys(place.file for place in self._places.values()))

    def file(self, name: str) -> Path:
        return self._places[name].file

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._aliases

    def __getitem__(self, name: str) -> torch.Tensor:
        place = self._places[name]
        (values,) = _read(place, name, math.prod(place.spec.shape))
        return values.view(place.spec.shape)

    def pieces(self, name: str, size: int) -> Iterator[torch.Tensor]:
        return _read(self._places[name], name, size)


def _under(prefix: str, places: Mapping[str, _Place], path: Path) -> dict[str, _Place]:
    """The tensors whose names begin so, without it."""
    found = {name.removeprefix(prefix): place for name, place in places.items() if name.startswith(prefix)}
    if not found:
        begin = sorted({f"{name.partition('.')[0]}." for name in places})
        raise UserError(f"{path}: no tensor's name begins with {prefix!r}{did_you_mean(prefix, begin)}")
    return found


def _read(place: _Place, name: str, size: int) -> Iterator[torch.Tensor]:
    """A tensor's entries from its file, in portions of ``size``; one that is empty, if there are none.

    Raises:
        UserError: the file cannot be read, or has become shorter.
    """
    count = math.prod(place.spec.shape)
    try:
        # Unbuffered: straight from the system's page cache into the tensor.
        with place.file.open("rb", buffering=0) as file:
            file.seek(place.start)
            for start in range(0, max(count, 1), max(size, 1)):
                values = new_tensor((min(size, count - start),), place.spec.dtype)
                raw = values.view(torch.uint8).numpy().data
                read = 0
                while read < len(raw):
                    got = file.readinto(raw[read:])
                    if not got:
                        raise UserError(f"{place.file}: ends within tensor {name!r}; it changed while it was read")
                    read += got
                yield values
    except OSError as error:
        raise UserError(f"{place.file}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the names of two checkpoints of one architecture correspond, up to a prefix on one side.

    Attributes:
        ours: prefix that only the names of the one have, with its dot.
        theirs: prefix that only the names of the other have.
    """

    ours: str = ""
    theirs: str = ""

    def __call__(self, name: str) -> str:
        """The other's name of what the one calls ``name``."""
        return self.theirs + name.removeprefix(self.ours)

    def back(self, name: str) -> str | None:
        """The one's name of what the other calls ``name``; None if that is outside the prefix."""
        return self.ours + name.removeprefix(self.theirs) if name.startswith(self.theirs) else None


def align(names: Collection[str], others: Collection[str]) -> Alignment:
    """The prefix under which most of ``names`` are found among ``others``; none if that is as good.

    A model and the same model within a larger one (``ViTModel`` and ``ViTForImageClassification``) differ so.

    Raises:
        UserError: several prefixes do equally well.
    """
    found: Counter[Alignment] = Counter()
    for inner, outer, make in ((set(names), others, _theirs), (set(others), names, _ours)):
        for name in outer:
            found.update(
                make(name[: dot + 1])
                for dot, letter in enumerate(name)
                if letter == "." and name[dot + 1 :] in inner
            )
    same = len(set(names) & set(others))
    best = max(found.values(), default=0)
    if best <= same:
        return Alignment()
    first, *rest = [alignment for alignment, count in found.items() if count == best]
    if rest:
        found_in = "" if first.theirs else "the base "
        prefixes = ", ".join(repr(a.theirs or a.ours) for a in (first, *rest))
        raise UserError(
            f"{found_in}holds several copies of the weights ({prefixes}); choose one, and write it behind the "
            f"path{' of the base' if found_in else ''}: PATH#{(first.theirs or first.ours).removesuffix('.')}"
        )
    return first


def _theirs(prefix: str) -> Alignment:
    return Alignment(theirs=prefix)


def _ours(prefix: str) -> Alignment:
    return Alignment(ours=prefix)


def is_adapter(path: Path) -> bool:
    """Whether a folder holds a PEFT adapter instead of a model.

    A whole model beside an adapter's files is what the adapter was merged into: it is read, not the adapter.
    """
    return (path / ADAPTER_CONFIG).is_file() and not any((path / name).is_file() for name in (WEIGHTS, INDEX))


def check_merged(path: Path, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """See that a whole model beside an adapter's files is what the adapter was merged into.

    Args:
        path: of the model.
        pairs: the base's tensors and the model's.

    Raises:
        UserError: it is the base itself: which of the two is meant must be said.
    """
    beside = all((path / name).is_file() for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS))
    if beside and all(torch.equal(one, other.to(one.dtype)) for one, other in pairs):
        raise UserError(
            f"{path}: its model is the base itself, and the adapter beside it ({ADAPTER_CONFIG}) is not merged "
            f"into it; give a folder with the adapter alone: {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}"
        )


def _read_folder(folder: Path) -> dict[str, _Place]:
    if (folder / WEIGHTS).is_file():
        return _read_whole(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return _read_shards(folder / INDEX)
    if is_adapter(folder):
        raise UserError(f"{folder}: an adapter, not a model; adapters can be experts, on a base of their own")
    others = sorted(path.name for path in folder.iterdir())
    if any(Path(name).suffix in PICKLES for name in others):
        raise UserError(f"{folder}: no {WEIGHTS}; {_why_no_pickles(folder)}")
    single = [name for name in others if name.endswith(".safetensors")]
    hint = f"; or give a file, such as {folder / single[0]}" if single else ""
    raise UserError(f"{folder}: no {WEIGHTS} and no {INDEX}; save the model with save_pretrained{hint}")


def _why_no_pickles(path: Path) -> str:
    return (
        "pickled weights are not read, since loading them can run code they carry; convert them: "
        f"{convert_command(path)}"
    )


def _read_shards(index: Path) -> dict[str, _Place]:
    owners = read_json(index).get("weight_map")
    if not isinstance(owners, dict) or not owners:
        raise UserError(f"{index}: weight_map is missing or empty")
    places: dict[str, _Place] = {}
    for shard in owners.values():
        if not isinstance(shard, str):
            raise UserError(
                f"{index}: names the shard {shown_text(str(shard))!r}; shards are files of the same folder"
            )
    for shard in dict.fromkeys(owners.values()):
        if shard in {"", ".", ".."} or {"/", "\\", "\0"} & set(shard):
            raise UserError(f"{index}: names the shard {shard!r}; shards are files of the same folder")
        file = index.parent / shard
        if not file.is_file():
            raise UserError(f"{file}: missing, but {index.name} names it; download it again")
        found, _ = _read_header(file)
        for name in found:
            if owners.get(name) != shard:
                raise UserError(f"{file}: holds tensor {name!r}, which {index.name} does not place there")
        places |= found
    if missing := owners.keys() - places.keys():
        name = min(missing)
        raise UserError(f"{index.parent / owners[name]}: lacks tensor {name!r}, which {index.name} places there")
    return places


def _read_whole(file: Path) -> dict[str, _Place]:
    """The tensors of a file that holds all of a model's, by all of their names.

    Of tied tensors ``save_model`` keeps one, and writes the others' names into the file's metadata.
    """
    places, metadata = _read_header(file)
    twins = {name: places[kept] for name, kept in metadata.items() if isinstance(kept, str) and kept in places}
    return places | {name: place for name, place in twins.items() if name not in places}


def _read_header(file: Path) -> tuple[dict[str, _Place], dict[str, Any]]:
    """The tensors of one file in the order of their values, and the file's metadata.

    Raises:
        UserError: it is no sound safetensors file, or holds what is no tensor of a model.
    """
    entries, metadata = read_header(file)
    places = {}
    for name, entry in entries.items():
        if entry.dtype not in DTYPES:
            check_not_packed(name, entry.dtype, file)
            unsound(file, f"tensor {name!r} has dtype {entry.dtype!r}, which the format does not have")
        if math.prod(max(1, side) for side in entry.shape) > _MAX_ENTRIES:
            unsound(file, f"tensor {name!r} has an impossible shape")
        spec = TensorSpec(DTYPES[entry.dtype], entry.shape)
        found = entry.end - entry.start
        if found != spec.nbytes:
            unsound(file, f"tensor {name!r} has {found} bytes, its shape and dtype need {spec.nbytes}")
        places[name] = _Place(file, entry.start, spec)
    return places, metadata
