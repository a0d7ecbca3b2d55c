"""LoRA adapters as PEFT saves them, read as the checkpoints they make of their base.

Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685, eq. 3) and its rank-stabilised scale (Kalajdzievski 2023,
arXiv 2312.03732).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from mergerisk.errors import UserError
from mergerisk.models.on_disk.checkpoints import Checkpoint, StoredTensors, TensorSpec, align
from mergerisk.models.on_disk.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS, PICKLES, convert_command, read_json
from mergerisk.models.sources.reading import names_of_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    _Names = Mapping[str, str | None]

_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(?:\.(?P<kind>weight|bias))?"
)

_OTHER_METHODS = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "alora_invocation_tokens": "aLoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "layer_replication": "layer replication",
    "target_parameters": "target_parameters",
    "trainable_token_indices": "trainable token indices",
}
"""Fields of the configuration that, when set, change what the factors mean."""

_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that take W apart: the factors belong to what was left of it, not to the base as published."""


@dataclass(slots=True)
class _Change:
    """What an adapter makes of one tensor of its base: a value of its own, or something that is added.

    Attributes:
        value: the adapter's tensor that replaces the base's.
        factors: of the product that is added: A and B.
        bias: the adapter's tensor that is added to a bias.
        scale: of the sum.
        transposed: whether the layer stores its weight as inputs × outputs.
    """

    value: str | None = None
    factors: dict[str, str] = field(default_factory=dict)
    bias: str | None = None
    scale: float = 1.0
    transposed: bool = False


class LoraCheckpoint(StoredTensors):
    """A base with a LoRA adapter merged into it: W + s·B·A, with s = α/r (rank-stabilised: α/√r).

    Linear, embedding and convolution layers; ranks and α per layer; trained biases; saved modules. What an adapter
    adds to a tensor in half precision is added in float32 and not rounded. Modules are found under the names of
    the base's file, up to a common prefix, or under those that transformers has given them since.

    Args:
        base: the checkpoint the adapter was trained on.
        folder: ``adapter_config.json`` and ``adapter_model.safetensors``.
        config: folder with the base's ``config.json``, for transformers' names of its modules.
        ignored: says of a name whether a tensor of the adapter may match nothing in the base.

    Attributes:
        left_out: the adapter's names of tensors that match nothing in the base.

    Raises:
        UserError: another kind of adapter (DoRA, IA³, …), tensors that match nothing in the base or have another
            shape, or whatever :class:`Checkpoint` raises.
    """

    def __init__(
        self,
        base: StoredTensors,
        folder: Path,
        *,
        config: Path | None = None,
        ignored: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.base = base
        self.path = folder
        settings = read_json(folder / ADAPTER_CONFIG)
        _check_kind(folder, settings)
        self.adapter = _open_adapter(folder)
        changes = _changes(self.adapter, settings)
        names = self._find(changes, settings, config)
        self.left_out = tuple(name for name, own in names.items() if own not in base)
        for name in self.left_out:
            if not ignored(names[name] or name):
                raise UserError(
                    f"{self.files[0]}: {name!r} matches no tensor of the base; is it the adapter's own?"
                )
        self._changes = {own: changes[name] for name, own in names.items() if own is not None and own in base}
        self._specs = {name: self._spec(name) for name in base}

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        return self._specs

    @property
    def changed(self) -> Collection[str]:
        """The base's names of the tensors that the adapter changes."""
        return self._changes.keys()

    @property
    def files(self) -> tuple[Path, ...]:
        """The adapter's file."""
        return self.adapter.files

    def file(self, name: str) -> Path:
        return self.files[0] if name in self._changes else self.base.file(name)

    def __getitem__(self, name: str) -> torch.Tensor:
        change = self._changes.get(name)
        if change is None:
            return self.base[name]
        dtype = self._specs[name].dtype
        own = None if change.value is None else self.adapter[change.value]
        result = (self.base[name] if own is None else own).to(dtype)
        if change.factors:
            a, b = (self.adapter[change.factors[factor]].to(dtype) for factor in "AB")
            product = b.flatten(1) @ a.flatten(1)
            product = product.T if change.transposed else product
            result.add_(product.reshape(result.shape) * change.scale)
        if change.bias is not None:
            result.add_(self.adapter[change.bias].to(dtype) * change.scale)
        return result

    def _find(self, changes: Collection[str], settings: Mapping[str, Any], config: Path | None) -> _Names:
        """The base's names by the adapter's; not all need be in the base."""
        found = self._aligned({name: name for name in changes})
        if config is None or self._matching(found) == len(found):
            return found
        on_disk = names_of_folder(config, _mapping(settings, "auto_mapping").get("base_model_class"))
        renamed = self._aligned({name: on_disk.get(name, name) for name in changes})
        return max(found, renamed, key=self._matching)

    def _aligned(self, names: Mapping[str, str]) -> _Names:
        alignment = align(self.base.specs.keys(), set(names.values()))
        return {name: alignment.back(new) for name, new in names.items()}

    def _matching(self, names: _Names) -> int:
        return sum(name in self.base for name in names.values())

    def _spec(self, name: str) -> TensorSpec:
        """The dtype and shape a tensor comes out with.

        Raises:
            UserError: the factors do not fit the base.
        """
        spec = self.base.specs[name]
        change = self._changes.get(name)
        if change is None:
            return spec
        own = self.adapter.specs
        if change.value is not None:
            spec = own[change.value]
        if change.factors:
            a, b = (own[change.factors[factor]].shape for factor in "AB")
            wanted = (*a[1:], *b[:1]) if change.transposed else (*b[:1], *a[1:])
            if math.prod(b[1:]) != a[0] or spec.shape != wanted:
                raise UserError(
                    f"{self.files[0]}: factors of {name!r} have shapes {a} and {b}, which do not make the base's "
                    f"{spec.shape}"
                )
        if change.bias is not None and own[change.bias].shape != spec.shape:
            raise UserError(
                f"{self.files[0]}: what is added to {name!r} has shape {own[change.bias].shape}, the base's is "
                f"{spec.shape}"
            )
        if change.factors or change.bias is not None:
            return TensorSpec(torch.promote_types(spec.dtype, torch.float32), spec.shape)
        return spec


def _check_kind(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises:
    UserError: the adapter is not plain LoRA.
    """
    where = folder / ADAPTER_CONFIG
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise UserError(f"{where}: peft_type is {kind!r}; of PEFT's adapters only 'LORA' is read")
    start = settings.get("init_lora_weights")
    other = [name for key, name in _OTHER_METHODS.items() if settings.get(key)]
    if isinstance(start, str) and start.startswith(_CHANGE_THE_BASE):
        other.append(f"init_lora_weights={start!r}, which changed the base; convert it to plain LoRA")
    if other:
        raise UserError(f"{where}: {other[0]} is not supported; merge the adapter into its base with PEFT instead")


def _open_adapter(folder: Path) -> Checkpoint:
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickled = [path.name for path in folder.iterdir() if path.suffix in PICKLES]
        hint = f"; {pickled[0]} is a pickle, which could run code: {convert_command(folder)}" if pickled else ""
        raise UserError(f"{folder}: no {ADAPTER_WEIGHTS}{hint}")
    return Checkpoint(folder / ADAPTER_WEIGHTS)


def _changes(adapter: Checkpoint, settings: Mapping[str, Any]) -> dict[str, _Change]:
    """What an adapter changes, by the names that the adapted model had.

    Raises:
        UserError: half of a pair of factors, or a rank or α that is none.
    """
    changes: defaultdict[str, _Change] = defaultdict(_Change)
    for stored in adapter:
        name = stored.removeprefix("base_model.model.")
        factor = _FACTOR.fullmatch(name)
        if factor is None:
            if ".original_module." not in name:  # the base's own, kept beside a saved module
                name = name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")
                changes[name].value = stored
        elif factor["kind"] == "bias":
            changes[f"{factor['module']}.bias"].bias = stored
        else:
            change = changes[f"{factor['module']}.weight"]
            change.factors[factor["factor"]] = stored
            change.transposed = bool(factor["embedding"] or settings.get("fan_in_fan_out"))
    for name, change in changes.items():
        module = name.rpartition(".")[0]
        pair = changes[f"{module}.weight"].factors if change.factors or change.bias else None
        if pair is None:
            continue
        if pair.keys() != {"A", "B"}:
            raise UserError(f"{adapter.path}: module {module!r} has not both of lora_A and lora_B")
        change.scale = _scale(adapter, module, adapter.specs[pair["A"]].shape, settings)
    return dict(changes)


def _scale(adapter: Checkpoint, module: str, shape: tuple[int, ...], settings: Mapping[str, Any]) -> float:
    where = f"{adapter.path.with_name(ADAPTER_CONFIG)}: module {module!r}"
    alpha = _own(module, _mapping(settings, "alpha_pattern"), settings.get("lora_alpha"))
    rank = _own(module, _mapping(settings, "rank_pattern"), settings.get("r"))
    if not isinstance(alpha, int | float) or not isinstance(rank, int) or rank < 1:
        raise UserError(f"{where}: lora_alpha {alpha!r} or rank {rank!r} is no usable number")
    if shape[:1] != (rank,):
        raise UserError(f"{where} has rank {rank}, but its lora_A has shape {shape}")
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _own(module: str, patterns: Mapping[str, Any], usual: Any) -> Any:
    """A setting of one module: that of the first pattern that matches the end of its name."""
    for pattern, value in patterns.items():
        try:
            if re.fullmatch(rf"(.*\.)?({pattern})", module):
                return value
        except re.error as error:
            raise UserError(f"{ADAPTER_CONFIG}: {pattern!r} is no regular expression: {error}") from error
    return usual


def _mapping(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = settings.get(key)
    return value if isinstance(value, dict) else {}
