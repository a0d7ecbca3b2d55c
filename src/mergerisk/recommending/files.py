"""Recipes as files: studies that ``mergerisk run`` takes, and, where no image is read and every ingredient is a
file, recipes that ``mergerisk merge`` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.merging.catalogue import METHODS
from mergerisk.recipe import Recipe as MergeRecipe
from mergerisk.recommending.composing import compose, to_measure
from mergerisk.study.fields.surrogates import OWN_MERGE
from mergerisk.study.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mergerisk.recommending.recipe import Recipe
    from mergerisk.recommending.scoring import Tried
    from mergerisk.study.schema import Study


def write_recipes(
    folder: Path, study: Study, best: Sequence[Tried], labels: Mapping[Recipe, str]
) -> dict[str, str]:
    """Write every recipe that was measured; returns its study's file by label.

    Args:
        folder: to write into.
        study: that was searched in, resolved.
        best: the recipes.
        labels: recipe → what results call it.
    """
    for old in folder.glob("recipe-*.yaml"):
        old.unlink()
    found = {}
    for number, one in enumerate(best, 1):
        label = labels[one.recipe]
        about = f"# {one.recipe}\n# Chosen by mergerisk recommend from the study {study.name!r}.\n"
        made = alone(study, one.recipe)
        found[label] = f"recipe-{number}.yaml"
        name = f"{study.name}-recipe-{number}"
        content = made.model_copy(update={"name": name, "description": f"{one.recipe}."}).to_yaml()
        write_bytes(folder / found[label], f"{about}{content}".encode())
        merge = checkpoints(study, one.recipe)
        if merge is not None:
            note = (
                "# Its merge alone: what stands around it is in the study's file.\n" if one.recipe.defenses else ""
            )
            text = f"{about}{note}{merge.to_yaml()}"
            write_bytes(folder / f"recipe-{number}.merge.yaml", text.encode())
    return found


def alone(study: Study, recipe: Recipe) -> Study:
    """A recipe as a study of its own, with the attackers that it was measured by."""
    bare = to_measure(study)
    kept = tuple(spec for spec in bare.surrogates if _stands_alone(spec.references[0]))
    return compose(
        bare.model_copy(update={"merging": (), "targets": (), "defenses": (), "surrogates": kept}), [recipe]
    )[0]


def _stands_alone(reference: tuple[str, str | None]) -> bool:
    """Whether an attacker holds nothing that belongs to another merge."""
    kind, name = reference
    if kind == OWN_MERGE:
        return name is None or name in METHODS
    return kind not in {"merged", "aware", "adaptive"}


def checkpoints(study: Study, recipe: Recipe) -> MergeRecipe | None:
    """The merge of a recipe as a recipe of checkpoints; None where it reads images, gives each task an encoder of
    its own, or an ingredient is no file."""
    method = METHODS.load(recipe.merge.name.partition("+")[0])
    ingredients = {**study.experts.files, **study.ingredients}
    if "+" in recipe.merge.name or method.needs_calibration or method.encoder_per_task:
        return None
    if any(name not in ingredients for name in study.merged_names):
        return None
    return MergeRecipe(
        base=study.backbone,
        experts={name: ingredients[name] for name in study.merged_names},
        method=recipe.merge.name,
        parameters=recipe.merge.parameters,
        preprocessing=study.preprocessing,
        seed=study.seeds[0],
    )
