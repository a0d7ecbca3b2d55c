"""From a recipe to a folder that transformers loads, one tensor at a time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mergerisk.disk import new_folder, write_flushed
from mergerisk.errors import UserError
from mergerisk.merging import StateMerging
from mergerisk.merging.emr import Emr, task_state
from mergerisk.models.core.stated import StatedPreprocessing
from mergerisk.models.on_disk.copies import with_copy
from mergerisk.models.on_disk.filenames import CONFIG, PREPROCESSOR, PROCESSOR, WEIGHTS, read_json
from mergerisk.recipe.card import describe_merge
from mergerisk.recipe.forms import stated_in
from mergerisk.recipe.gathering import gather
from mergerisk.recipe.ingredients import Part
from mergerisk.recipe.layers import methods_by_layer, with_layers
from mergerisk.recipe.writing import SafetensorsWriter, check_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mergerisk.merging import MergingMethod
    from mergerisk.models.on_disk.checkpoints import TensorSpec
    from mergerisk.recipe.ingredients import Ingredient, Ingredients
    from mergerisk.recipe.schema import Recipe


def merge_checkpoints(
    recipe: Recipe,
    out: str | Path,
    *,
    force: bool = False,
    offline: bool = False,
    checksums: bool = False,
    listener: Callable[[int, int], None] = lambda *_: None,
    remark: Callable[[str], None] = lambda _: None,
) -> Path:
    """Merge a recipe's checkpoints into a folder that ``from_pretrained`` loads.

    Tensors are read, merged and written one after another. Whatever goes wrong, ``out`` is as it was before.

    Args:
        recipe: what to merge, and how.
        out: the folder to make; absent or empty.
        force: replace what an earlier merge left there.
        offline: take models of the hub from the cache only.
        checksums: name the SHA-256 of every local ingredient in the model card. It takes longer than most merges.
        listener: told how many bytes of how many have been read and written.
        remark: told, before anything is merged, what is not as one would expect; the card says it too.

    Returns:
        The folder: ``model.safetensors``, configurations, ``README.md`` (a model card), ``recipe.yaml``. A method
        with an encoder per task writes one folder per task within it.

    Raises:
        UserError: the recipe cannot be carried out; found before anything is merged, except for NaN and infinity
            in a checkpoint, an overflow of the result's dtype, and a disk that fills up.
    """
    out = Path(out)
    method = _data_free(recipe)
    check_output(out, force=force)
    ingredients = gather(recipe, offline=offline)
    check_output(out, force=force, ingredients=[ingredient.path for _, ingredient in ingredients.named])
    if ingredients.kept:
        remark(f"kept from the base, since no expert has them: {', '.join(ingredients.kept)}")
    specs = _output_specs(recipe, ingredients)
    recipe = with_layers(recipe, ingredients.base.tensors)
    methods = methods_by_layer(recipe, ingredients.merged, specs)
    size = sum(spec.nbytes for spec in specs.values()) * (len(recipe.experts) if method.encoder_per_task else 1)
    meter = _Meter(size + ingredients.bytes_to_read, listener)
    named = [ingredient for _, ingredient in ingredients.named if checksums and ingredient.commit is None]
    local = [file for ingredient in named for file in ingredient.files]
    with new_folder(out, size) as folder, _digesting(local) as digests:
        for task, tensors in _models(recipe, methods, ingredients, meter):
            inside = folder / task
            inside.mkdir(exist_ok=True)
            with SafetensorsWriter(inside / WEIGHTS, specs, ingredients.base.tensors.aliases) as writer:
                for name, tensor in tensors:
                    writer.write(name, _rounded(tensor, name, specs[name].dtype, method))
                    meter.add(specs[name].nbytes)
            _copy_configs(ingredients.base.path, inside, recipe)
        resolved = _resolved(recipe, method, ingredients, out)
        write_flushed(folder / "recipe.yaml", resolved.to_yaml())
        write_flushed(folder / "README.md", describe_merge(resolved, ingredients, digests()))
    return out


def _data_free(recipe: Recipe) -> MergingMethod:
    """The method, seen to take as many experts as there are.

    Raises:
        UserError: it reads images, needs more than tensors, or takes another number of experts.
    """
    method = recipe.create_method()
    if not isinstance(method, Emr | StateMerging):
        raise UserError(f"method: {recipe.method} needs more than the checkpoints' tensors; run it in a study")
    method.check_count(len(recipe.experts))
    return method


def _models(
    recipe: Recipe,
    methods: Sequence[tuple[MergingMethod, Sequence[str]]],
    ingredients: Ingredients,
    meter: _Meter,
) -> Iterator[tuple[str, Iterator[tuple[str, torch.Tensor]]]]:
    """Per model of the result: its folder's name, empty if it is the only one, and its tensors."""
    working = None if recipe.dtype is None else torch.float64 if recipe.dtype == "float64" else torch.float32
    stored = ingredients.base.tensors
    copied = Part(stored, {name: name for name in ingredients.copied})

    def parts(names: Sequence[str]) -> tuple[Part, dict[str, Part]]:
        return Part(stored, {name: name for name in names}, working), {
            task: Part(expert.tensors, {name: expert.alignment(name) for name in names}, working, meter.add)
            for task, expert in ingredients.experts.items()
        }

    if isinstance(methods[0][0], Emr):
        base, experts = parts(ingredients.merged)
        made = methods[0][0].merge_tasks(base, experts)
        for task in experts:
            yield task, chain(copied.items(), task_state(base, made, task).items())
        return

    def stream(method: StateMerging, names: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
        base, experts = parts(names)
        return method.stream(base, list(experts.values()), seed=recipe.seed)

    streams = (stream(method, names) for method, names in methods if isinstance(method, StateMerging))
    yield "", chain(copied.items(), chain.from_iterable(streams))


def _rounded(tensor: torch.Tensor, name: str, dtype: torch.dtype, method: MergingMethod) -> torch.Tensor:
    """The tensor as it is written.

    Raises:
        UserError: it does not fit into its dtype.
    """
    rounded = tensor.to(dtype)
    if not bool(torch.isfinite(rounded).all()):
        match dtype:
            case torch.float16:
                remedy = "set dtype in the recipe to bfloat16 or float32"
            case torch.float64:
                remedy = f"lower {_factor(method)}"
            case _:
                remedy = f"lower {_factor(method)}, or set dtype in the recipe to float64"
        raise UserError(f"merged tensor {name!r} exceeds the range of {dtype}; {remedy}")
    return rounded


def _factor(method: MergingMethod) -> str:
    """What a method's result grows with."""
    factors = [name for name in ("scaling", "coefficients") if hasattr(method, name)]
    return f"`{factors[0]}`" if factors else "the ingredients' weights"


def _output_specs(recipe: Recipe, ingredients: Ingredients) -> dict[str, TensorSpec]:
    base = ingredients.base.tensors
    return dict(Part(base, {name: name for name in base if name not in base.aliases}, _dtype(recipe)).specs)


def _dtype(recipe: Recipe) -> torch.dtype | None:
    return None if recipe.dtype is None else getattr(torch, recipe.dtype)


def _copy_configs(base: Path, folder: Path, recipe: Recipe) -> None:
    """What transformers needs beside the weights: the merge has the base's architecture."""
    dtype = recipe.dtype
    found = {name: read_json(base / name) for name in _CONFIGS if (base / name).is_file()}
    if dtype is not None and CONFIG in found:
        found[CONFIG] = _with_dtype(found[CONFIG], dtype)
    if isinstance(recipe.preprocessing, StatedPreprocessing):
        processor = found.get(PROCESSOR, {})
        if isinstance(processor.get("image_processor"), dict):  # which comes before the other file
            inside = stated_in(processor["image_processor"], recipe.preprocessing)
            found[PROCESSOR] = processor | {"image_processor": inside}
        if PREPROCESSOR in found or "image_processor" not in processor:
            found[PREPROCESSOR] = stated_in(found.get(PREPROCESSOR, {}), recipe.preprocessing)
    for name, content in found.items():
        as_it_was = name != CONFIG and (base / name).is_file() and content == read_json(base / name)
        text = f"{json.dumps(content, indent=2, ensure_ascii=False)}\n"
        write_flushed(folder / name, (base / name).read_text("utf-8") if as_it_was else text)


_CONFIGS = (CONFIG, PREPROCESSOR, PROCESSOR)


def _with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A configuration, and those nested in it, with another dtype wherever they have one."""
    return {
        key: dtype
        if key in {"dtype", "torch_dtype"} and value is not None
        else _with_dtype(value, dtype)
        if isinstance(value, dict)
        else value
        for key, value in config.items()
    }


@contextmanager
def _digesting(files: Iterable[Path]) -> Iterator[Callable[[], dict[Path, str]]]:
    """SHA-256 of files, computed beside a merge, since it takes as long as most merges.

    Raises:
        UserError: a file cannot be read.
    """

    def digest(file: Path) -> str:
        try:
            with file.open("rb") as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror}") from error

    pool = ThreadPoolExecutor(2)
    digests = {file: pool.submit(digest, file) for file in files}
    try:
        yield lambda: {file: found.result() for file, found in digests.items()}
    finally:
        pool.shutdown(cancel_futures=True)


def _resolved(recipe: Recipe, method: MergingMethod, ingredients: Ingredients, out: Path) -> Recipe:
    """The recipe that makes the same again, read from ``out``: every default filled in, commits for revisions."""

    def place(ingredient: Ingredient) -> str:
        if ingredient.commit is not None:
            return with_copy(f"{ingredient.name}@{ingredient.commit}", ingredient.prefix)
        return with_copy(os.path.relpath(ingredient.path, os.path.realpath(out)), ingredient.prefix)

    return recipe.model_copy(
        update={
            "base": place(ingredients.base),
            "experts": {name: place(expert) for name, expert in ingredients.experts.items()},
            "parameters": dataclasses.asdict(method),  # type: ignore[call-overload]
        }
    )


class _Meter:
    """Counts bytes for a listener."""

    def __init__(self, total: int, listener: Callable[[int, int], None]) -> None:
        self._total = total
        self._done = 0
        self._listener = listener

    def add(self, count: int) -> None:
        self._done += count
        self._listener(self._done, self._total)
