"""Work in portions that fit into memory."""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mergerisk.errors import UserError
from mergerisk.free_memory import forget_peak, free_memory, peak_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Measure = Callable[[Callable[[], object]], int]
    """Does some work and tells the bytes that it takes, as :func:`live_bytes` does."""

T = TypeVar("T")

_OWN_PAGES = 2**20
"""Bytes of the largest tensor that comes from the C library's heap."""

_SHARE = {"cpu": 0.2, "cuda": 0.7}
"""Of the free memory one caller may take; on a CPU several workers share it."""

_ENOUGH = {"cpu": 2**30}
"""Bytes that one caller takes at most, whatever is free: on a CPU larger batches are no faster, and pieces of
the C library's heap that they leave stay with the process."""


def in_portions(
    work: Callable[[int, int], T], count: int, size: int, *, first: int = 0, within: int | None = None
) -> list[T]:
    """``work(start, stop)`` over ``first`` … ``count`` in portions of ``size``, halved whenever memory runs out.

    Args:
        work: makes one portion.
        count: where the last one stops.
        size: of a portion.
        first: where the first one starts.
        within: no portion reaches over a multiple of it; so those of a part that starts at one are those of the
            whole.

    Raises:
        UserError: ``size`` is less than 1, or memory runs out with a single image.
    """
    if size < 1:
        raise UserError(f"batch_size must be 1 or more, got {size}")
    done: list[T] = []
    start = first
    while start < count:
        stop = min(start + size, count)
        if within is not None:
            stop = min(stop, (start // within + 1) * within)
        try:
            done.append(work(start, stop))
            start = stop
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            if stop - start == 1:
                raise UserError("memory ran out with a single image; use a smaller model or image") from error
            size = (stop - start) // 2
    return done


def halved(size: int, most: int) -> int:
    """``size``, halved until it is at most ``most``; at least 1. What is free changes all the time, and where it
    does so by a little, portions and so the last digits of results stay as they were."""
    while size > max(1, most):
        size = -(-size // 2)
    return max(1, size)


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation failed; on a CPU PyTorch has no class of its own for that."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def graph_bytes(forward: Callable[[], object]) -> int:
    """What autograd keeps of a forward pass until its backward pass, besides leaves such as parameters."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_leaf:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        # Not the tensor itself: an operation's own output would hold the graph that holds it, for ever.
        return tensor.detach()

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    total = sum(kept.values())
    del result  # not before: an address that was freed may be used twice
    return total


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that are made within it and still there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's is not annotated
        self._held: dict[int, tuple[int, object]] = {}
        self._now = 0
        self.most = 0

    def __torch_dispatch__(
        self, function: Any, types: object, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        for storage in _storages((arguments, named)):
            self._hold(storage, 0)  # it was there before, as weights are
        result = function(*arguments, **(named or {}))
        for storage in _storages(result):
            self._hold(storage, storage.nbytes())
        return result

    def _hold(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key not in self._held:
            # Its end is told for as long as the reference is held, and not once this object is gone.
            self._held[key] = (size, weakref.ref(storage, lambda _: self._let_go(key)))
            self._now += size
            self.most = max(self.most, self._now)

    def _let_go(self, key: int) -> None:
        self._now -= self._held.pop(key)[0]

    def forget(self) -> None:
        """Watch nothing any more."""
        self._held.clear()


def _storages(nest: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(nest) if isinstance(leaf, torch.Tensor)]


def live_bytes(work: Callable[[], object]) -> int:
    """What the tensors that ``work`` makes take, when it is most; what was there before is not counted."""
    live = _Live()
    try:
        with live:
            work()
        return live.most
    finally:
        live.forget()


def fitting(bytes_per_image: int, device: torch.device) -> int:
    """How many images at a time one caller should take on ``device``; at least one.

    Raises:
        UserError: a single one takes more than all that is free.
    """
    free = free_bytes(device)
    # What the backward pass adds to the graph, a gradient and its temporaries, is less than half of it again.
    needed = int(1.5 * max(1, bytes_per_image))
    check_room(needed, device, "a single image")
    room = min(_SHARE.get(device.type, 0.5) * free, _ENOUGH.get(device.type, math.inf))
    return max(1, int(room / needed))


def check_room(needed: int, device: torch.device, what: str) -> None:
    """See that memory can be had, before work is begun that cannot be split.

    Args:
        needed: bytes.
        device: whose.
        what: needs it, in words.

    Raises:
        UserError: it cannot.
    """
    free = free_bytes(device)
    if needed > free:
        raise UserError(
            f"{what} needs about {needed / 2**30:.2g} GiB of memory on {device.type}, and {free / 2**30:.2g} GiB "
            "are free; end other programs, use fewer --workers, or a smaller model or image"
        )


def new_tensor(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A contiguous CPU tensor, not initialised.

    A large one has pages of its own, which the system takes back with the tensor. The C library's heap keeps them,
    and what is small and lives longer breaks them up until the next large tensor fits nowhere: a stream of tensors
    then takes the memory of all of them. Huge pages are asked for: faulting in small ones can outlast a merge.
    """
    count = math.prod(shape)
    if count * dtype.itemsize <= _OWN_PAGES:
        return torch.empty(tuple(shape), dtype=dtype)
    pages = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # not on every system
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=dtype, count=count).view(tuple(shape))


def return_freed() -> None:
    """Give memory that was freed back to the system; the C library may keep gigabytes of it for itself. Does
    nothing where the library is not glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on ``device``; where the system does not say, 2 GiB."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def synchronise(device: torch.device) -> None:
    """Wait for what an accelerator was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def watched(device: torch.device) -> Iterator[dict[str, int | None]]:
    """The most memory that is held meanwhile, filled in at the end: ``peak_bytes`` of the machine's, by this whole
    process, libraries and what it keeps included; None where the system does not say. On a GPU also
    ``peak_device_bytes``, of PyTorch's tensors."""
    found: dict[str, int | None] = {}
    begun = forget_peak()
    if device.type == "cuda" and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats(device)
    try:
        yield found
    finally:
        found["peak_bytes"] = peak_memory() if begun else None
        if device.type == "cuda" and torch.cuda.is_initialized():
            found["peak_device_bytes"] = torch.cuda.max_memory_allocated(device)
