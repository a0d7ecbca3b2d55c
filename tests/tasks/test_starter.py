"""The embedded starter suite's pictures: shapes, balance, splits and determinism."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest

from mergerisk.errors import UserError
from mergerisk.tasks import TaskArrays, starter
from mergerisk.tasks.arrays import CALIBRATION, TEST, TRAIN


@lru_cache(maxsize=8)
def rendered(name: str) -> TaskArrays:
    return starter.render(name)


def test_names_and_descriptions_agree() -> None:
    assert len(set(starter.STARTER_TASKS)) == 7
    assert tuple(starter.DESCRIPTIONS) == starter.STARTER_TASKS


@pytest.mark.parametrize("name", starter.STARTER_TASKS)
def test_arrays(name: str) -> None:
    task = rendered(name)
    assert task.images.dtype == np.uint8
    assert task.images.shape == (len(task.labels), 32, 32, 3)
    assert task.labels.dtype == task.split.dtype == np.int64
    assert len(task.class_names) >= 10
    assert len(set(task.class_names)) == len(task.class_names)
    sizes = np.bincount(task.split, minlength=3)
    assert len(sizes) == 3
    assert 900 <= sizes[TRAIN] <= 1200
    assert 300 <= sizes[TEST] <= 450
    assert 200 <= sizes[CALIBRATION] <= 300


@pytest.mark.parametrize("name", starter.STARTER_TASKS)
def test_every_split_is_balanced(name: str) -> None:
    task = rendered(name)
    for split in range(3):
        counts = np.bincount(task.labels[task.split == split], minlength=len(task.class_names))
        assert counts.min() == counts.max() > 0


@pytest.mark.parametrize("name", starter.STARTER_TASKS)
def test_no_picture_comes_twice(name: str) -> None:
    task = rendered(name)
    assert len({image.tobytes() for image in task.images}) == len(task.images)


def test_no_handwritten_scan_is_used_twice() -> None:
    from mergerisk.tasks.starter import digits

    scans = [scan.tobytes() for of_digit in digits._scans() for scan in of_digit]
    assert len(set(scans)) == len(scans)
    for order, of_digit in zip(digits._order(0), digits._scans(), strict=True):
        assert sorted(order) == list(range(len(of_digit)))


@pytest.mark.parametrize("name", starter.STARTER_TASKS)
def test_pictures_are_not_blank(name: str) -> None:
    images = rendered(name).images.astype(np.float64) / 255
    assert 0.05 < images.mean() < 0.8
    # A dark scene or a still sea has little contrast, but none is a single colour.
    assert images.std(axis=(1, 2, 3)).min() > 0.005


@pytest.mark.parametrize("name", starter.STARTER_TASKS)
def test_a_picture_depends_only_on_its_number_and_the_seed(name: str) -> None:
    task = rendered(name)
    for index in (len(task.labels) - 1, 7, 0):
        np.testing.assert_array_equal(starter.render_image(name, index), task.images[index])
    assert not np.array_equal(starter.render_image(name, 7, seed=1), task.images[7])


def test_a_second_process_draws_the_same() -> None:
    code = (
        "import hashlib; from mergerisk.tasks.starter import STARTER_TASKS, render_image\n"
        "print([hashlib.sha256(render_image(name, 5).tobytes()).hexdigest() for name in STARTER_TASKS])"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in "ab"]
    assert runs[0].stdout == runs[1].stdout


def test_whole_task_twice_is_the_same() -> None:
    again = starter.render("pictograms")
    np.testing.assert_array_equal(again.images, rendered("pictograms").images)
    np.testing.assert_array_equal(again.labels, rendered("pictograms").labels)


def test_pretraining_pictures_in_pieces() -> None:
    whole = starter.render_pretraining(12, seed=3)
    pieces = [starter.render_pretraining(5, seed=3), starter.render_pretraining(7, seed=3, first=5)]
    np.testing.assert_array_equal(whole.images, np.concatenate([piece.images for piece in pieces]))
    np.testing.assert_array_equal(whole.labels, np.concatenate([piece.labels for piece in pieces]))


def test_every_pretraining_class_can_be_drawn() -> None:
    from mergerisk.tasks.starter import pretraining

    count = len(pretraining.CLASS_NAMES)
    assert len(set(pretraining.CLASS_NAMES)) == count
    drawn = starter.render_pretraining(count)
    assert drawn.images.shape == (count, 32, 32, 3)
    assert set(drawn.labels.tolist()) == set(range(count))


def test_pretraining_prints_none_of_the_tasks_letters() -> None:
    from mergerisk.tasks.starter import letters, pretraining

    printed = {name.removeprefix("printed_") for name in pretraining.CLASS_NAMES if name.startswith("printed_")}
    assert len(printed) > 20
    assert not printed & set(letters.CLASS_NAMES)


def test_user_errors_are_one_line() -> None:
    for call in (
        lambda: starter.render("digit"),
        lambda: starter.render("digits", seed=-1),
        lambda: starter.render_image("digits", 100_000),
        lambda: starter.render_pretraining(1, seed=-1),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_importing_loads_no_drawing_library() -> None:
    code = (
        "import sys; import mergerisk.tasks.starter\n"
        "print([m for m in ('PIL', 'matplotlib', 'sklearn', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
