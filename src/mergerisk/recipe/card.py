"""The model card of a merge: what went into it, how, and what a reader has to know before using it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import yaml

from mergerisk._version import __version__
from mergerisk.merging.batch_norm import is_statistic
from mergerisk.merging.catalogue import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from mergerisk.recipe.ingredients import Ingredients
    from mergerisk.recipe.schema import Recipe

_SHOWN = 12
"""Names in a list before it is cut short."""


def describe_merge(recipe: Recipe, ingredients: Ingredients, digests: Mapping[Path, str]) -> str:
    """The card, in Markdown with a YAML head.

    Args:
        recipe: with all its hyper-parameters.
        ingredients: what was merged.
        digests: SHA-256 of the ingredients' files, where it was computed.
    """
    head = {
        "base_model": list(dict.fromkeys(ingredient.name for _, ingredient in ingredients.named)),
        "library_name": "transformers",
        "tags": ["mergerisk", "merge"],
    }
    entry = METHODS.check(recipe.method)
    source = f" ({entry.paper})" if entry.paper else ""
    chosen = recipe.parameters | {"seed": recipe.seed, "dtype": recipe.dtype or "the base's"}
    chosen |= {"layers": "some differ; see recipe.yaml"} if recipe.layers else {}
    settings = "".join(f"- {name}: {_plain(value)}\n" for name, value in chosen.items())
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n",
        f"# A merged model\n\nMade with mergerisk {__version__}; `recipe.yaml` says how to make it again.\n",
        f"## Method\n\n`{entry.name}`: {entry.summary}{source}.\n\n{settings}",
        f"## Ingredients\n\n{_table(ingredients, digests)}",
        *_remarks(ingredients),
    ]
    return "\n".join(sections)


def _table(ingredients: Ingredients, digests: Mapping[Path, str]) -> str:
    rows = ["| | model | file | SHA-256 or commit |", "|---|---|---|---|"]
    for name, ingredient in ingredients.named:
        for file in ingredient.files:
            identity = ingredient.commit or digests.get(file, "–")
            cells = (name, ingredient.name, file.name, identity)
            rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _remarks(ingredients: Ingredients) -> Iterable[str]:
    """What is not as a reader would expect."""
    if ingredients.kept:
        kept = _listed(ingredients.kept)
        yield f"## Not in the experts\n\nKept from the base as they are, since no expert has them: {kept}.\n"
    if ingredients.copied:
        yield f"## Not merged\n\nTaken from the base as they are: {_listed(ingredients.copied)}.\n"
    remarks: defaultdict[str, list[str]] = defaultdict(list)
    for name, expert in ingredients.experts.items():
        for remark in expert.remarks or ("Configuration and preprocessing compared, and the same as the base's",):
            remarks[remark].append(name)
        if expert.left_out:
            remarks[f"Left out, since the base has none: {_listed(expert.left_out)}"].append(name)
        if expert.prefix:
            remarks[f"Of several copies of the weights, the one under `{expert.prefix}`"].append(name)
        if expert.alignment.theirs:
            remarks[f"Names matched without their prefix `{expert.alignment.theirs}`"].append(name)
        if expert.alignment.ours:
            remarks[f"Names matched without the base's prefix `{expert.alignment.ours}`"].append(name)
    for remark, names in remarks.items():
        yield f"{remark}; of {', '.join(names)}.\n"
    origins = dict.fromkeys(ingredient.origin for _, ingredient in ingredients.named)
    yield from (f"{origin[0].upper()}{origin[1:]}.\n" for origin in origins if origin)
    if any(is_statistic(name, ingredients.base.tensors) for name in ingredients.merged):
        yield (
            "## Before use\n\nThe model has BatchNorm layers. Their running statistics are the mean of the "
            "experts', which fits no merge of weights: estimate them anew on unlabelled images.\n"
        )
    if not (ingredients.base.path / "config.json").is_file():
        yield "The base came without `config.json`; transformers needs one beside the weights.\n"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _plain(value: object) -> str:
    if value is None:
        return "the method's usual value"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
