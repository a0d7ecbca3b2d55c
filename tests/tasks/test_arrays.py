"""Tasks from arrays and files: what is accepted, and how mistakes are reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from mergerisk.errors import UserError
from mergerisk.tasks import Split, Task, TaskArrays, load_task, load_tasks, select_balanced, to_task
from tests.tiny import arrays

if TYPE_CHECKING:
    from pathlib import Path


def save(path: Path, **changes: Any) -> Path:
    content = arrays("stripes") | changes
    np.savez(path, **{name: value for name, value in content.items() if value is not None})
    return path


def test_an_npz_becomes_a_task_with_held_out_calibration(tmp_path: Path) -> None:
    task = load_task(str(save(tmp_path / "stripes.npz", class_names=np.array(["a", "b", "c"]))))
    assert task.name == "stripes"
    assert task.class_names == ("a", "b", "c")
    assert (len(task.train), len(task.calibration), len(task.test)) == (45, 15, 30)
    assert task.train.images.shape == (45, 3, 16, 16)
    assert torch.bincount(task.calibration.labels).tolist() == [5, 5, 5]
    # Held out means held out: no calibration image is trained on or attacked.
    splits = [{image.numpy().tobytes() for image in s.images} for s in (task.train, task.calibration, task.test)]
    assert sum(map(len, splits)) == 90
    assert not (splits[0] & splits[1])
    assert not (splits[1] & splits[2])
    assert not (splits[0] & splits[2])


def test_pixels_are_the_files_own(tmp_path: Path) -> None:
    content = arrays("stripes")
    as_bytes = load_task(str(save(tmp_path / "bytes.npz")))
    as_floats = load_task(str(save(tmp_path / "floats.npz", images=content["images"].astype(np.float32) / 255)))
    torch.testing.assert_close(as_bytes.test.images, as_floats.test.images)
    expected = content["images"][content["split"] == 1][0].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(as_bytes.test.images[0].numpy(), expected, atol=1e-7)


def test_grey_images_get_three_equal_channels(tmp_path: Path) -> None:
    grey = arrays("stripes")["images"][..., 0]
    task = load_task(str(save(tmp_path / "grey.npz", images=grey)))
    assert torch.equal(task.test.images[:, 0], task.test.images[:, 2])


def test_a_tasks_own_calibration_split_is_used(tmp_path: Path) -> None:
    split = np.array([0, 1, 2] * 30)
    task = load_task(str(save(tmp_path / "own.npz", split=split, labels=np.arange(90) // 30)))
    assert (len(task.train), len(task.calibration), len(task.test)) == (30, 30, 30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "array 'labels' is missing"),
        ({"labels": np.zeros(90)}, "labels must be integers"),
        ({"labels": np.zeros(90, dtype=int)}, "has 1 class; classification needs at least two"),
        ({"labels": np.arange(90) - 1}, "labels must lie in 0 to 88"),
        ({"labels": np.zeros(3, dtype=int)}, "90 images, 3 labels"),
        ({"split": np.full(90, 7)}, "split codes must be"),
        ({"split": np.zeros(90, dtype=int)}, "test split: has no images"),
        ({"images": np.full((90, 4, 4, 3), 200.0)}, "pixels must lie in [0, 1], found 200 to 200"),
        ({"images": np.full((90, 4, 4, 3), np.nan)}, "pixels must lie in [0, 1], found nan"),
        ({"images": np.full((90, 4, 4, 3), -0.1)}, "pixels must lie in [0, 1]"),
        ({"images": np.zeros((90, 4, 4, 4))}, "images must be N×H×W×3"),
        ({"images": np.zeros((90, 4, 4, 3), dtype=np.int32)}, "images must be uint8, or floating"),
        ({"images": np.array([object()] * 90)}, "'images' holds Python objects, which are not read"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_task(str(save(tmp_path / "task.npz", **changes)))
    assert message in str(caught.value)
    assert "task" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(b"not a zip archive")
    with pytest.raises(UserError, match=r"broken\.npz: cannot be read as \.npz"):
        load_task(str(path))


def test_unknown_names_and_missing_files() -> None:
    with pytest.raises(UserError, match=r"unknown task 'digit' \(did you mean 'digits'\?\)"):
        load_tasks("digit")
    with pytest.raises(UserError, match="no such file"):
        load_tasks("nowhere/x.npz")


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = [str(save(tmp_path / "a.npz")), str(save(tmp_path / "other" / "a.npz"))]
    with pytest.raises(UserError, match="given twice"):
        load_tasks(*files)


def test_a_task_checks_itself() -> None:
    split = Split(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(UserError, match="float32"):
        Task("t", ("a", "b"), split, Split(split.images.double(), split.labels), split)
    with pytest.raises(UserError, match="one per image"):
        Task("t", ("a", "b"), split, split, Split(split.images, split.labels[:2]))


def test_selection_is_balanced_nested_and_seeded() -> None:
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 3)
    draws = [torch.Generator().manual_seed(0) for _ in range(4)]
    nine = select_balanced(labels, 9, draws[0])
    assert torch.bincount(labels[nine]).tolist() == [3, 3, 3]
    twenty = select_balanced(labels, 20, draws[1])
    assert torch.bincount(labels[twenty]).tolist() in ([9, 8, 3], [8, 9, 3])
    assert set(nine.tolist()) <= set(twenty.tolist())
    assert len(select_balanced(labels, 1000, draws[2])) == 63
    other = select_balanced(labels, 9, torch.Generator().manual_seed(1))
    assert not torch.equal(nine, other)
    assert torch.equal(nine, select_balanced(labels, 9, draws[3]))


def test_arrays_of_ragged_shape_are_refused() -> None:
    with pytest.raises(UserError, match="images must be"):
        to_task("t", TaskArrays(np.zeros((3, 2)), np.zeros(3, dtype=int), np.zeros(3, dtype=int), ("a", "b")))
