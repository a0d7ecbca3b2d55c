"""An encoder's tensors, read from a checkpoint that may call them otherwise and hold more than them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mergerisk.errors import UserError
from mergerisk.memory import check_room
from mergerisk.models.core.checks import check_finite, dtype_name
from mergerisk.models.core.tied import tied_names
from mergerisk.models.on_disk.checkpoints import StoredTensors, TensorSpec, align, tensor_specs
from mergerisk.models.on_disk.configs import check_config
from mergerisk.models.on_disk.filenames import CONFIG
from mergerisk.models.on_disk.quantised import NO_INTEGERS
from mergerisk.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from mergerisk.models.core.encoder import State
    from mergerisk.models.on_disk.checkpoints import Alignment

_NO_WEIGHTS = ("position_ids", "mask_token")
"""Ends of names of tensors that decide no feature: what older versions of transformers saved, and what only
pretraining uses."""


class Renamed(StoredTensors):
    """Tensors in memory under other names; every access makes a copy.

    Args:
        state: the tensors.
        names: their names → others.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> None:
        self._state = {names.get(name, name): tensor for name, tensor in state.items()}
        self._specs = tensor_specs(self._state)

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        return self._specs

    def file(self, name: str) -> Path:  # noqa: ARG002  # they come from no file
        return Path("base")

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._state[name].clone()


def names_on_disk(model: Any) -> dict[str, str]:
    """What a model's ``save_pretrained`` calls its tensors, by the names they have in memory.

    Since version 5 of transformers the two differ for many architectures. They are found by saving the model with
    every tensor its own number. Nothing is found for a model that has no ``save_pretrained``, or whose tensors are
    not only renamed.
    """
    from safetensors.torch import load_file

    if not hasattr(model, "save_pretrained"):
        return {}
    names = list(model.state_dict())
    numbers = {name: torch.tensor([number]) for number, name in enumerate(names)}
    try:
        with quiet_transformers(), tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, state_dict=numbers)
            saved = load_file(Path(folder, "model.safetensors"))
        return {names[int(number)]: name for name, number in saved.items()}
    except Exception:  # somebody else's code; tensors that were joined or split are no numbers
        return {}


def names_of_folder(folder: Path, class_name: str | None = None) -> dict[str, str]:
    """:func:`names_on_disk` of the model that the configuration in a folder describes; none if it is not
    transformers'.

    Args:
        folder: with ``config.json``.
        class_name: transformers' class; by default what the configuration names.
    """
    import transformers

    try:
        check_config(folder / CONFIG)
        with quiet_transformers():
            settings = transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            architecture = getattr(transformers, class_name or (settings.architectures or [""])[0])
            with torch.device("meta"):
                model = architecture(settings)
    except Exception:  # an architecture that is not transformers'
        return {}
    return names_on_disk(model)


def called_alike(names: Collection[str], stored: StoredTensors, places: Iterable[Path]) -> StoredTensors:
    """A checkpoint under the names that another of its architecture has, as far as transformers renames tensors.

    Up to a prefix on either side; a checkpoint that has them all already is returned as it is.

    Args:
        names: the other's.
        stored: the checkpoint, by its names in memory or on disk.
        places: folders, or files beside a ``config.json``, whose configurations may describe the two.
    """

    def fit(found: StoredTensors) -> int:
        alignment = align(names, found.specs.keys())
        return sum(alignment(name) in found for name in names)

    best = fit(stored)
    for place in dict.fromkeys(path if path.is_dir() else path.parent for path in places):
        if best == len(names):
            break
        if not (place / CONFIG).is_file():
            continue
        on_disk = names_of_folder(place)
        in_memory = {disk: memory for memory, disk in on_disk.items()}
        for naming in (on_disk, in_memory):
            other = Called(stored, _renaming(naming, stored))
            if (found := fit(other)) > best:
                best, stored = found, other
    return stored


def _renaming(naming: Mapping[str, str], stored: StoredTensors) -> dict[str, str]:
    """A checkpoint's names → what a naming makes of them, whatever prefix one of the two has."""
    alignment = align(naming.keys(), stored.specs.keys())
    known = {own: alignment.back(own) for own in stored}
    return {
        own: alignment.theirs + naming[name] for own, name in known.items() if name is not None and name in naming
    }


class Called(StoredTensors):
    """A checkpoint under other names.

    Args:
        stored: the checkpoint.
        names: its names → others; those that are not there stay.
    """

    def __init__(self, stored: StoredTensors, names: Mapping[str, str]) -> None:
        self._stored = stored
        self._own = {names.get(name, name): name for name in stored}
        self._specs = {name: stored.specs[own] for name, own in self._own.items()}

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        return self._specs

    @property
    def aliases(self) -> Mapping[str, str]:
        called = {own: name for name, own in self._own.items()}
        return {called[own]: called[first] for own, first in self._stored.aliases.items()}

    def file(self, name: str) -> Path:
        return self._stored.file(self._own[name])

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._stored[self._own[name]]

    def pieces(self, name: str, size: int) -> Iterator[torch.Tensor]:
        return self._stored.pieces(self._own[name], size)


def read_state(
    reference: Mapping[str, torch.Tensor], on_disk: Mapping[str, str], stored: StoredTensors, where: str
) -> State:
    """The tensors of ``reference``, from a checkpoint of its architecture, in its dtypes.

    The checkpoint may use the names on disk or those in memory, and have a prefix more or less, as a model within
    a larger one has. What it holds beside the reference's tensors, such as a text tower or a classifier, is not
    read. Tensors are read one by one. Of those that are tied in the reference, the checkpoint may hold one.

    Args:
        reference: what is wanted.
        on_disk: see :func:`names_on_disk`.
        stored: the checkpoint.
        where: it is, for messages.

    Raises:
        UserError: a tensor is missing, has another shape, is no floating tensor where the reference's is one, or
            holds NaN or infinity; one belongs to a layer that the reference does not have; or two differ that
            are one in the reference.
    """
    names, alignment = _correspondence(reference, on_disk, stored)
    tied = tied_names(reference)
    names = _with_twins(names, tied, stored)
    _check_nothing_left(names, alignment, stored, where)
    specs = tensor_specs(reference)
    for name, own in names.items():
        _check_spec(own, specs[name], stored.specs.get(own), where)
    check_room(sum(spec.nbytes for spec in specs.values()), torch.device("cpu"), where)
    state: State = {}
    for name, own in names.items():
        first = tied.get(name, name)
        if first in state and names[first] == own:
            state[name] = state[first]
            continue
        tensor = stored[own]
        check_finite({own: tensor}, where)
        state[name] = tensor.to(specs[name].dtype)
        if first != name:
            if not torch.equal(state[name], state[first]):
                raise UserError(
                    f"{where}: {own!r} is not {names[first]!r}, though they are one tensor in the base; untie "
                    "them in the base, or tie them in the checkpoint"
                )
            state[name] = state[first]
    return state


def _with_twins(names: Mapping[str, str], tied: Mapping[str, str], stored: StoredTensors) -> dict[str, str]:
    """The checkpoint's names by the reference's, those of tied tensors that it lacks by a twin's that it has."""
    found = dict(names)
    for name, first in tied.items():
        if found[first] not in stored:
            found[first] = found[name]
    for name, first in tied.items():
        if found[name] not in stored:
            found[name] = found[first]
    return found


def _correspondence(
    reference: Mapping[str, torch.Tensor], on_disk: Mapping[str, str], stored: StoredTensors
) -> tuple[dict[str, str], Alignment]:
    """The checkpoint's names by the reference's, and what they have in common."""
    found = []
    for naming in (_AS_THEY_ARE, on_disk):
        called = {name: naming.get(name, name) for name in reference}
        alignment = align(called.values(), stored.specs.keys())
        names = {name: alignment(call) for name, call in called.items()}
        found.append((sum(own in stored for own in names.values()), names, alignment))
    _, names, alignment = max(found, key=lambda entry: entry[0])
    return names, alignment


def _check_nothing_left(names: Mapping[str, str], alignment: Alignment, stored: StoredTensors, where: str) -> None:
    """Raises:
    UserError: a tensor that is not read belongs to one of the modules that are.
    """
    wanted = set(names.values())
    modules = {_first(own.removeprefix(alignment.theirs)) for own in wanted}
    for name in sorted(stored.specs.keys() - wanted):
        inside = name.startswith(alignment.theirs) and _first(name.removeprefix(alignment.theirs)) in modules
        if inside and not name.endswith(_NO_WEIGHTS):
            raise UserError(f"{where}: tensor {name!r} is not in the base; {_OTHER}")


_AS_THEY_ARE: Mapping[str, str] = {}

_OTHER = "this is a checkpoint of another architecture: give one that was fine-tuned from the base"


def _check_spec(name: str, wanted: TensorSpec, found: TensorSpec | None, where: str) -> None:
    if found is None:
        raise UserError(f"{where}: tensor {name!r} is missing; {_OTHER}")
    if found.shape != wanted.shape:
        raise UserError(f"{where}: tensor {name!r} has shape {found.shape}, the base has {wanted.shape}; {_OTHER}")
    if found.dtype.is_floating_point != wanted.dtype.is_floating_point:
        raise UserError(
            f"{where}: tensor {name!r} is {dtype_name(found.dtype)}, the base's is {dtype_name(wanted.dtype)}; "
            f"{NO_INTEGERS}"
        )


def _first(name: str) -> str:
    return name.partition(".")[0]
