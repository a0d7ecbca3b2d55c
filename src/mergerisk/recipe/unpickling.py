"""Pickled weights into safetensors, in a process of its own: ``python -m mergerisk.recipe.unpickling JOB``.

PyTorch's restricted unpickler (``torch.load(weights_only=True)``) builds tensors and plain containers and calls
nothing else: https://docs.pytorch.org/docs/stable/notes/serialization.html. It has had faults, so it runs with
bounds on memory, time and files, and :mod:`mergerisk.recipe.converting` reads what it wrote as a stranger's file.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mergerisk.disk import mebibytes
from mergerisk.errors import UserError, first_line, located, shown_text
from mergerisk.models.core.checks import check_finite, dtype_name
from mergerisk.models.on_disk.checkpoints import DTYPES, TensorSpec
from mergerisk.recipe.writing import SafetensorsWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

_WANTED = re.compile(r"GLOBAL ([\w.]+)")
"""How the restricted unpickler names what it refuses."""

_DEPTH = 3
"""Mappings within mappings that a state dict is looked for in."""


@dataclass(frozen=True)
class Job:
    """Files to convert.

    Attributes:
        files: pickle → safetensors file to write.
        key: under which the state dict is, dots between nested ones; None to find it.
        memory: bytes that reading and writing one may take.
        seconds: of computing.
    """

    files: Mapping[str, str]
    key: str | None
    memory: int
    seconds: int


def read_state_dict(source: Path, key: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors in a file that ``torch.save`` wrote, under their names.

    Args:
        source: the file.
        key: see :class:`Job`.

    Raises:
        UserError: it wants more than tensors and plain containers; it holds no state dict, or several; a tensor is
            quantised, sparse or of a dtype that safetensors or this package does not know.
    """
    try:
        loaded: Any = torch.load(source, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # whatever a file makes the unpickler do
        if "can't allocate memory" in str(error):
            raise MemoryError from error
        raise UserError(_why_refused(error)) from error
    state = _state_dict(loaded, key)
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.dtype not in DTYPES.values():
            what = "quantised" if tensor.is_quantized else f"{tensor.layout}, {dtype_name(tensor.dtype)}"
            raise UserError(f"tensor {name!r} is {what}; only dense tensors of usual dtypes can be converted")
    return state


def convert_file(source: str, destination: str, key: str | None = None) -> None:
    """Write a file's tensors as safetensors, names and values unchanged.

    Tied ones are written once, as ``save_model`` does; others that share memory get a copy each.

    Raises:
        UserError: see :func:`read_state_dict`; NaN or infinity; tensors that are far larger than the file.
    """
    with located(source):
        state = read_state_dict(Path(source), key)
        aliases = _ties(state)
        kept = {name: tensor for name, tensor in state.items() if name not in aliases}
        specs = {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in kept.items()}
        size, found = Path(source).stat().st_size, sum(spec.nbytes for spec in specs.values())
        if found > 2 * size + 2**20:  # parts of tensors may be there twice; anything else was stretched
            raise UserError(f"its tensors take {found:,} bytes, the file has {size:,}; it repeats values on end")
    with SafetensorsWriter(Path(destination), specs, aliases) as writer:
        for name, tensor in kept.items():
            check_finite({name: tensor}, source)
            writer.write(name, tensor)


def _ties(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Further names of tensors that are the same one → its first name, in alphabetical order."""
    first: dict[object, str] = {}
    ties = {}
    for name in sorted(state):
        tensor = state[name]
        place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        known = first.setdefault(place, name) if tensor.numel() else name
        if known != name:
            ties[name] = known
    return ties


def _why_refused(error: Exception) -> str:
    text = str(error)
    if wanted := _WANTED.search(text):
        return (
            f"it wants {wanted[1]}, which is more than tensors; it was refused and none of it was run; where you "
            "trust it, save its state dict alone: torch.save(model.state_dict(), FILE)"
        )
    if "TorchScript" in text:
        return "a TorchScript archive, which is a program; save the module's state dict alone"
    said = re.search(r"Unsupported [\w ]+", text)
    return f"not a file of tensors that torch.save wrote: {said[0] if said else shown_text(first_line(error))}"


def _state_dict(loaded: Any, key: str | None) -> dict[str, torch.Tensor]:
    found = dict(_state_dicts(loaded, "", _DEPTH))
    if key is not None:
        if key not in found:
            raise UserError(f"--key: no state dict at {key!r}; there {_listed(found)}")
        return found[key]
    if len(found) > 1:
        raise UserError(f"it holds several state dicts; choose one with --key; there {_listed(found)}")
    if not found:
        raise UserError(f"it holds no state dict: {_what_is_there(loaded)}")
    return next(iter(found.values()))


def _state_dicts(loaded: Any, path: str, depth: int) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Path → tensors, of every mapping that maps names to tensors alone."""
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(name, str) for name in loaded):
        return
    if all(isinstance(value, torch.Tensor) for value in loaded.values()):
        yield path, {name: tensor.detach() for name, tensor in loaded.items()}
    elif depth:
        for name, value in loaded.items():
            yield from _state_dicts(value, f"{path}.{name}" if path else name, depth - 1)


def _listed(found: Mapping[str, Any]) -> str:
    return f"are: {', '.join(sorted(found))}" if found else "is none"


def _what_is_there(loaded: Any) -> str:
    if isinstance(loaded, Mapping):
        others = {str(name): type(it).__name__ for name, it in loaded.items() if not isinstance(it, torch.Tensor)}
        return ", ".join(f"{name!r} is a {kind}" for name, kind in list(others.items())[:4]) or "it is empty"
    return f"a {type(loaded).__name__}"


def _restrain(job: Job) -> None:
    """Bound what this process may take, once and for all."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    size = max(Path(source).stat().st_size for source in job.files)
    for kind, limit in (
        (resource.RLIMIT_AS, mapped + job.memory),
        (resource.RLIMIT_CPU, job.seconds),
        (resource.RLIMIT_FSIZE, 3 * size + 2**21),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def main(text: str) -> None:
    """Carry out a job; prints why it was refused, as JSON, or null.

    Args:
        text: the job, as JSON.
    """
    job = Job(**json.loads(text))
    torch.set_num_threads(1)
    _restrain(job)
    refused = None
    for source, destination in job.files.items():
        try:
            convert_file(source, destination, job.key)
        except UserError as error:
            refused = str(error)
        except MemoryError:
            refused = f"{source}: it takes more than {mebibytes(job.memory)} to read"
        if refused is not None:
            break
    print(json.dumps(refused))


def to_text(job: Job) -> str:
    """A job for :func:`main`."""
    return json.dumps(asdict(job))


if __name__ == "__main__":
    main(sys.argv[1])
