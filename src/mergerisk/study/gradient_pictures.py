"""Two models' gradients on two images, kept in the run's folder so that its report can show what alignment is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save as save_safetensors

from mergerisk.study.examples import clean_pixels
from mergerisk.study.kinds.ask import Ask
from mergerisk.study.kinds.compare import Compare
from mergerisk.transfer import what_happened

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.store import Store
    from mergerisk.study.kinds.compare import Answers
    from mergerisk.study.plan import Piece, Plan

ALIGNMENT = "gradient_alignment"
"""The diagnostic, and its column, that the images are chosen by."""

_GRADIENT = "gradient"
"""What the answers to the question for it are called."""

_OF = ["task", "surrogate", "target", "seed", "image"]


@dataclass(frozen=True, eq=False)
class GradientPicture:
    """One image and which way each of two models' losses rises.

    Attributes:
        facts: ``task, surrogate, target, image``, the class's name ``label``, their ``alignment``, and
            ``fooled_at``: the smallest budget at which an attack made on the surrogate fools the target; None
            where none does.
        clean: H × W × 3, float32 in [0, 1].
        surrogate: H × W × 3, float32: the surrogate's gradient, over its largest entry.
        target: likewise, the target's.
    """

    facts: dict[str, Any]
    clean: NDArray[np.float32]
    surrogate: NDArray[np.float32]
    target: NDArray[np.float32]


def pick_gradients(
    plan: Plan, store: Store, outcomes: pd.DataFrame, causes: pd.DataFrame | None
) -> list[GradientPicture]:
    """Of attacks from the study's first surrogate on its first ranked method with gradients the image with the
    largest alignment of all tasks, and the one with the smallest: of images that both models get right when clean.

    Args:
        plan: whose stages are done.
        store: where.
        outcomes: per image.
        causes: ``causes.parquet``; None of a study that asks for none.

    Raises:
        LostArtefactError: an artefact is not what was written.
    """
    study = plan.study
    if causes is None or ALIGNMENT not in causes:
        return []
    own = outcomes[(outcomes["seed"] == study.seeds[0]) & what_happened(outcomes).counts]
    known = causes.dropna(subset=[ALIGNMENT])
    for surrogate in (spec.label for spec in study.surrogates):
        for target in study.ranked:
            if target == surrogate:
                continue
            rows = own[(own["surrogate"] == surrogate) & (own["target"] == target)]
            both = (
                rows[_OF].drop_duplicates().astype(_NAMES).merge(known[[*_OF, ALIGNMENT]].astype(_NAMES), on=_OF)
            )
            if len(both) > 1:
                ends = both.loc[[both[ALIGNMENT].idxmax(), both[ALIGNMENT].idxmin()]]
                found = [_picture(row, rows, plan, store) for _, row in ends.iterrows()]
                return [picture for picture in found if picture is not None]
    return []


_NAMES = {"task": str, "surrogate": str, "target": str}


def _picture(row: pd.Series, attacked: pd.DataFrame, plan: Plan, store: Store) -> GradientPicture | None:
    names = {name: row[name] for name in _OF[:-1]} | {"cause": ALIGNMENT}
    piece = next((piece for piece in plan.pieces["causes"] if _is(piece, names)), None)
    stage = None if piece is None else plan.stages[piece.made.key]
    if not isinstance(stage, Compare):
        return None
    place = int(np.flatnonzero(store.get(stage.key).arrays["rows"] == row["image"])[0])
    gradients = [_gradient(answers, place, plan, store) for answers in (stage.of_surrogate, stage.of_target)]
    if gradients[0] is None or gradients[1] is None:
        return None
    task = store.get(stage.task.key)
    on_it = attacked[(attacked["task"] == row["task"]) & (attacked["image"] == row["image"])]
    fooling = on_it.loc[what_happened(on_it).target_wrong, "epsilon"]
    facts = {name: row[name] for name in ("task", "surrogate", "target")} | {
        "image": int(row["image"]),
        "label": task.info["class_names"][int(on_it["label"].iloc[0])],
        "alignment": float(row[ALIGNMENT]),
        "fooled_at": float(fooling.min()) if len(fooling) else None,
    }
    return GradientPicture(facts, clean_pixels(task, int(row["image"])), gradients[0], gradients[1])


def _is(piece: Piece, names: dict[str, Any]) -> bool:
    return all(piece.names[name] == value for name, value in names.items())


def _gradient(answers: Answers, place: int, plan: Plan, store: Store) -> NDArray[np.float32] | None:
    """One image's, H × W × 3, over its largest entry; None where no question was about gradients."""
    for portions in answers.values():
        for portion in portions:
            asked = plan.stages[portion.key]
            if isinstance(asked, Ask) and asked.first <= place < asked.last:
                arrays = store.get(portion.key).arrays
                if _GRADIENT in arrays:
                    found = arrays[_GRADIENT][place - asked.first].astype(np.float32)
                    largest = np.abs(found).max()
                    return np.ascontiguousarray((found / largest if largest > 0 else found).transpose(1, 2, 0))
    return None


def gradients_to_bytes(pictures: list[GradientPicture]) -> bytes:
    """As one safetensors file, in 8 and 16 bits; the facts travel in its header."""
    arrays: dict[str, NDArray[Any]] = {}
    for position, picture in enumerate(pictures):
        arrays[f"{position}/clean"] = np.rint(picture.clean * 255).astype(np.uint8)
        arrays[f"{position}/surrogate"] = picture.surrogate.astype(np.float16)
        arrays[f"{position}/target"] = picture.target.astype(np.float16)
    return save_safetensors(arrays, {"facts": json.dumps([picture.facts for picture in pictures])})


def read_gradients(path: Path) -> list[GradientPicture]:
    """What :func:`gradients_to_bytes` wrote."""
    with safe_open(path, "numpy") as file:
        facts = json.loads(file.metadata()["facts"])
        return [
            GradientPicture(
                fact,
                file.get_tensor(f"{position}/clean").astype(np.float32) / 255,
                file.get_tensor(f"{position}/surrogate").astype(np.float32),
                file.get_tensor(f"{position}/target").astype(np.float32),
            )
            for position, fact in enumerate(facts)
        ]
