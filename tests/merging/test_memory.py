"""How much of the experts is in memory at once, and that nothing else depends on it."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from mergerisk.errors import UserError
from mergerisk.merging import CORRECTIONS, METHODS, Calibration, LazyExperts, create
from mergerisk.merging.adamerging import _portions
from mergerisk.models import Encoder, load_encoder
from mergerisk.models.core.classifier import Head
from mergerisk.models.on_disk.checkpoints import Checkpoint, tensor_specs
from tests.merging.test_data_methods import moved
from tests.tiny import tiny_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mergerisk.merging import Merged

FEW: dict[str, dict[str, Any]] = {
    "adamerging": {"steps": 2, "batches": 1, "batch_size": 4},
    "adamerging_plus_plus": {"steps": 2, "batches": 1, "batch_size": 4},
    "fisher": {"examples": 3},
    "regmean": {"examples": 3},
    "regmean_plus_plus": {"examples": 3},
    "esm": {"examples": 3},
    "wudi": {"steps": 2},
    "doge_ta": {"steps": 2},
    "we_moe": {"steps": 2, "batch_size": 4},
}
STACKED = [f"{method}+{name}" for name in CORRECTIONS.names() for method in ("weight_averaging", "emr")]


class Counted:
    """Bytes of tensors that were handed out and still exist, and how many encoders do; the most there were."""

    def __init__(self) -> None:
        self.bytes = self.encoders = self.most_bytes = self.most_encoders = 0
        self.reads: Counter[str] = Counter()

    def tensor(self, name: str, values: torch.Tensor) -> torch.Tensor:
        # The tensor's memory is the array's, so the array lives as long as any view of it.
        array = values.numpy().copy()
        self.reads[name] += 1
        self._add(bytes=array.nbytes)
        weakref.finalize(array, self._add, bytes=-array.nbytes)
        return torch.from_numpy(array)

    def encoder(self, made: Encoder) -> Encoder:
        self._add(encoders=1)
        weakref.finalize(made, self._add, encoders=-1)
        return made

    def _add(self, *, bytes: int = 0, encoders: int = 0) -> None:  # noqa: A002
        self.bytes += bytes
        self.encoders += encoders
        self.most_bytes = max(self.most_bytes, self.bytes)
        self.most_encoders = max(self.most_encoders, self.encoders)


class CountedTensors(Mapping[str, torch.Tensor]):
    """A checkpoint whose reads are counted."""

    def __init__(self, counted: Counted, checkpoint: Checkpoint) -> None:
        self.counted = counted
        self.checkpoint = checkpoint
        self.specs = checkpoint.specs

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.counted.tensor(name, self.checkpoint[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)


class CountedExperts(LazyExperts):
    """Experts that count how many of them exist."""

    def __init__(self, base: Encoder, files: Mapping[str, Path]) -> None:
        self.counted = Counted()
        super().__init__(
            base, {task: CountedTensors(self.counted, Checkpoint(file)) for task, file in files.items()}
        )

    def __getitem__(self, task: str) -> Encoder:
        return self.counted.encoder(super().__getitem__(task))


class Material:
    """A base, experts in memory and the same on disk, and images."""

    def __init__(self, folder: Path, base: Encoder, experts: dict[str, Encoder]) -> None:
        self.base = base
        self.experts = experts
        self.files = {task: folder / f"{task}.safetensors" for task in experts}
        for task, file in self.files.items():
            save_file(experts[task].state(), file)
        self.calibration = {}
        for position, task in enumerate(experts):
            draws = torch.Generator().manual_seed(position)
            images = torch.rand(6 + position, 3, base.image_size, base.image_size, generator=draws)
            head = Head(torch.randn(3 + position, base.width, generator=draws), torch.zeros(3 + position))
            self.calibration[task] = Calibration(images, head)

    def merge(self, name: str, experts: Mapping[str, Encoder], **changes: Any) -> Merged:
        method, _, correction = name.partition("+")
        parameters = FEW.get(method, {}) | changes
        if correction:
            parameters = parameters | {correction: {"steps": 3, "rank": 2}}
        return create(name, **parameters).merge(self.base, experts, calibration=self.calibration, seed=2)

    def lazy(self) -> CountedExperts:
        return CountedExperts(self.base, self.files)


@pytest.fixture
def vits(tiny_vit: Path, tmp_path: Path) -> Material:
    """Six transformers: many experts, each of many tensors."""
    start = load_encoder(str(tiny_vit))
    base, *experts = [moved(start, seed, 0.05) for seed in range(7)]
    return Material(tmp_path, base, {f"task {position}": expert for position, expert in enumerate(experts)})


@pytest.fixture
def mlps(tmp_path: Path) -> Material:
    base, *experts = [tiny_encoder(seed).double() for seed in range(4)]
    return Material(tmp_path, base, {f"task {position}": expert for position, expert in enumerate(experts)})


def assert_same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("name", [*METHODS.names(), *STACKED])
def test_one_expert_at_a_time_and_the_same_bits_as_with_all(vits: Material, name: str) -> None:
    if name == "slerp":
        vits.files = dict(list(vits.files.items())[:2])
    lazy = vits.lazy()
    merged = vits.merge(name, lazy)
    in_memory = vits.merge(name, {task: vits.experts[task] for task in lazy})
    assert_same(merged.parts, in_memory.parts)
    assert_same(merged.coefficients, in_memory.coefficients)
    task = "task 1"
    head, images = vits.calibration[task].head, vits.calibration[task].images
    assert torch.equal(merged.classifier(task, head)(images), in_memory.classifier(task, head)(images))
    one = sum(spec.nbytes for spec in tensor_specs(vits.base.state()).values())
    assert lazy.counted.most_encoders <= 1
    assert one / 20 < lazy.counted.most_bytes <= 1.2 * one  # an encoder, or a tensor of every expert
    assert lazy.counted.encoders == 0
    assert lazy.counted.bytes == 0


@pytest.mark.parametrize("name", sorted(set(METHODS.names()) - {"esm", "fisher", "regmean", "slerp"}))
def test_methods_that_need_tensors_alone_build_no_encoder(vits: Material, name: str) -> None:
    lazy = vits.lazy()
    vits.merge(name, lazy)
    assert lazy.counted.most_encoders == 0


@pytest.mark.parametrize("granularity", ["layer_wise", "task_wise"])
@pytest.mark.parametrize("name", ["adamerging", "adamerging_plus_plus"])
def test_task_vectors_may_be_kept_or_made_anew(
    vits: Material, name: str, granularity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for free in (2**40, 0):
        monkeypatch.setattr("mergerisk.merging.adamerging.free_bytes", lambda _, free=free: free)
        lazy = vits.lazy()
        merged = vits.merge(name, lazy, steps=4, learning_rate=0.02, granularity=granularity)
        found[free] = merged, lazy.counted.reads.total()
    (kept, few), (streamed, many) = found.values()
    assert many >= few + 4 * len(vits.files) * len(kept.coefficients)  # every step reads every tensor again
    assert_same(kept.parts, streamed.parts)
    assert_same(kept.coefficients, streamed.coefficients)
    assert max(float((values - 0.3).abs().max()) for values in kept.coefficients.values()) > 0.01  # it learnt


@pytest.mark.parametrize("name", ["adamerging", "adamerging_plus_plus"])
@pytest.mark.parametrize("sizes", [(4, 4, 4), (4, 7, 5)])
def test_images_in_portions_give_the_same_gradient(
    mlps: Material, name: str, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for task, size in zip(mlps.files, sizes, strict=True):
        images = torch.rand(9, 3, size, size, generator=torch.Generator().manual_seed(size))
        mlps.calibration[task] = Calibration(images, mlps.calibration[task].head)

    def learnt() -> torch.Tensor:
        merged = mlps.merge(name, mlps.experts, steps=3, batch_size=5, learning_rate=0.02)
        return torch.stack(list(merged.coefficients.values()))

    whole = learnt()
    portions = []

    def counted(batches: Any, size: int) -> Any:
        found = list(_portions(batches, size))
        portions.append(len(found))
        return found

    monkeypatch.setattr("mergerisk.merging.adamerging._portions", counted)
    monkeypatch.setattr("mergerisk.merging.adamerging._GRAPH", 1)
    torch.testing.assert_close(learnt(), whole, rtol=1e-9, atol=1e-12)
    assert portions == [15] * 3  # an image at a time
    assert float((whole - 0.3).abs().max()) > 0.01


def test_portions_hold_every_image_once_in_order() -> None:
    batches = [torch.arange(5), torch.arange(0), torch.arange(10, 13), torch.arange(20, 27)]
    for size in range(1, 20):
        portions = list(_portions(batches, size))
        lengths = [sum(len(piece) for _, piece in portion) for portion in portions]
        assert lengths[:-1] == [size] * (len(portions) - 1)
        assert 0 < lengths[-1] <= size
        for task, batch in enumerate(batches):
            pieces = [piece for portion in portions for owner, piece in portion if owner == task]
            assert torch.equal(torch.cat([torch.arange(0), *pieces]), batch)


def test_mixtures_in_portions_are_the_same(vits: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    for encoder in (vits.base, *vits.experts.values()):
        encoder.double()
    whole = vits.merge("we_moe", vits.experts, steps=3, learning_rate=0.01)
    monkeypatch.setattr("mergerisk.merging.we_moe._WEIGHTS", 1)
    split = vits.merge("we_moe", vits.experts, steps=3, learning_rate=0.01)
    for name, tensor in whole.parts.items():
        torch.testing.assert_close(split.parts[name], tensor, rtol=1e-8, atol=1e-9)
    images = vits.calibration["task 5"].images
    torch.testing.assert_close(split.encoder(images), whole.encoder(images), rtol=1e-8, atol=1e-9)


def test_lazy_experts_are_a_mapping_of_encoders(vits: Material) -> None:
    lazy = vits.lazy()
    assert list(lazy) == list(vits.experts)
    assert len(lazy) == 6
    assert "task 3" in lazy
    assert "task 6" not in lazy
    assert lazy.counted.reads.total() == 0  # nothing was read for that
    with pytest.raises(KeyError):
        lazy["task 6"]
    assert_same(lazy["task 3"].state(), vits.experts["task 3"].state())
    assert not lazy["task 3"].training


def test_lazy_experts_are_checked_like_others(vits: Material) -> None:
    broken = {name: tensor.clone() for name, tensor in vits.experts["task 2"].state().items()}
    name = next(iter(broken))
    broken[name].view(-1)[0] = float("nan")
    save_file(broken, vits.files["task 2"])
    with pytest.raises(UserError, match=f"expert 'task 2': tensor {name!r} holds NaN"):
        vits.merge("ties", vits.lazy())
    save_file({key: tensor for key, tensor in broken.items() if key != name}, vits.files["task 2"])
    with pytest.raises(UserError, match=f"expert 'task 2': tensor {name!r} is missing"):
        vits.merge("ties", vits.lazy())
