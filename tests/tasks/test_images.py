"""Lazy images behave as the tensors they stand for, and read only what is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mergerisk.errors import UserError
from mergerisk.finetuning import fine_tune, linear_probe
from mergerisk.merging import Calibration, create
from mergerisk.models import Classifier, Head, load_encoder
from mergerisk.models.inside.features import extract_features
from mergerisk.tasks import LazyImages, Split, Task, TaskArrays, to_task
from mergerisk.tasks import from_arrays as module
from mergerisk.transfer import predict, predict_variants
from tests.tiny import arrays


class Counting:
    """Rows that know which were read."""

    def __init__(self, rows: np.ndarray[Any, Any]) -> None:
        self.rows, self.shape = rows, rows.shape
        self.read: list[int] = []

    def __getitem__(self, index: Any) -> Any:
        self.read += np.atleast_1d(np.arange(len(self.rows))[index]).tolist()
        return self.rows[index]


ROWS = np.random.default_rng(0).integers(0, 256, (10, 4, 6, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(ROWS).float().div(255).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "index",
    [
        3,
        -1,
        slice(2, 7),
        slice(None, None, 3),
        slice(0, 0),
        torch.tensor([5, 1, 1, 9]),
        torch.tensor([], dtype=torch.int64),
        torch.tensor(4),
        torch.arange(10) % 2 == 0,
    ],
)
def test_every_index_gives_what_the_tensor_gives(index: Any) -> None:
    for images, tensor in ((LazyImages(ROWS), TENSOR), (LazyImages(ROWS).subset(slice(None)), TENSOR)):
        found = images[index]
        assert found.dtype == torch.float32
        assert torch.equal(found, tensor[index])
        assert found.is_contiguous()


def test_subsets_portions_and_shapes() -> None:
    rows = Counting(ROWS)
    images = LazyImages(rows).subset(torch.tensor([8, 2, 4, 0, 6]))
    assert (len(images), images.shape) == (5, torch.Size((5, 3, 4, 6)))
    assert not rows.read
    assert torch.equal(images[1:3], TENSOR[[2, 4]])
    assert rows.read == [2, 4]
    expected = TENSOR[[8, 2, 4, 0, 6]]
    for size in (1, 2, 5, 9):
        assert [len(part) for part in images.split(size)] == [len(part) for part in expected.split(size)]
        assert torch.equal(torch.cat(list(images.split(size))), expected)
    with pytest.raises(IndexError):
        images[5]


def task_arrays(images: Any) -> TaskArrays:
    content = arrays("stripes")
    return TaskArrays(images, content["labels"], content["split"], ("a", "b", "c"))


def test_a_task_over_rows_equals_one_over_an_array_and_reads_nothing() -> None:
    rows = Counting(arrays("stripes")["images"])
    lazy, whole = to_task("t", task_arrays(rows)), to_task("t", task_arrays(rows.rows))
    assert not rows.read
    assert isinstance(lazy.test.images, LazyImages)
    assert isinstance(whole.test.images, torch.Tensor)
    for split in ("train", "test", "calibration"):
        one, other = getattr(lazy, split), getattr(whole, split)
        assert torch.equal(one.images[:], other.images)
        assert torch.equal(one.labels, other.labels)
        assert isinstance(one.subset(slice(2)).images, LazyImages)
        assert torch.equal(one[:2].images, other.images[:2])


def test_large_arrays_stay_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TENSOR_BYTES", 1000)
    images = arrays("stripes")["images"]
    assert isinstance(to_task("t", task_arrays(images)).train.images, LazyImages)
    assert isinstance(to_task("t", task_arrays(images / 255)).train.images, torch.Tensor)


def test_what_learns_and_predicts_reads_lazy_images_as_tensors() -> None:
    encoder = load_encoder("starter-vit")
    lazy = to_task("t", task_arrays(Counting(arrays("stripes")["images"])))
    whole = to_task("t", task_arrays(arrays("stripes")["images"]))
    heads = [linear_probe(encoder, task) for task in (lazy, whole)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    experts = [fine_tune(encoder, heads[0], task, seed=0) for task in (lazy, whole)]
    states = [expert.state() for expert in experts]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    classifier = Classifier(experts[0], heads[0])
    said = [predict(classifier, task.test.images, batch_size=7) for task in (lazy, whole)]
    assert torch.equal(*said)
    assert torch.equal(*[predict(torch.nn.Flatten(), task.test.images) for task in (lazy, whole)])
    features = [extract_features(encoder, task.test.images, batch_size=7) for task in (lazy, whole)]
    assert torch.equal(*features)
    variants = [predict_variants(encoder, heads[0], {"": None}, task.test.images) for task in (lazy, whole)]
    assert torch.equal(*variants)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("fisher", {"examples": 4}),
        ("regmean", {"examples": 4}),
        ("adamerging", {"steps": 1, "batch_size": 2}),
        ("we_moe", {"steps": 1, "batch_size": 2}),
        ("weight_averaging+surgery", {"surgery": {"steps": 1}}),
        ("weight_averaging+surgery_v2", {"surgery_v2": {"steps": 1}}),
    ],
)
def test_methods_that_read_images_read_lazy_ones(name: str, parameters: dict[str, Any]) -> None:
    encoder = load_encoder("starter-vit")
    noise = torch.Generator().manual_seed(0)
    states = [
        {key: value + 0.01 * torch.randn(value.shape, generator=noise) for key, value in encoder.state().items()}
        for _ in range(2)
    ]
    experts = {task: encoder.with_state(state) for task, state in zip("ab", states, strict=True)}
    head = Head(torch.randn(3, encoder.width, generator=noise), torch.zeros(3))
    rows = arrays("stripes")["images"][:8]
    made = []
    for images in (LazyImages(rows), LazyImages(rows)[:]):
        calibration = {task: Calibration(images, head) for task in experts}
        made.append(create(name, **parameters).merge(encoder, experts, calibration=calibration, seed=0).parts)
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(made[0][part], made[1][part]) for part in made[0])


def test_training_and_calibration_images_may_be_missing_until_somebody_needs_them() -> None:
    split = Split(torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))
    empty = split[:0]
    task = Task("only tests", ("a", "b"), empty, split, empty)
    encoder = load_encoder("starter-vit")
    with pytest.raises(UserError, match=r"'only tests' has no training images, and a linear probe needs some"):
        linear_probe(encoder, task)
    head = Head(torch.zeros(2, encoder.width), torch.zeros(2))
    with pytest.raises(UserError, match=r"'only tests' has no training images, and fine-tuning needs some"):
        fine_tune(encoder, head, task)
    calibration = {"only tests": Calibration(task.calibration.images, head)}
    with pytest.raises(UserError, match=r"calibration for task 'only tests' has no images"):
        create("fisher").merge(encoder, {"only tests": encoder}, calibration=calibration)
    with pytest.raises(UserError, match="test split: has no images"):
        Task("no tests", ("a", "b"), split, empty, empty)
