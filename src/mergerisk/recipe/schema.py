"""The recipe file: which checkpoints to merge, and how."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path, PureWindowsPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mergerisk.errors import Faults, UserError, did_you_mean, located
from mergerisk.given_settings import with_settings
from mergerisk.models.core.stated import StatedOrBase
from mergerisk.models.on_disk.copies import split_copy, with_copy
from mergerisk.models.sources.hub import is_path
from mergerisk.plain_data import check_plain
from mergerisk.recipe.writing import WRITTEN
from mergerisk.validation import findings
from mergerisk.yaml_files import read_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.merging import MergingMethod

_FOLDER_NAME = re.compile(r"\w[\w .@+-]*")

Pattern = Annotated[str, Field(min_length=1)]
"""A tensor's name, in which ``*`` stands for anything."""


class Recipe(BaseModel):
    """Everything that decides a merged checkpoint.

    In a file, the method's hyper-parameters stand beside the other fields, and experts may be a list.

    Attributes:
        base: the pretrained checkpoint: a folder, a ``.safetensors`` file, or ``org/name[@revision]`` on the hub.
            Of several copies of the weights, ``#PREFIX`` behind it chooses one; so it does for experts.
        experts: name → fine-tuned checkpoint, or a folder with a LoRA adapter of the base.
        method: a merging method that reads no data.
        parameters: its hyper-parameters.
        preprocessing: mean, std and resampling of the pixels that the result is given, where ingredients differ;
            or ``base``: the base's.
        dtype: of the result's floating tensors; None for the base's. If it is given, ingredients may differ in
            theirs: all are merged in float32 (float64 for a result in float64) and rounded once.
        include: patterns of the base's tensors to merge.
        exclude: patterns of tensors to leave out again. What is not merged is the base's.
        seed: of a method that draws at random.
        layers: pattern of tensor names → hyper-parameters that differ from ``parameters`` there; the first pattern
            that matches a tensor decides.
        mergekit: the configuration the recipe was translated from, if it says something else of every layer: how
            many there are is known when the base is opened.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Annotated[str, Field(min_length=1)]
    experts: Annotated[dict[str, str], Field(min_length=1)]
    method: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    preprocessing: StatedOrBase = None
    dtype: Literal["float64", "float32", "float16", "bfloat16"] | None = None
    include: tuple[Pattern, ...] = ("*",)
    exclude: tuple[Pattern, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    layers: dict[Pattern, dict[str, Any]] = Field(default_factory=dict)
    mergekit: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _beside(cls, content: Any) -> Any:
        """Collect the hyper-parameters from between the other fields."""
        if not isinstance(content, dict) or "parameters" in content or not isinstance(content.get("method"), str):
            return content
        own = {key: value for key, value in content.items() if key in cls.model_fields}
        return own | {"parameters": {key: value for key, value in content.items() if key not in own}}

    @field_validator("experts", mode="before")
    @classmethod
    def _named(cls, experts: object) -> object:
        """Give the entries of a list their files' names."""
        if not isinstance(experts, list):
            return experts
        named: dict[str, object] = {}
        for position, spec in enumerate(experts, start=1):
            stem = _folder_name(str(spec))
            name, number = stem, position
            while not name or name in named or name in WRITTEN:
                name, number = f"{stem or 'expert'}-{number}", number + 1
            named[name] = spec
        return named

    @field_validator("experts")
    @classmethod
    def _usable(cls, experts: dict[str, str]) -> dict[str, str]:
        for name, spec in experts.items():
            if not _FOLDER_NAME.fullmatch(name):
                raise ValueError(f"expert {name!r}: choose a name that can be a folder's")
            if name in WRITTEN:
                raise ValueError(f"expert {name!r}: a merge writes a file of that name; choose another")
            if not spec:
                raise ValueError(f"expert {name!r}: give a folder, a file or org/name")
        return experts

    @field_validator("include", "exclude", mode="before")
    @classmethod
    def _one_pattern(cls, patterns: object) -> object:
        return [patterns] if isinstance(patterns, str) else patterns

    def create_method(self, changes: Mapping[str, Any] = MappingProxyType({})) -> MergingMethod:
        """The method with its hyper-parameters, some of them changed.

        Raises:
            UserError: no such method, one that reads images, or a hyper-parameter that is wrong.
        """
        from mergerisk.merging import create, split_name
        from mergerisk.merging.catalogue import METHODS

        name, correction = split_name(self.method)
        if correction is not None or METHODS.load(name).needs_calibration:
            raise UserError(f"method: {self.method} reads images; run it in a study")
        known = {field.name for field in dataclasses.fields(METHODS.load(name))}  # type: ignore[arg-type]
        parameters = {**self.parameters, **changes}
        possible = known | Recipe.model_fields.keys() - {"parameters"}
        unknown = [
            f"{key}: neither a field of a recipe nor a hyper-parameter of {name}{did_you_mean(key, possible)}"
            for key in parameters
            if key not in known
        ]
        if unknown:
            raise UserError(*unknown)
        return create(name, **parameters)

    def to_yaml(self) -> str:
        """The recipe as a file that :func:`load_recipe` reads back."""
        unused = {field for field in ("layers", "mergekit") if not getattr(self, field)}
        content = self.model_dump(mode="json", exclude={"parameters", *unused}, exclude_none=True)
        return yaml.safe_dump(content | self.parameters, sort_keys=False, allow_unicode=True, width=100)


def load_recipe(path: str | Path, *, settings: Sequence[str] = ()) -> Recipe:
    """A recipe from a YAML file, this package's or mergekit's.

    Args:
        path: the file; paths in it are relative to its folder.
        settings: values instead of the file's; see :func:`mergerisk.given_settings.with_settings`.

    Raises:
        UserError: no such file, not YAML, or a field that is wrong; the message names it.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: a folder; give a recipe's YAML file")
    content = with_settings(read_mapping(path, "a recipe"), settings)
    try:
        if "merge_method" in content:
            from mergerisk.recipe.mergekit import translate

            content = translate(content)
        return parse_recipe(content, path.parent)
    except UserError as error:
        raise UserError(*(f"{path}: {fault}" for fault in error.faults)) from error


def parse_recipe(content: dict[str, Any], folder: Path | None = None) -> Recipe:
    """A recipe from a mapping.

    Args:
        content: the fields of :class:`Recipe`, hyper-parameters beside them.
        folder: what relative paths are relative to; the working directory by default.

    Raises:
        UserError: a field is wrong; the message names it.
    """
    check_plain(content)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(*findings(error, Recipe.model_fields)) from error
    recipe.create_method()  # what is wrong here is wrong in every layer
    faults = Faults()
    for pattern, changes in recipe.layers.items():
        with faults.collecting(), located(f"layers: {pattern}"):
            recipe.create_method(changes)
    faults.settle()
    folder = folder or Path()
    experts = {name: _anchored(spec, folder) for name, spec in recipe.experts.items()}
    return recipe.model_copy(update={"base": _anchored(recipe.base, folder), "experts": experts})


def _folder_name(spec: str) -> str:
    """What an expert that was given no name is called: as its file is, with what no name may hold left out."""
    source = split_copy(spec)[0]
    found = source if is_path(source) or Path(source).exists() else source.partition("@")[0]
    last = (PureWindowsPath(found) if "\\" in found else Path(found)).name.removesuffix(".safetensors")
    return re.sub(r"[^\w.@+-]+", "-", last).strip("-.@+ ")


def _anchored(spec: str, folder: Path) -> str:
    """A path made absolute; a model on the hub as it is."""
    if (folder / Path(spec).expanduser()).exists():
        source, prefix = spec, ""
    else:
        source, prefix = split_copy(spec)
    path = folder / Path(source).expanduser()
    if path.exists() or is_path(source):
        return with_copy(os.path.normpath(path.absolute()), prefix)
    return spec
