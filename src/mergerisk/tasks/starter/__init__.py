"""The embedded `starter` suite: seven small classification tasks at 32×32, rendered or taken from
scikit-learn.

They need no download and are for learning the tool, not for claims about deployed models. Importing this
package loads no drawing library; the pictures are made by `render`. For one set of library versions they
depend on nothing but the task's name, the seed and a picture's number.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.tasks.arrays import CALIBRATION, TEST, TRAIN, TaskArrays

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    import numpy as np
    import numpy.typing as npt

__all__ = [
    "DESCRIPTIONS",
    "STARTER_TASKS",
    "STARTER_VERSION",
    "class_names",
    "render",
    "render_image",
    "render_pretraining",
    "split_sizes",
]

STARTER_VERSION: int = 1
"""Raised whenever the pictures, labels or splits of any task change."""

STARTER_TASKS: tuple[str, ...] = (
    "digits",
    "street_numbers",
    "traffic_signs",
    "textures",
    "land_cover",
    "letters",
    "pictograms",
)

DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "digits": "real handwritten digits (scikit-learn's load_digits), 10 classes",
        "street_numbers": "house-number digits over photo patches, with neighbours, 10 classes",
        "traffic_signs": "European traffic signs at the roadside, 14 classes",
        "textures": "procedural textures of any colour, 10 classes",
        "land_cover": "procedural aerial views of kinds of ground, 10 classes",
        "letters": "capital letters in 12 typefaces, 12 classes",
        "pictograms": "symbols on coloured tiles, 13 classes",
    }
)

# Pictures per class in the training, calibration and test splits. The handwritten digits are real and few:
# 174 of the rarest one.
_PER_CLASS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "digits": (105, 25, 44),
        "street_numbers": (115, 25, 42),
        "traffic_signs": (80, 18, 30),
        "textures": (115, 25, 42),
        "land_cover": (115, 25, 42),
        "letters": (95, 21, 35),
        "pictograms": (85, 19, 32),
    }
)


def class_names(name: str) -> tuple[str, ...]:
    """The classes of a task, in the order of its labels.

    Raises:
        UserError: there is no such task.
    """
    names: tuple[str, ...] = _module(name, 0).CLASS_NAMES
    return names


def split_sizes(name: str) -> tuple[int, int, int]:
    """Pictures of a task for training, calibration and testing.

    Raises:
        UserError: there is no such task.
    """
    classes = len(class_names(name))
    train, calibration, test = _PER_CLASS[name]
    return train * classes, calibration * classes, test * classes


def render(name: str, seed: int = 0) -> TaskArrays:
    """Draw a task of `STARTER_TASKS`.

    Every split has equally many pictures of each class: about 1100 for training, 250 for calibration and
    420 for testing. Another `seed` (0 or more) gives another draw of the same task.

    Raises:
        UserError: there is no such task, or the seed is negative.
    """
    import numpy as np

    module = _module(name, seed)
    names: tuple[str, ...] = module.CLASS_NAMES
    per_split = np.array(_PER_CLASS[name])
    count = len(names) * int(per_split.sum())
    labels = np.arange(count, dtype=np.int64) % len(names)
    place = np.searchsorted(np.cumsum(per_split), np.arange(count) // len(names), side="right")
    split = np.array([TRAIN, CALIBRATION, TEST])[place]
    images = np.stack([_draw(name, module, index, seed) for index in range(count)])
    return TaskArrays(images=images, labels=labels, split=split, class_names=names)


def render_image(name: str, index: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Draw picture number `index` of a task alone: 32×32×3 uint8, the same as `render(name,
    seed).images[index]`.

    Raises:
        UserError: there is no such task or picture, or the seed is negative.
    """
    module = _module(name, seed)
    count = len(module.CLASS_NAMES) * sum(_PER_CLASS[name])
    if not 0 <= index < count:
        raise UserError(f"starter task {name!r} has no picture {index}: choose 0 to {count - 1}")
    return _draw(name, module, index, seed)


def render_pretraining(count: int, seed: int = 0, first: int = 0) -> TaskArrays:
    """Draw `count` pictures of the generic classes on which the starter encoder is pretrained (all for training).

    None of the tasks' own classes is among them; see `mergerisk.tasks.starter.pretraining`. Pictures are
    numbered without end; `first` is the number of the first one wanted, so a long series can be drawn in
    pieces.

    Raises:
        UserError: the seed is negative.
    """
    import numpy as np

    from mergerisk.tasks.starter import pretraining

    _check_seed(seed)
    labels = np.arange(first, first + count, dtype=np.int64) % len(pretraining.CLASS_NAMES)
    images = np.empty((count, 32, 32, 3), dtype=np.uint8)
    for row, label in enumerate(labels.tolist()):
        rng = np.random.default_rng((seed, len(STARTER_TASKS), first + row))
        images[row] = pretraining.draw(rng, label)
    return TaskArrays(images, labels, np.zeros(count, dtype=np.int64), pretraining.CLASS_NAMES)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise UserError(f"seed {seed} is negative: give 0 or more")


def _module(name: str, seed: int) -> ModuleType:
    if name not in STARTER_TASKS:
        raise UserError(f"no starter task {name!r}: choose one of {', '.join(STARTER_TASKS)}")
    _check_seed(seed)
    return import_module(f"mergerisk.tasks.starter.{name}")


def _draw(name: str, module: ModuleType, index: int, seed: int) -> npt.NDArray[np.uint8]:
    import numpy as np

    rng = np.random.default_rng((seed, STARTER_TASKS.index(name), index))
    turn, label = divmod(index, len(module.CLASS_NAMES))
    image: npt.NDArray[np.uint8] = (
        module.draw(rng, label, turn, seed) if name == "digits" else module.draw(rng, label)
    )
    return image
