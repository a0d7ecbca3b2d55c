"""What is wrong with a model that is measured wrongly, planted, and the reason that ``mergerisk check`` gives."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

import mergerisk as mr
from mergerisk.checking import as_loaded, running
from tests.checking.material import Changed, normalised, save_half, save_model, shades
from tests.crafting.material import save_pictures
from tests.situations.situation import Situation, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def planted(module: Callable[[Any], torch.nn.Module]) -> Iterator[None]:
    """Has mergerisk's own loading make something else of the library's model."""
    original = as_loaded.open_readings

    def open_readings(name: str, own: Any, *rest: Any, **named: Any) -> Any:
        found, remarks = original(name, own, *rest, **named)
        changed = module(found[0].inner)
        inner = next(part for part in changed.modules() if hasattr(part, "config"))
        return [replace(found[0], module=changed.eval(), inner=inner)], remarks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "open_readings", open_readings)
        yield


def reason(folder: Path, fault: Callable[[Any], torch.nn.Module], size: tuple[int, int] = (16, 16)) -> str:
    model = save_model(folder / "model")
    with planted(fault):
        found = mr.check(model, save_pictures(folder / "pictures", 3, size))
    assert not found.agrees
    return "; ".join(found.reasons)


def resized(images: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    antialias = {"antialias": True} if mode != "nearest" else {}
    return F.interpolate(images, (16, 16), mode=mode, **antialias)


def other_activation(model: Any) -> torch.nn.Module:
    from transformers import AutoModelForImageClassification

    config = type(model.config)(**model.config.to_dict() | {"hidden_act": "relu"})
    changed = AutoModelForImageClassification.from_config(config)
    changed.load_state_dict(model.state_dict())
    return Changed(changed, normalised)


def other_weights(model: Any) -> torch.nn.Module:
    import copy

    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.classifier.weight.mul_(-1)
    return Changed(changed, normalised)


def half(folder: Path) -> str:
    found = mr.check(
        save_half(save_model(folder / "model"), folder / "half"),
        save_pictures(folder / "pictures"),
        tolerance=1e-4,
    )
    return "; ".join(found.reasons)


def small_task(folder: Path) -> str:
    found = mr.check(save_model(folder / "model"), save_pictures(folder / "pictures", 3, (32, 32)), size=4)
    return "; ".join(found.reasons)


def swapped_classes(folder: Path) -> tuple[float | None, bool, str]:
    pictures = shades(folder / "pictures", names=("bright", "dark"))
    found = mr.check("tests.crafting.material:named", pictures)
    return found.accuracy, found.agrees, found.reasons[0][:42]


def numbered_classes(folder: Path) -> tuple[float | None, bool]:
    found = mr.check("tests.crafting.material:unnamed", shades(folder / "pictures", names=("0", "1")))
    return found.accuracy, found.agrees


SITUATIONS = (
    Situation(
        "pixels are normalised with other figures than the model's",
        lambda folder: reason(
            folder, lambda model: Changed(model, lambda x: normalised(x, (0.5,) * 3, (0.5,) * 3))
        ),
        re.compile(
            r"^in attack: normalisation: mean 0\.500, 0\.500, 0\.500 and standard deviation 0\.500, 0\.500, 0\.500, "
            r"where the library takes 0\.400, 0\.500, 0\.600 and 0\.200, 0\.300, 0\.400(; in its own|$)"
        ),
    ),
    Situation(
        "pixels are normalised twice",
        lambda folder: reason(folder, lambda model: Changed(model, lambda x: normalised(normalised(x)))),
        re.compile("^in attack: pixels are normalised twice(; in its own|$)"),
    ),
    Situation(
        "pixels are not normalised at all",
        lambda folder: reason(folder, lambda model: Changed(model, lambda x: x)),
        re.compile("normalisation: mean 0.000, 0.000, 0.000 and standard deviation 1.000, 1.000, 1.000"),
    ),
    Situation(
        "the middle is cut out where the library squeezes the whole picture",
        lambda folder: reason(
            folder, lambda model: Changed(model, lambda x: normalised(resized(x[..., 16:32]))), (16, 48)
        ),
        re.compile(
            r"^in attack: crop: the model sees 33 to 67 % × 0 to 100 % of a picture, with its library 0 to 100"
        ),
    ),
    Situation(
        "images are resized by another filter",
        lambda folder: reason(
            folder, lambda model: Changed(model, lambda x: normalised(resized(x, "nearest"))), (56, 56)
        ),
        re.compile("^in attack: resampling: "),
    ),
    Situation(
        "the model computes with another activation",
        lambda folder: reason(folder, other_activation),
        re.compile("^in attack: activation: relu, where the library takes gelu"),
    ),
    Situation(
        "the model has other weights",
        lambda folder: reason(folder, other_weights),
        re.compile("^in attack: the model itself answers the same pixels differently"),
    ),
    Situation("weights are stored in half precision", half, re.compile("half precision: .* bfloat16")),
    Situation("a task is smaller than its model", small_task, re.compile(r"the task brings .* size: 16")),
    Situation(
        "labels are in another order than the model's classes",
        swapped_classes,
        (0.0, True, "in its own library too: order of classes: "),
    ),
    Situation("a model names no classes and folders are numbers", numbered_classes, (1.0, True)),
    Situation(
        "folders are named like no class of the model",
        lambda folder: refusal(
            lambda: mr.check("tests.crafting.material:named", shades(folder / "it", names=("dark", "brihgt")))
        ),
        "folder 'brihgt': the model has no class 'brihgt' (did you mean 'bright'?)",
    ),
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_situation(situation: Situation, tmp_path: Path) -> None:
    situation.check(tmp_path)
