"""mergekit's configurations as recipes, where both mean the same.

What mergekit's settings mean was read from mergekit 0.1.5. Where a method here differs in details,
``docs/recipes.md`` says how.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, did_you_mean, located

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_UNSUPPORTED = {
    "modules": "a recipe merges one model, not several modules",
    "tokenizer_source": "tokenizers are not merged here; remove it",
    "tokenizer": "tokenizers are not merged here; remove it",
    "chat_template": "tokenizers are not merged here; remove it",
}
_FIELDS = ("merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype", "name")
_PARAMETERS = (
    "weight",
    "density",
    "gamma",
    "epsilon",
    "normalize",
    "rescale",
    "lambda",
    "t",
    "filter_wise",
    "int8_mask",
)


@dataclass(frozen=True)
class _Config:
    """A configuration's models and settings, none of them evaluated yet.

    Attributes:
        base: ``base_model``.
        models: the other models → their own parameters.
        shared: parameters of the whole merge.
        depth: where lists of numbers are read, from 0, the first layer of a slice, to 1, its last.
    """

    base: str | None
    models: Mapping[str, Mapping[str, Any]]
    shared: Mapping[str, Any]
    depth: float

    def each(self, name: str, default: float | None = None) -> list[float]:
        """A number per model: its own, the shared one, or the default."""
        given = [own.get(name, self.shared.get(name, default)) for own in self.models.values()]
        for model, value in zip(self.models, given, strict=True):
            if value is None:
                raise UserError(f"{name} is missing for model {model!r}")
        return [_number(name, value, self.depth) for value in given]

    def same(self, name: str, why: str, default: float | None = None) -> float:
        """The number that all models share."""
        values = set(self.each(name, default))
        if len(values) > 1:
            raise UserError(f"{name} differs between models, which has no counterpart here: {why}")
        return values.pop()

    def number(self, name: str, default: float | None = None) -> float:
        value = self.shared.get(name, default)
        if value is None:
            raise UserError(f"parameters.{name} is missing")
        return _number(name, value, self.depth)

    def flag(self, name: str, default: bool) -> bool:
        value = self.shared.get(name, default)
        if not isinstance(value, bool):
            raise UserError(f"{name}: {_not_plain(value)}must be true or false")
        return value


def translate(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's fields from a mergekit configuration.

    Raises:
        UserError: it asks for something that has no counterpart here; the message names it.
    """
    for key in content:
        if key in _UNSUPPORTED:
            raise UserError(f"mergekit's {key!r} has no counterpart here: {_UNSUPPORTED[key]}")
        if key not in _FIELDS:
            raise UserError(f"{key}: unknown field of a mergekit configuration{did_you_mean(key, _FIELDS)}")
    method = str(content["merge_method"])
    if method not in _METHODS:
        raise UserError(
            f"merge_method: mergekit's {method!r} has no counterpart here{did_you_mean(method, _METHODS)}"
        )
    config = _read(content)
    name, parameters = _METHODS[method](config)
    experts = [_without_base(model, config.base) for model in config.models]
    recipe = {"base": config.base or experts[0], "experts": experts, "method": name, "parameters": parameters}
    dtype = content.get("out_dtype") or content.get("dtype")
    return (
        recipe
        | ({"dtype": str(dtype).removeprefix("torch.")} if dtype else {})
        | ({"mergekit": dict(content)} if _differs_by_layer(content) else {})
    )


def settings(content: Mapping[str, Any], layer: int, count: int) -> dict[str, Any]:
    """The method's hyper-parameters in one of ``count`` layers, from a configuration that :func:`translate` took.

    Raises:
        UserError: the numbers it has there have no counterpart here.
    """
    with located(f"layer {layer}"):
        return _METHODS[str(content["merge_method"])](_read(content, layer, count))[1]


def check_slices(content: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """Slices must be all layers of the model.

    Args:
        content: a configuration.
        counts: what the names of layers begin with → how many there are.

    Raises:
        UserError: they are not, or the model has layers of several kinds.
    """
    if "slices" not in content:
        return
    *_, stop = _slices(content)[-1]
    if len(counts) != 1:
        stacks = ", ".join(counts) or "none"
        raise UserError(f"slices: the base has not one stack of layers ({stacks}); write models instead of slices")
    (count,) = counts.values()
    if stop != count:
        raise UserError(f"slices: they end at layer {stop}, the base has {count} layers; {_WHOLE}")


_WHOLE = "a recipe merges whole models, so let the slices be all layers in their order"


def _slices(content: Mapping[str, Any]) -> list[tuple[list[dict[str, Any]], Mapping[str, Any], int, int]]:
    """Per slice the entries of ``models`` that it amounts to, its parameters, and its layers: from, to.

    Raises:
        UserError: a slice is malformed, or merges other models or layers than its own.
    """
    slices = content["slices"]
    if not isinstance(slices, list) or not slices:
        raise UserError("slices: must be a list of slices")
    found: list[tuple[list[dict[str, Any]], Mapping[str, Any], int, int]] = []
    for position, piece in enumerate(slices):
        where = f"slices[{position}]"
        if not isinstance(piece, dict) or not isinstance(piece.get("sources"), list) or not piece["sources"]:
            raise UserError(f"{where}: must have 'sources', a list of models with a layer_range each")
        if extra := piece.keys() - {"sources", "parameters"}:
            raise UserError(f"{where}.{min(extra)}: has no counterpart here; remove it")
        entries, ranges = [], []
        for source in piece["sources"]:
            match source:
                case {"model": str(), "layer_range": [int() as start, int() as stop]}:
                    ranges.append((start, stop))
                    entries.append({key: value for key, value in source.items() if key != "layer_range"})
                case _:
                    raise UserError(f"{where}: a source must have 'model' and 'layer_range', as in [0, 12]")
        last = found[-1][3] if found else 0
        start, stop = ranges[0]
        if set(ranges) != {(start, stop)} or start != last or stop <= start:
            raise UserError(f"{where}: layers {', '.join(map(str, ranges))} after {last}; {_WHOLE}")
        if found and [entry["model"] for entry in entries] != [entry["model"] for entry in found[0][0]]:
            raise UserError(f"{where}: other models than in slices[0]; {_WHOLE}")
        found.append((entries, piece.get("parameters") or {}, start, stop))
    return found


def _differs_by_layer(content: Mapping[str, Any]) -> bool:
    """Whether layers have numbers of their own, or have to be counted."""
    given = [content.get("parameters"), *(entry.get("parameters") for entry in content.get("models") or ())]
    return "slices" in content or any(isinstance(value, list) for own in given if own for value in own.values())


def _read(content: Mapping[str, Any], layer: int | None = None, count: int = 0) -> _Config:
    """What a configuration says of one of ``count`` layers, or of the tensors outside of them.

    mergekit reads lists of numbers there at the depth of the first layer, and those of a single layer at the last.
    """
    base, models, shared = content.get("base_model"), content.get("models"), content.get("parameters") or {}
    depth = 0.0
    if "slices" in content:
        if models is not None:
            raise UserError("models, slices: give one of them")
        slices = _slices(content)
        chosen = slices[0] if layer is None else next((s for s in slices if s[2] <= layer < s[3]), slices[-1])
        models, own, start, stop = chosen
        if not all(isinstance(given, dict) for given in (shared, own)):
            raise UserError("parameters: must be a mapping")
        shared = {**shared, **own}
    else:
        start, stop = 0, count
    if layer is not None:
        depth = (layer - start) / (stop - start - 1) if stop - start > 1 else 1.0
    if not isinstance(models, list) or not models:
        raise UserError("models: must be a list of models")
    if base is not None and not isinstance(base, str):
        raise UserError("base_model: must be a path or org/name")
    if base is not None and "+" in base and not Path(base).expanduser().exists():
        whole, _, adapter = base.partition("+")
        raise UserError(
            f"base_model: {base!r} has an adapter, and a base is read without: merge it into {whole} with PEFT's "
            f"PeftModel.from_pretrained(model, {adapter!r}).merge_and_unload(), save the result with "
            "save_pretrained, and give its folder"
        )
    found: dict[str, Any] = {}
    for position, entry in enumerate(models):
        if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
            raise UserError(
                f"models[{position}]: must have 'model', a path or org/name, and may have 'parameters'"
            )
        if extra := entry.keys() - {"model", "parameters"}:
            raise UserError(f"models[{position}].{min(extra)}: unknown field")
        if entry["model"] in found:
            raise UserError(f"models[{position}]: {entry['model']!r} is listed twice; list it once")
        found[entry["model"]] = entry.get("parameters") or {}
    for given in (shared, *found.values()):
        if not isinstance(given, dict):
            raise UserError("parameters: must be a mapping")
        for key in given:
            if key not in _PARAMETERS:
                raise UserError(f"parameters.{key}: unknown parameter{did_you_mean(key, _PARAMETERS)}")
    if content["merge_method"] in {"linear", "slerp"}:  # the base is one of those that are merged
        if base is not None and base not in found and "slices" not in content:
            found = {base: {}} | found
        if content["merge_method"] == "slerp" and base in found:
            found = {base: found[base]} | found
    elif base is None:
        raise UserError(f"base_model: mergekit's {content['merge_method']} needs one")
    else:
        found.pop(base, None)
    return _Config(base, found, shared, depth)


def _without_base(model: str, base: str | None) -> str:
    """``model+adapter`` as the adapter, which is always one of the base here."""
    whole, _, adapter = model.partition("+")
    if adapter and whole != base:
        raise UserError(f"{model!r}: an adapter of another model than base_model; merge it into its own with PEFT")
    return adapter or model


def _linear(config: _Config) -> tuple[str, dict[str, Any]]:
    weights = config.each("weight")
    total = sum(weights) if config.flag("normalize", True) else 1.0
    if total == 0:
        raise UserError("weight: the weights sum to 0, so they cannot be normalised")
    return "weight_averaging", {"coefficients": [weight / total for weight in weights]}


def _task_arithmetic(config: _Config) -> tuple[str, dict[str, Any]]:
    return "task_arithmetic", {"scaling": _scalings(config)}


def _ties(config: _Config) -> tuple[str, dict[str, Any]]:
    if config.flag("rescale", False):
        raise UserError("rescale: true has no counterpart here: TIES does not rescale trimmed task vectors")
    density = config.same("density", "TIES keeps the same share of every task vector", 1.0)
    return "ties", {"trim": "per_tensor", "density": density} | _elected(config, normalize=True)


def _dare_linear(config: _Config) -> tuple[str, dict[str, Any]]:
    weights = set(_scalings(config))
    if len(weights) > 1:
        raise UserError(
            "weight differs between models, which has no counterpart here: DARE has one scaling for all"
        )
    return "dare", _dropped(config) | {"then": "task_arithmetic", "scaling": weights.pop()}


def _dare_ties(config: _Config) -> tuple[str, dict[str, Any]]:
    trim = {"then": "ties", "trim": "per_tensor", "density": 1.0}
    return "dare", _dropped(config) | trim | _elected(config, normalize=False)


def _della_linear(config: _Config) -> tuple[str, dict[str, Any]]:
    weights = set(_scalings(config))
    if len(weights) > 1:
        raise UserError(
            "weight differs between models, which has no counterpart here: DELLA has one scaling for all"
        )
    return "della", _dropped_by_rank(config) | {"elect": False, "scaling": weights.pop()}


def _della(config: _Config) -> tuple[str, dict[str, Any]]:
    return "della", _dropped_by_rank(config) | _elected(config, normalize=True)


def _breadcrumbs(config: _Config) -> tuple[str, dict[str, Any]]:
    if config.flag("rescale", False):
        raise UserError("rescale: true has no counterpart here: breadcrumbs does not rescale what it keeps")
    density = config.same("density", "one share for all task vectors", 1.0)
    top = config.same("gamma", "one share for all task vectors", 0.01)
    weights = set(_scalings(config))
    if len(weights) > 1:
        raise UserError(
            "weight differs between models, which has no counterpart here: breadcrumbs has one scaling"
        )
    if density >= 1:
        top = 0.0  # mergekit then leaves the outliers in
    elif density + top > 1:
        raise UserError(
            "density + gamma exceeds 1, where mergekit drops fewer outliers than gamma says; lower one"
        )
    return "breadcrumbs", {
        "granularity": "tensor",
        "density": density,
        "drop_top": top,
        "scaling": weights.pop(),
    }


def _model_stock(config: _Config) -> tuple[str, dict[str, Any]]:
    if config.flag("filter_wise", False):
        raise UserError("filter_wise: true has no counterpart here: one angle per tensor")
    if len(config.models) < 2:
        raise UserError("models: mergekit's model_stock needs at least two besides base_model")
    return "model_stock", {}


def _slerp(config: _Config) -> tuple[str, dict[str, Any]]:
    if config.base is None:
        raise UserError("base_model: mergekit's slerp needs one")
    return "slerp", {"t": config.number("t")}


_METHODS: dict[str, Callable[[_Config], tuple[str, dict[str, Any]]]] = {
    "linear": _linear,
    "task_arithmetic": _task_arithmetic,
    "ties": _ties,
    "dare_linear": _dare_linear,
    "dare_ties": _dare_ties,
    "della": _della,
    "della_linear": _della_linear,
    "breadcrumbs": _breadcrumbs,
    "model_stock": _model_stock,
    "slerp": _slerp,
}


def _scalings(config: _Config) -> list[float]:
    """What each task vector is multiplied by in a sum."""
    weights = config.each("weight")
    total = sum(weights) if config.flag("normalize", False) else 1.0
    factor = config.number("lambda", 1.0) / (1.0 if abs(total) < 1e-8 else total)
    return [factor * weight for weight in weights]


def _elected(config: _Config, *, normalize: bool) -> dict[str, Any]:
    """TIES' variant and scaling; equal weights do not change an election, and cancel in the mean."""
    weight = config.same("weight", "TIES elects signs by unweighted task vectors")
    if weight == 0:
        raise UserError("weight: 0 leaves nothing to merge")
    factor = config.number("lambda", 1.0)
    if config.flag("normalize", normalize):
        return {"variant": "mean", "scaling": factor}
    return {"variant": "sum", "scaling": factor * weight}


def _dropped(config: _Config, method: str = "DARE") -> dict[str, Any]:
    """DARE's share of dropped entries, or that of a method after it."""
    density = config.same("density", f"{method} drops the same share of every task vector", 1.0)
    if density < 1 and not config.flag("rescale", True):
        raise UserError(f"rescale: false has no counterpart here: {method} rescales what it keeps")
    return {"drop_rate": max(0.0, 1.0 - density), "rescale": "l1_norm"}


def _dropped_by_rank(config: _Config) -> dict[str, Any]:
    """The same for DELLA, and how far its probabilities are apart."""
    found = _dropped(config, "DELLA")
    epsilon = config.same("epsilon", "DELLA's probabilities are as far apart in every task vector", 0.15)
    if found["drop_rate"] == 0:  # mergekit then drops nothing
        epsilon = 0.0
    return found | {"window": 2 * epsilon}


def _number(name: str, value: object, depth: float) -> float:
    """A number, or the one that a list of them has at a depth from 0 to 1, between its entries in proportion."""
    if isinstance(value, list) and value and all(type(entry) in {int, float} for entry in value):
        place = depth * (len(value) - 1)
        before = int(place)
        after, share = min(len(value) - 1, before + 1), place - before
        return float((1 - share) * value[before] + share * value[after])
    if not isinstance(value, bool | list | dict):
        try:
            return float(str(value))  # YAML reads 1e-3 as text
        except ValueError:
            pass
    raise UserError(f"{name}: {_not_plain(value)}must be a number")


def _not_plain(value: object) -> str:
    """Why a list or a mapping is no value here."""
    if isinstance(value, list | dict):
        return "filters by name, and lists of anything but numbers, have no counterpart here; "
    return ""
