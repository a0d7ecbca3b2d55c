"""Randomness that belongs to (seed, stream, image), never to a batch.

Results then do not depend on batch size, worker count, device or order.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from mergerisk.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator seeded with :func:`~mergerisk.seeds.derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


@contextmanager
def drawing(seed: int, *names: str | int, device: torch.device) -> Iterator[None]:
    """PyTorch's global generators of the CPU and of ``device`` are seeded for what runs within, and left as they
    were: for code of others, such as a classifier with noise in it, that draws from nothing else."""
    accelerated = device.type != "cpu"
    kind = device.type if accelerated else "cuda"
    with torch.random.fork_rng(devices=[device] if accelerated else [], device_type=kind):
        torch.default_generator.manual_seed(derive_seed(seed, *names))
        if accelerated:
            own = getattr(torch, kind)
            # Apple's GPU is the only one of its kind, and nothing chooses it.
            with own.device(device) if hasattr(own, "device") else nullcontext():
                own.manual_seed(derive_seed(seed, *names))
        yield


def generator_states(device: torch.device) -> list[torch.Tensor]:
    """Where PyTorch's global generators of the CPU and of ``device`` stand, to see whether something drew."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return states


class ImageRandom:
    """One random stream per image. Numbers are drawn on the CPU, so that every device sees the same.

    Args:
        seed: the study's or caller's seed.
        stream: what the numbers are for.
        indices: the images' identities (their positions in the task, say), not their places in a batch.
    """

    def __init__(self, seed: int, stream: str, indices: Sequence[int]) -> None:
        self._generators = [generator(seed, stream, index) for index in indices]

    def each(self) -> list[ImageRandom]:
        """Every image's stream by itself; numbers that one gives are not given again."""
        streams = []
        for own in self._generators:
            stream = ImageRandom(0, "", [])
            stream._generators = [own]
            streams.append(stream)
        return streams

    def uniform(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The next numbers in [0, 1) of every image: N × ``shape``, with ``like``'s dtype and device."""
        # Drawn in float64, so that decisions made with them are the same in every dtype.
        draws = [torch.rand(shape, generator=g, dtype=torch.float64) for g in self._generators]
        return torch.stack(draws).to(like)

    def noise(self, *, like: torch.Tensor) -> torch.Tensor:
        """The next numbers in [0, 1), one for every pixel of ``like`` (N × …), in its dtype, on its device."""
        return self._filled(torch.Tensor.uniform_, like)

    def normal(self, *, like: torch.Tensor) -> torch.Tensor:
        """The next standard normal numbers, one for every pixel of ``like``; see :meth:`noise`."""
        return self._filled(torch.Tensor.normal_, like)

    def _filled(self, fill: Callable[..., object], like: torch.Tensor) -> torch.Tensor:
        # In float32: half the time, and a pixel needs no more.
        drawn = torch.empty(len(self._generators), *like.shape[1:])
        for of_one, own in zip(drawn, self._generators, strict=True):
            fill(of_one, generator=own)
        return drawn.to(like)
