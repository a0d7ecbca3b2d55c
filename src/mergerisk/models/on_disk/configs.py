"""What a ``config.json`` decides beside the shapes of tensors, and where two of them differ."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, described, shown_text
from mergerisk.models.on_disk.filenames import CONFIG, read_json
from mergerisk.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SILENT = frozenset(
    {
        # Pretraining by hidden patches, and its decoder.
        "encoder_stride",
        "mask_ratio",
        "norm_pix_loss",
        "use_mask_token",
        # What detectors and segmenters take from a backbone, and their heads.
        "_out_features",
        "_out_indices",
        "out_features",
        "out_indices",
        "apply_layernorm",
        "reshape_hidden_states",
        "add_fpn",
        "pool_scales",
        "semantic_loss_ignore_index",
        "use_auxiliary_head",
        # Sizes that tensors have anyway; a pooler and a projection that are no part of what is merged.
        "max_position_embeddings",
        "pooler_act",
        "pooler_output_size",
        "projection_dim",
        "vocab_size",
        # Texts alone: where they begin and what they are filled up with, which attention masks.
        "bos_token_id",
        "pad_token_id",
        # Training alone.
        "batch_norm_momentum",
        # How texts are written, token by token.
        "use_cache",
    }
)
"""Fields that change nothing in what a trained model says of an image or a text."""

_SILENT_PARTS = ("drop", "initializer", "init_value", "layerscale_value", "decoder_", "auxiliary")
"""Parts of such fields' names: what happens in training only, and values that weights begin with."""


@dataclass(frozen=True)
class Difference:
    """A field that two models have otherwise.

    Attributes:
        field: its name.
        own: what the one says.
        file: and where.
        base: what the base says.
        base_file: and where, in words where no file does.
    """

    field: str
    own: Any
    file: Path
    base: Any
    base_file: Path | str

    def __str__(self) -> str:
        return f"{self.field} is {self.own!r} in {self.file}, {self.base!r} in {self.base_file}"


def read_config(folder: Path, kind: str | None = None) -> Any:
    """What a folder's ``config.json`` describes, with transformers' defaults for what it does not say.

    Args:
        folder: with ``config.json``.
        kind: the ``model_type`` of the part that is wanted, of a composite configuration; None for the whole.

    Returns:
        A configuration; None for a ``model_type`` that transformers does not know.

    Raises:
        UserError: it cannot be understood.
    """
    from transformers import CONFIG_MAPPING

    check_config(folder / CONFIG)
    content = read_json(folder / CONFIG)
    model_type = str(content.get("model_type", kind))
    if model_type not in CONFIG_MAPPING:
        return None
    try:
        with quiet_transformers():
            config: Any = CONFIG_MAPPING[model_type].from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a configuration makes its class do
        raise UserError(f"{folder / CONFIG}: cannot be understood: {described(error)}") from error
    return part_of(config, kind)


_LAYERS = re.compile(r"(num_|n_)?\w*?(layers?|depths?|blocks|stages|labels)")
_MOST_LAYERS, _MOST_LABELS = 1000, 1_000_000
"""Of one model; libraries make them one by one, before any tensor is read."""


def check_config(path: Path) -> None:
    """See that a ``config.json`` describes no model that is never finished.

    Raises:
        UserError: it names too many layers or labels, or cannot be read.
    """
    waiting: list[Any] = [read_json(path)]
    while waiting:
        part = waiting.pop()
        waiting += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        for name, value in part.items() if isinstance(part, dict) else ():
            if not _LAYERS.fullmatch(str(name)):
                continue
            counts = [count for count in (value if isinstance(value, list) else [value]) if type(count) is int]
            most = _MOST_LABELS if name.endswith("labels") else _MOST_LAYERS
            if sum(counts) > most:
                raise UserError(f"{path}: {name} is {shown_text(str(value))}; no model has more than {most}")


def part_of(config: Any, kind: str | None) -> Any:
    """The part of a composite configuration that has this ``model_type``; the whole if none has."""
    for name in getattr(config, "sub_configs", None) or ():
        part = getattr(config, name, None)
        if kind is not None and getattr(part, "model_type", None) == kind:
            return part
    return config


def differences(
    own: Any, file: Path, base: Any, base_file: Path, ignored: tuple[str, ...] = ()
) -> list[Difference]:
    """Where two configurations make the same weights say something else.

    Compared are the fields that the architecture's own class declares, after its defaults, but for those that act
    in training or beside the model only. Labels, dtypes, versions and what else any class has are none of them.

    Args:
        own: of the one model, as :func:`read_config` gives it.
        file: where it is from.
        base: of the base.
        base_file: where it is from.
        ignored: further names that decide nothing here.
    """
    if own.model_type != base.model_type:
        return [Difference("model_type", own.model_type, file, base.model_type, base_file)]
    ours, theirs = dict(_decisive(own)), dict(_decisive(base))
    return [
        Difference(name, ours.get(name), file, theirs.get(name), base_file)
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ignored and ours.get(name) != theirs.get(name)
    ]


def _decisive(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    from transformers import PreTrainedConfig

    declared = type(config)().to_dict().keys() - PreTrainedConfig().to_dict().keys()
    for name in sorted(declared):
        value = getattr(config, name, None)
        if isinstance(value, PreTrainedConfig):
            yield from _decisive(value, f"{prefix}{name}.")
        elif name not in _SILENT and not any(part in name for part in _SILENT_PARTS):
            yield f"{prefix}{name}", _plain(value)


def _plain(value: Any) -> Any:
    """Lists and tuples of a configuration alike."""
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
