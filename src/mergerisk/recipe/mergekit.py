"""mergekit's configurations as recipes, where both mean the same.

What mergekit's settings mean was read from mergekit 0.1.5. Where a method here differs in details,
``docs/recipes.md`` says how.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_UNSUPPORTED = {
    "slices": "a recipe merges whole models, not layers of several depths",
    "modules": "a recipe merges one model, not several modules",
    "tokenizer_source": "tokenizers are not merged here; remove it",
    "tokenizer": "tokenizers are not merged here; remove it",
    "chat_template": "tokenizers are not merged here; remove it",
}
_FIELDS = ("merge_method", "base_model", "models", "parameters", "dtype", "out_dtype")
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
    """

    base: str | None
    models: Mapping[str, Mapping[str, Any]]
    shared: Mapping[str, Any]

    def each(self, name: str, default: float | None = None) -> list[float]:
        """A number per model: its own, the shared one, or the default."""
        given = [own.get(name, self.shared.get(name, default)) for own in self.models.values()]
        for model, value in zip(self.models, given, strict=True):
            if value is None:
                raise UserError(f"{name} is missing for model {model!r}")
        return [_number(name, value) for value in given]

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
        return _number(name, value)

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
    return recipe | ({"dtype": str(dtype).removeprefix("torch.")} if dtype else {})


def _read(content: Mapping[str, Any]) -> _Config:
    base, models, shared = content.get("base_model"), content.get("models"), content.get("parameters") or {}
    if not isinstance(models, list) or not models:
        raise UserError("models: must be a list of models")
    if base is not None and not isinstance(base, str):
        raise UserError("base_model: must be a path or org/name")
    if base is not None and "+" in base and not Path(base).expanduser().exists():
        whole, _, adapter = base.partition("+")
        raise UserError(
            f"base_model: {base!r} has an adapter, which has to be part of the base here: merge it into {whole} "
            f"with PEFT (PeftModel.from_pretrained({whole!r}'s model, {adapter!r}).merge_and_unload()), save the "
            "result with save_pretrained, and give its folder"
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
        if base is not None and base not in found:
            found = {base: {}} | found
        if content["merge_method"] == "slerp" and base is not None:
            found = {base: found[base]} | found
    elif base is None:
        raise UserError(f"base_model: mergekit's {content['merge_method']} needs one")
    else:
        found.pop(base, None)
    return _Config(base, found, shared)


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


def _dropped(config: _Config) -> dict[str, Any]:
    """DARE's share of dropped entries."""
    density = config.same("density", "DARE drops the same share of every task vector", 1.0)
    if density < 1 and not config.flag("rescale", True):
        raise UserError("rescale: false has no counterpart here: DARE rescales what it keeps")
    return {"drop_rate": max(0.0, 1.0 - density), "rescale": "l1_norm"}


def _number(name: str, value: object) -> float:
    if not isinstance(value, bool | list | dict):
        try:
            return float(str(value))  # YAML reads 1e-3 as text
        except ValueError:
            pass
    raise UserError(f"{name}: {_not_plain(value)}must be a number")


def _not_plain(value: object) -> str:
    """Why a list or a mapping is no value here."""
    if isinstance(value, list | dict):
        return "gradients over layers and filters by name have no counterpart here; "
    return ""
