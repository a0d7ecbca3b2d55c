"""Portions that fit into memory, and what a forward pass takes of it."""

from __future__ import annotations

import ctypes
import gc
import weakref
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from mergerisk import attacks
from mergerisk.errors import UserError
from mergerisk.memory import fitting, free_bytes, graph_bytes, in_portions, live_bytes, return_freed
from mergerisk.transfer import predict
from tests.naive.models import smooth_problem

OUT_OF_MEMORY = "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: can't allocate memory: you tried"


class Hungry(nn.Module):
    """A classifier that has memory for a few images at a time."""

    def __init__(self, classifier: nn.Module, most: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.most = most
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise RuntimeError(OUT_OF_MEMORY)
        answer: torch.Tensor = self.classifier(images)
        return answer


def test_portions_cover_everything_once_and_are_halved() -> None:
    tried = []

    def work(start: int, stop: int) -> range:
        tried.append(stop - start)
        if stop - start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return range(start, stop)

    assert [place for part in in_portions(work, 13, 10) for place in part] == list(range(13))
    assert tried == [10, 5, 2, 2, 2, 2, 2, 2, 1]


def test_other_errors_pass_and_a_single_image_is_the_end() -> None:
    def fail(message: str) -> None:
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="shapes"):
        in_portions(lambda *_: fail("shapes do not fit"), 4, 4)
    with pytest.raises(UserError, match="single image"):
        in_portions(lambda *_: fail(OUT_OF_MEMORY), 4, 4)


def test_crafting_and_predicting_go_on_with_smaller_batches() -> None:
    classifier, images, labels = smooth_problem(7, 3, 6, 6)
    attack = attacks.create("di_fgsm", steps=3)
    expected = attack(classifier, images, labels, epsilon=0.1)
    hungry = Hungry(classifier, 2)
    assert torch.equal(attack(hungry, images, labels, epsilon=0.1), expected)
    assert set(hungry.sizes) == {1, 7, 3}
    assert torch.equal(predict(hungry, expected), classifier(expected).argmax(dim=1))


def test_graph_bytes_counts_what_backward_needs_but_no_parameters() -> None:
    weight = nn.Parameter(torch.randn(50, 50))
    images = torch.randn(4, 50, requires_grad=True)
    # tanh keeps its output; the two products keep their inputs, of which the first is a leaf.
    assert graph_bytes(lambda: (images @ weight).tanh() @ weight) == 4 * 50 * 4


def test_what_was_measured_is_let_go() -> None:
    """Of tanh, autograd keeps its own output."""
    layer, images = nn.Sequential(nn.Linear(50, 50), nn.Tanh()), torch.randn(4, 50, requires_grad=True)
    gone = weakref.ref(layer[0].weight)
    graph_bytes(partial(layer, images))
    del layer
    gc.collect()
    assert gone() is None


def test_what_fits_is_at_least_one_image_and_less_than_all_memory() -> None:
    cpu = torch.device("cpu")
    assert fitting(free_bytes(cpu) // 4, cpu) == 1
    assert 1 < fitting(2**20, cpu) < 2**10  # a batch takes less than 1 GiB, however much is free
    with pytest.raises(UserError, match=r"^a single image needs about 1\.6e\+09 GiB of memory on cpu, and "):
        fitting(2**60, cpu)


def test_live_bytes_are_those_held_at_once_and_no_weights() -> None:
    weight, image = nn.Parameter(torch.randn(50, 50)), torch.randn(4, 50)

    def work() -> torch.Tensor:
        for _ in range(3):
            image @ weight  # let go at once
        first = image @ weight.t()
        return first.tanh()

    with torch.no_grad():
        assert live_bytes(work) == 2 * 4 * 50 * 4
    assert weakref.getweakrefcount(weight.untyped_storage()) == 0  # nothing is watched any more


class Broad(nn.Module):
    """A classifier that makes a large tensor on the way."""

    def __init__(self, classifier: nn.Module, size: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.size = size
        self.largest = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.largest = max(self.largest, len(images))
        answer: torch.Tensor = self.classifier(images)
        return answer + 0 * torch.empty(len(images), self.size // 4).zero_()[:, :1]


def test_predictions_are_made_in_batches_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, images, _ = smooth_problem(7, 3, 6, 6)
    monkeypatch.setattr("mergerisk.memory.free_bytes", lambda _: 2**26)
    broad = Broad(classifier, 2**22)
    assert torch.equal(predict(broad, images), predict(classifier, images))
    assert broad.largest == 2  # of a fifth of 64 MiB, at 4 MiB each and half of it again


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library")
def test_freed_memory_goes_back_to_the_system() -> None:
    # Blocks too small to be mapped each for itself; every hundredth stays, so that the heap cannot shrink.
    blocks = [torch.ones(2**12) for _ in range(4000)]
    full = resident()
    kept = blocks[::100]
    del blocks
    return_freed()
    assert full - resident() > 0.7 * 4000 * 2**14
    assert all(bool((block == 1).all()) for block in kept)
