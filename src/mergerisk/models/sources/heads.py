"""Heads that need no training: of a text tower, or those that a checkpoint brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from mergerisk.errors import UserError, described
from mergerisk.models.core.checks import check_finite, dtype_name
from mergerisk.models.core.classifier import Head
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.on_disk.copies import split_copy
from mergerisk.models.on_disk.filenames import CONFIG, read_json
from mergerisk.models.quiet import quiet_transformers
from mergerisk.models.sources.experts import expert_identity
from mergerisk.models.sources.families import family_of
from mergerisk.models.sources.library_heads import identity, open_clip_head, timm_head, timm_head_in
from mergerisk.models.sources.loading import LIBRARIES, backbone_folder, is_factory
from mergerisk.models.sources.saved_models import from_folder, named_classes
from mergerisk.tasks.class_names import in_words, same_in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

_TEXT_PROJECTION = "text_projection.weight"
_SCALE = "logit_scale"

_BATCH = 256
"""Prompts that are encoded at once."""


def zero_shot(
    name: str,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    offline: bool = False,
    device: torch.device | str = "cpu",
) -> Head:
    """CLIP's zero-shot classifier as a head on its own image features.

    A class's weight is exp(logit scale) times the normalised mean of the normalised embeddings of its prompts
    (Radford et al. 2021, arXiv 2103.00020, section 3.1.4); the head normalises features, and has no bias.

    Args:
        name: a folder or hub repository with a whole CLIP and its tokenizer, or ``open_clip:NAME[/WEIGHTS]``.
        class_names: in the order of the labels; underscores become spaces.
        templates: prompts with ``{}`` where the class's name belongs; see
            :mod:`mergerisk.models.sources.templates`. Prompts longer than the text tower's context are cut.
        offline: take what comes from the hub from the cache only.
        device: that the text tower runs on; the head is on the CPU.

    Raises:
        UserError: no class or template, one without ``{}``, or two classes of one name; a backbone without a text
            tower or tokenizer.
    """
    if not class_names:
        raise UserError("zero-shot head: there are no class names")
    if not templates:
        raise UserError("zero-shot head: there are no templates")
    if bad := [template for template in templates if "{}" not in template]:
        raise UserError(f"zero-shot head: template {bad[0]!r} has no {{}} for the class's name")
    if twins := same_in_words(class_names):
        raise UserError(f"zero-shot head: classes {twins[0]} and {twins[1]} have one name; give names that differ")
    library, _, rest = name.partition(":")
    if library == "open_clip" and rest:
        names = [in_words(class_name) for class_name in class_names]
        return open_clip_head(rest, names, templates, offline=offline, device=device)
    folder = _transformers_folder(name, offline=offline)
    checkpoint = Checkpoint(folder)
    lacking = [tensor for tensor in (_TEXT_PROJECTION, _SCALE) if tensor not in checkpoint]
    if read_json(folder / CONFIG).get("model_type") != "clip" or lacking:
        raise UserError(
            f"{name}: has no text tower{f', no {lacking[0]!r}' if lacking else ''}; zero-shot heads need a whole "
            "CLIP, with model_type 'clip'"
        )
    tower = _text_tower(name, folder).to(device)
    projection, scale = checkpoint[_TEXT_PROJECTION].float(), checkpoint[_SCALE].float().exp()
    check_finite({_TEXT_PROJECTION: projection, _SCALE: scale}, name)
    prompts = [
        template.replace("{}", class_name) for class_name in map(in_words, class_names) for template in templates
    ]
    embeddings = F.normalize(_encode(name, folder, tower, prompts) @ projection.T, dim=-1)
    directions = embeddings.unflatten(0, (len(class_names), len(templates))).mean(dim=1)
    weight = F.normalize(directions, dim=-1) * scale
    return Head(weight, torch.zeros(len(weight)), normalize=True, class_names=class_names)


def checkpoint_head(
    name: str, *, backbone: str = "", offline: bool = False
) -> tuple[Head, tuple[str, ...] | None]:
    """The linear classifier inside a checkpoint for image classification, on its encoder's features.

    Args:
        name: a folder or hub repository as transformers saves it; ``timm:NAME``; or, of a backbone of timm, a
            file, folder or repository with timm's names of tensors.
        backbone: that the checkpoint is one of.
        offline: take what comes from the hub from the cache only.

    Returns:
        The head, and its class names in order; None if it names none. ``head.for_classes(task.class_names)`` puts
        it into the order of a task's labels.

    Raises:
        UserError: a backbone without such a classifier.
    """
    library, _, rest = name.partition(":")
    if library == "timm" and rest:
        return timm_head(rest, offline=offline)
    of, _, model = backbone.partition(":")
    if of == "timm" and model:
        return timm_head_in(name, model, offline=offline)
    source, prefix = split_copy(name)
    folder = _transformers_folder(source, offline=offline)
    config = read_json(folder / CONFIG)
    family = family_of(name, config)
    if not family.classifier:
        raise UserError(
            f"{name}: a {config['model_type']} has no classification head of its own; make a zero-shot head of a "
            "CLIP, or train a linear probe"
        )
    checkpoint = Checkpoint(folder, prefix)
    names = [f"{family.classifier}.{part}" for part in ("weight", "bias")]
    if lacking := [tensor for tensor in names if tensor not in checkpoint]:
        raise UserError(
            f"{name}: the checkpoint has no {lacking[0]!r}; give one for image classification, with one linear "
            "head, or train a linear probe"
        )
    weight, bias = (checkpoint[tensor].float() for tensor in names)
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise UserError(f"{name}: {names[0]!r} has shape {tuple(weight.shape)}, which is no linear layer")
    check_finite(dict(zip(names, (weight, bias), strict=True)), name)
    labels = config.get("id2label")
    known = named_classes(labels if isinstance(labels, dict) else None, len(weight))
    return Head(weight, bias, class_names=known), known


def head_identity(name: str, *, offline: bool = False) -> dict[str, str]:
    """What decides the head of :func:`checkpoint_head`: SHA-256 of each file, or of a library's weights."""
    library, _, rest = name.partition(":")
    return identity(library, rest, offline=offline) if library == "timm" and rest else expert_identity(name)


def head_from_file(path: str | Path) -> Head:
    """A linear layer from a safetensors file: ``weight``, classes × width, and ``bias``, classes, which may lack.

    Both may have a prefix, as a layer within a model has; the file holds nothing else.

    Raises:
        UserError: no such file; pickles; other tensors, other shapes, or NaN.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(f"{path}: a folder; give the safetensors file with weight and bias")
    checkpoint = Checkpoint(file)
    prefixes = [name.removesuffix("weight") for name in checkpoint if name.split(".")[-1] == "weight"]
    names = {part: f"{prefixes[0]}{part}" for part in ("weight", "bias")} if prefixes else {}
    if len(prefixes) != 1 or set(checkpoint) - set(names.values()):
        held = ", ".join(repr(name) for name in sorted(checkpoint)[:4])
        raise UserError(
            f"{path}: must hold a linear layer, 'weight' (classes × features) and perhaps 'bias' (classes), and "
            f"nothing else; holds {held or 'nothing'}{', …' if len(checkpoint) > 4 else ''}"
        )
    weight = checkpoint[names["weight"]]
    bias = checkpoint[names["bias"]] if names["bias"] in checkpoint else torch.zeros(len(weight))
    for name, tensor, wanted in (("weight", weight, 2), ("bias", bias, 1)):
        if tensor.ndim != wanted or not tensor.is_floating_point() or len(tensor) != len(weight):
            raise UserError(
                f"{path}: {names[name]!r} is {dtype_name(tensor.dtype)} of shape {tuple(tensor.shape)}; a head's "
                "weight is classes × features, its bias has an entry per class, both are floats"
            )
    check_finite({names["weight"]: weight, names["bias"]: bias}, str(path))
    return Head(weight.float(), bias.float())


def _transformers_folder(name: str, *, offline: bool) -> Path:
    library = name.partition(":")[0]
    if library in LIBRARIES or is_factory(name):
        raise UserError(
            f"{name}: brings no such head; give its weights under heads: {{from: files}}, or train a linear probe"
        )
    return backbone_folder(name, offline=offline)


def _text_tower(name: str, folder: Path) -> Any:
    tower = from_folder(f"{name}: text tower", folder, "CLIPTextModel")
    check_finite(tower.state_dict(), name)
    return tower.requires_grad_(False).eval()


def _encode(name: str, folder: Path, tower: Any, prompts: Sequence[str]) -> torch.Tensor:
    """The token at each prompt's end after the text tower, on the CPU, prompts × width."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file() and not all(
        (folder / file).is_file() for file in ("vocab.json", "merges.txt")
    ):
        raise UserError(
            f"{name}: {folder} has no tokenizer: neither tokenizer.json nor vocab.json and merges.txt; a folder "
            "from the hub is completed by fetching it once without --offline"
        )
    try:
        with quiet_transformers():
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever its files make the tokenizer's code do
        raise UserError(f"{name}: its tokenizer cannot be loaded: {described(error)}") from error
    ends = []
    for start in range(0, len(prompts), _BATCH):
        tokens = tokenizer(
            list(prompts[start : start + _BATCH]),
            padding=True,
            truncation=True,
            max_length=tower.config.max_position_embeddings,
            return_tensors="pt",
        )
        if int(tokens["input_ids"].max()) >= tower.config.vocab_size:
            raise UserError(
                f"{name}: its tokenizer knows more than the text tower's {tower.config.vocab_size} tokens; it "
                "belongs to another model"
            )
        with torch.no_grad():
            found = tower(
                input_ids=tokens["input_ids"].to(tower.device),
                attention_mask=tokens["attention_mask"].to(tower.device),
            )
        ends.append(found.pooler_output.cpu())
    return torch.cat(ends)
