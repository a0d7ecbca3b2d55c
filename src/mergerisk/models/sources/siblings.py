"""Models of the base's architecture that were made elsewhere: each keeps what decides what it computes."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from mergerisk.errors import UserError, described, located
from mergerisk.models.core.encoder import Encoder
from mergerisk.models.core.preprocessing import Normalization, Preprocessing, read_preprocessor
from mergerisk.models.core.stated import BASE, stated_preprocessing
from mergerisk.models.on_disk.checkpoints import Checkpoint, is_adapter
from mergerisk.models.on_disk.configs import Difference, differences, read_config
from mergerisk.models.on_disk.copies import split_copy
from mergerisk.models.on_disk.filenames import CONFIG, PREPROCESSOR
from mergerisk.models.sources.experts import read_expert
from mergerisk.models.sources.families import FAMILIES, VISUAL_PROJECTION
from mergerisk.models.sources.family_images import fitted, native_side, read_preprocessing
from mergerisk.models.sources.hub import fetch, remark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.models.core.encoder import State
    from mergerisk.models.core.stated import StatedPreprocessing


@dataclass(frozen=True)
class Form:
    """What decides, beside its weights, what a model computes, where that is not as in the base.

    Attributes:
        config: its configuration, as plain data; None if it computes as the base's.
        preprocessing: of its pixels, likewise (:meth:`mergerisk.models.core.preprocessing.Preprocessing.fields`).
        differences: from the base, one per field.
    """

    config: Mapping[str, Any] | None = None
    preprocessing: Mapping[str, Any] | None = None
    differences: tuple[Difference, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.differences)

    def to_plain(self) -> dict[str, Any]:
        """As plain data, for the store."""
        return {
            "config": self.config,
            "preprocessing": self.preprocessing,
            "differences": [str(difference) for difference in self.differences],
        }


@dataclass(frozen=True)
class Sibling:
    """A model of the base's architecture.

    Attributes:
        state: its parameters and buffers, under the base's names and in its dtypes.
        form: what it has otherwise than the base.
    """

    state: State
    form: Form


def read_sibling(
    base: Encoder,
    spec: str | Path,
    *,
    image_size: int | None = None,
    preprocessing: StatedPreprocessing | Mapping[str, Any] | Literal["base"] | None = None,
    offline: bool = False,
) -> Sibling:
    """A model's weights, and what it has otherwise than the base; see :func:`load_sibling`.

    Raises:
        UserError: see :func:`load_sibling`.
    """
    source, prefix = split_copy(str(spec))
    folder = fetch(source, offline=offline)
    if said := remark(source, folder):
        warnings.warn(said, stacklevel=2)  # a study names folders, and says so in its notes
    state = read_expert(base, folder, str(spec), prefix)
    if not folder.is_dir() or not type(base.backbone).__module__.startswith("transformers."):
        return Sibling(state, Form())  # what the user's own code makes knows no such files
    config, found = _own_config(str(spec), base, folder)
    pixels, others = _own_preprocessing(str(spec), base, folder, image_size, preprocessing)
    return Sibling(state, Form(config, pixels, (*found, *others)))


def load_expert(
    base: Encoder,
    spec: str | Path,
    *,
    image_size: int | None = None,
    preprocessing: StatedPreprocessing | Mapping[str, Any] | Literal["base"] | None = None,
    offline: bool = False,
) -> Encoder:
    """An expert that somebody else fine-tuned, checked against its base: what merges and classifiers take.

    Its parameters, under the base's names and in its dtypes, are its :meth:`~mergerisk.models.Encoder.state`.

    Args:
        base: the encoder it was fine-tuned from.
        spec: a ``.safetensors`` file, a folder as transformers saves it, ``org/name[@revision]`` on the hub, or a
            folder or repository with a LoRA adapter as PEFT saves it. A whole model around the encoder will do:
            its other parts are not read. Of several copies of the weights, ``#PREFIX`` behind it chooses one.
        image_size: as the base was loaded with; it comes before the expert's own.
        preprocessing: likewise; ``"base"`` for the base's own.
        offline: take what comes from the hub from the cache only.

    Raises:
        UserError: no such file or repository; pickles, whose loading runs their code; a file that is cut short;
            another architecture; weights with NaN; whatever :class:`LoraCheckpoint` raises; or a folder whose
            configuration or preprocessing is not the base's, so that these parameters would be another model in
            the base: :func:`load_sibling` takes it as it is, to be attacked but not to be merged.
    """
    sibling = read_sibling(base, spec, image_size=image_size, preprocessing=preprocessing, offline=offline)
    with located(str(spec)):
        check_one_form(sibling.form)
    return base.with_state(sibling.state).to(base.mean.device)


def load_sibling(
    base: Encoder,
    spec: str | Path,
    *,
    image_size: int | None = None,
    preprocessing: StatedPreprocessing | Mapping[str, Any] | Literal["base"] | None = None,
    offline: bool = False,
) -> Encoder:
    """A model of the base's architecture as its own files make it: an expert, or a merge made elsewhere.

    A folder's own ``config.json`` and preprocessor are followed. What a folder lacks is the base's, and a bare
    ``.safetensors`` file lacks all of it.

    Args:
        base: the encoder it was fine-tuned or merged from.
        spec: see :func:`mergerisk.load_expert`.
        image_size: as the base was loaded with; it comes before the model's own.
        preprocessing: likewise; ``"base"`` for the base's own.
        offline: take what comes from the hub from the cache only.

    Raises:
        UserError: see :func:`mergerisk.load_expert`; another kind of model.
    """
    sibling = read_sibling(base, spec, image_size=image_size, preprocessing=preprocessing, offline=offline)
    return in_form(base, sibling.form.to_plain()).with_state(sibling.state).to(base.mean.device)


def in_form(base: Encoder, form: Mapping[str, Any]) -> Encoder:
    """An encoder of the base's architecture in a form of its own, with no weights of its own yet.

    Args:
        base: the base.
        form: see :meth:`Form.to_plain`.
    """
    backbone: Any = base.backbone
    if form["config"] is not None:
        kind = type(backbone)
        options = FAMILIES[backbone.config.model_type].options
        with torch.random.fork_rng(devices=[]):  # it draws weights, which are replaced
            backbone = kind(type(backbone.config).from_dict(dict(form["config"])), **options).float().eval()
    own = _preprocessing(base)
    if form["preprocessing"] is not None:
        own = Preprocessing.from_fields(form["preprocessing"])
    return Encoder(
        backbone,
        width=base.width,
        image_size=(own.resizing.result or (base.image_size,))[0],
        mean=own.normalization.mean,
        std=own.normalization.std,
        features=base.features,
        resizing=own.resizing,
    ).to(base.mean.device)


def check_one_form(form: Form) -> None:
    """See that a model's weights can be merged with the base's, or stand in its place.

    Raises:
        UserError: it computes something else with the same weights.
    """
    if not form.differences:
        return
    first, *others = form.differences
    more = f"; {', '.join(other.field for other in others)} differ too" if others else ""
    remedy = (
        "correct the file that is wrong"
        if form.config is not None
        else "to use the base's for all, say preprocessing: base"
    )
    raise UserError(f"{first}{more}; weights that are merged must compute in one way: {remedy}")


def check_computes_as(base: Encoder, encoder: Encoder, where: str) -> None:
    """See that an encoder would compute the same as the base with the same weights, so that they can be merged.

    Raises:
        UserError: another configuration, or another preprocessing of pixels; ``where`` says whose.
    """
    ours, theirs = _preprocessing(base).fields(), _preprocessing(encoder).fields()
    found = [
        f"{name} is {theirs[name]!r}, {ours[name]!r} in the base" for name in ours if ours[name] != theirs[name]
    ]
    usual: Any = getattr(base.backbone, "config", None)
    own: Any = getattr(encoder.backbone, "config", None)
    if own is not usual and hasattr(usual, "model_type") and hasattr(own, "model_type"):
        ignored = ("image_size",) if usual.model_type in FAMILIES and FAMILIES[usual.model_type].any_size else ()
        found += [
            f"{one.field} is {one.own!r}, {one.base!r} in the base"
            for one in differences(own, Path(), usual, Path(), ignored)
        ]
    if found:
        raise UserError(
            f"{where}: {found[0]}; weights that are merged must compute in one way: load it with "
            "mergerisk.load_expert(base, …), or preprocessing='base' to use the base's for all"
        )


def check_projection(base: Encoder, spec: str | Path, *, offline: bool = False) -> None:
    """See that a whole CLIP has the projection of the base, behind which heads read features.

    Args:
        base: the base.
        spec: see :func:`load_sibling`.
        offline: take what comes from the hub from the cache only.

    Raises:
        UserError: it has another, with which it would be another model.
    """
    projection: torch.Tensor | None = getattr(base.features, "projection", None)
    path = fetch(str(spec), offline=offline)
    if projection is None or (path.is_dir() and is_adapter(path)):
        return
    checkpoint = Checkpoint(path)
    if VISUAL_PROJECTION not in checkpoint:
        return
    own = checkpoint[VISUAL_PROJECTION]
    if not torch.equal(own, projection.to(own)):
        raise UserError(
            f"{checkpoint.file(VISUAL_PROJECTION)}: {VISUAL_PROJECTION} is not the base's, and all models of a "
            "study share that; to measure this one behind the base's, give its tower alone, a CLIPVisionModel"
        )


def _own_config(where: str, base: Encoder, folder: Path) -> tuple[Mapping[str, Any] | None, list[Difference]]:
    file, usual = folder / CONFIG, _config(base)
    if not file.is_file():
        return None, []
    own = read_config(folder, usual.model_type)
    if own is None:
        raise UserError(f"{where}: {file}: unknown model_type; the base's is {usual.model_type!r}")
    # Where any size will do, the preprocessor's decides.
    ignored = ("image_size",) if FAMILIES[usual.model_type].any_size else ()
    found = differences(own, file, usual, _base_folder(base) / CONFIG, ignored)
    if found and found[0].field == "model_type":
        raise UserError(f"{where}: {found[0]}; give a model of the base's kind")
    if not found:
        return None, []
    content = {name: value for name, value in own.to_dict().items() if name not in {"id2label", "label2id"}}
    content = json.loads(json.dumps(content, default=str))
    try:
        in_form(base, {"config": content, "preprocessing": None})
    except Exception as error:  # whatever a configuration makes its model's code do
        raise UserError(f"{where}: {file}: {described(error)}") from error
    return content, found


def _own_preprocessing(
    where: str,
    base: Encoder,
    folder: Path,
    image_size: int | None,
    preprocessing: StatedPreprocessing | Mapping[str, Any] | Literal["base"] | None,
) -> tuple[Mapping[str, Any] | None, list[Difference]]:
    found = read_preprocessor(folder)
    if found is None or preprocessing == BASE:
        return None, []
    given = stated_preprocessing(None if isinstance(preprocessing, str) else preprocessing)
    config = _config(base)
    kind, native = config.model_type, native_side(where, config)
    own, _ = fitted(where, read_preprocessing(folder, kind, native)[0].stated(given), kind, native, image_size)
    ours, theirs = own.fields(), _preprocessing(base).fields()
    ours |= {name: torch.tensor(ours[name]).tolist() for name in ("image_mean", "image_std")}  # as the base's are
    beside = read_preprocessor(_base_folder(base))
    where_base = usual_of(_base_folder(base)) if beside is None else beside[0]
    different = [
        Difference(name, ours[name], found[0], theirs[name], where_base)
        for name in ours
        if ours[name] != theirs[name]
    ]
    return (own.fields(), different) if different else (None, [])


def usual_of(folder: Path) -> str:
    """Where preprocessing is from that no file of a folder says."""
    return f"{folder}, which has no {PREPROCESSOR}: what is usual"


def _preprocessing(base: Encoder) -> Preprocessing:
    mean, std = (tuple(tensor.flatten().tolist()) for tensor in (base.mean, base.std))
    return Preprocessing(base.resizing, Normalization(mean, std))


def _config(base: Encoder) -> Any:
    backbone: Any = base.backbone
    return backbone.config


def _base_folder(base: Encoder) -> Path:
    return Path(_config(base).name_or_path or "base")
