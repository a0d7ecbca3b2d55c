"""What leaves nothing to judge, found in the figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mergerisk.report.fact_words import said
from mergerisk.statistics import doubts

CLASSES, IMAGES = 10, 200
LABELS = np.arange(IMAGES) % CLASSES


def clean(expert: np.ndarray, base: np.ndarray, task: str = "digits") -> pd.DataFrame:
    """Predictions: right where true, else the next class."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "task": task, "model": name, "seed": 0, "image": np.arange(IMAGES), "label": LABELS,
                    "prediction": np.where(right, LABELS, (LABELS + 1) % CLASSES),
                }
            )
            for name, right in (("expert", expert), ("pretrained", base))
        ],
        ignore_index=True,
    )  # fmt: skip


def rates(images: int = 100) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": "digits", "attack": "fgsm", "surrogate": ["expert", "pretrained", "ties"],
            "target": ["ties", "ties", "ties"], "epsilon": 0.01, "images_both_correct": [100, images, 3],
        }
    )  # fmt: skip


def share(correct: int) -> np.ndarray:
    return np.arange(IMAGES) < correct


def kinds(*given: object, **more: object) -> list[str]:
    return [doubt.kind for doubt in doubts(*given, ["ties"], **more)]  # type: ignore[arg-type]


def test_a_sound_study_leaves_no_doubt() -> None:
    assert kinds(clean(share(180), share(120)), rates(), steps_per_epoch={"digits": 9}) == []
    assert kinds(clean(share(180), share(120)).head(0), rates().head(0)) == []


@pytest.mark.parametrize(("right", "found"), [(20, True), (27, True), (36, False)])
def test_experts_at_chance(right: int, found: bool) -> None:
    """Of 10 classes guessing gets 10 %: 27 of 200 (Wilson from 9.4 %) may be that, 36 of 200 (from 13.3 %) not."""
    assert ("chance" in kinds(clean(share(right), share(0)), rates())) == found


def test_the_commonest_class_is_what_guessing_gets() -> None:
    made = clean(share(180), share(100))
    made["label"] = np.where(made["image"] < 170, 0, 1)
    made["prediction"] = 0
    (first, *_) = doubts(made, rates(), ["ties"])
    assert first.kind == "chance"
    assert "digits (85.0% [79.4, 89.3] of 200 images; always naming the commonest class 85.0%)" in said(first)


def test_a_base_that_equals_its_experts() -> None:
    (found,) = doubts(clean(share(150), share(150)), rates(), ["ties"])
    assert found.kind == "same"
    assert "digits (200 images)" in said(found)


def test_experts_no_better_than_the_base_on_the_same_images() -> None:
    """150 and 147 right, of which 147 are the same: 3 images, which chance explains; 130 are told apart."""
    (found,) = doubts(clean(share(150), share(147)), rates(), ["ties"])
    assert found.kind == "no_better"
    assert "digits (+1.5 points [-" in said(found)
    assert kinds(clean(share(150), share(130)), rates()) == []
    assert kinds(clean(share(120), share(150)), rates()) == ["no_better"]


def test_cells_with_few_images_white_boxes_aside() -> None:
    (found,) = doubts(clean(share(180), share(120)), rates(29), ["ties"])
    assert found.kind == "few_images"
    assert said(found).startswith("1 of 2 cells")
    assert "the least is 29, ties on digits attacked from pretrained" in said(found)
    assert kinds(clean(share(180), share(120)), rates(30)) == []


def test_epochs_of_eight_steps_or_fewer() -> None:
    (found,) = doubts(clean(share(180), share(120)), rates(), ["ties"], {"digits": 8, "letters": 9})
    assert found.kind == "few_steps"
    assert "on digits (8):" in said(found)
