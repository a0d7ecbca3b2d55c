"""One perturbation for all images, made beforehand."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from mergerisk.attacks.attack import Attack
from mergerisk.errors import UserError
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from mergerisk.attacks.attack import Problem


@hyperparameters
class Universal(Attack):
    """A universal perturbation from a file, added to every image (Moosavi-Dezfooli et al. 2017, arXiv 1610.08401);
    X-Transfer's (Huang et al. 2025, arXiv 2505.05528), say. It needs no gradients.

    It is resized (bilinear, antialiased) to the images and, where it is larger than ε, scaled to ε as a whole, not
    clipped.

    Attributes:
        file: ``.npy``, ``.npz``, ``.safetensors`` or ``.pt`` with one floating array, C × H × W or
            1 × C × H × W, in pixel units. Pickled code in it is refused.
    """

    file: str

    @property
    def gradients_per_image(self) -> int:
        return 0

    def check_files(self) -> None:
        self.perturbation()

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:  # noqa: ARG002
        channels = self.perturbation().shape[0]
        if channels not in (1, image.shape[1]):
            raise UserError(f"{self.file}: the perturbation has {channels} channels, the images {image.shape[1]}")

    def perturb(self, problem: Problem) -> torch.Tensor:
        images = problem.images
        added = self.perturbation().to(images.device)[None]
        if added.shape[-2:] != images.shape[-2:]:
            added = F.interpolate(added, images.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
        added = added.expand(1, *images.shape[1:])
        # Its size in the problem's norm is its distance from black.
        size = float(type(problem.ball)(torch.zeros_like(added), problem.epsilon).lengths(added))
        return images + added * (problem.epsilon / size if size > problem.epsilon else 1.0)

    def perturbation(self) -> torch.Tensor:
        """float64, C × H × W, in pixel units, as the file holds it.

        Raises:
            UserError: no such file, or not one finite floating array of this shape.
        """
        path = Path(self.file)
        read = _READERS.get(path.suffix)
        if read is None:
            raise UserError(f"{path}: a perturbation is read from {', '.join(sorted(_READERS))} files")
        try:
            arrays = [torch.as_tensor(array) for array in read(path)]
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
        except Exception as error:  # each library has its own, with advice that is not for here
            raise UserError(
                f"{path}: no {path.suffix} file of plain numbers (pickled code is refused): {type(error).__name__}"
            ) from error
        if len(arrays) != 1:
            raise UserError(f"{path}: holds {len(arrays)} arrays; a perturbation is one")
        shape = tuple(arrays[0].shape)
        found = arrays[0][0] if len(shape) == 4 and shape[0] == 1 else arrays[0]
        if found.ndim != 3 or not found.numel() or not found.is_floating_point():
            raise UserError(
                f"{path}: a perturbation is C × H × W or 1 × C × H × W, floating, in pixel units (8/255, say); "
                f"found {found.dtype}, {shape}"
            )
        if not bool(found.isfinite().all()):
            raise UserError(f"{path}: the perturbation is NaN or infinite somewhere")
        return found.double()


def _read_numpy(path: Path) -> list[Any]:
    import numpy as np

    with path.open("rb") as file:
        loaded: Any = np.load(file, allow_pickle=False)
        return [loaded] if isinstance(loaded, np.ndarray) else [loaded[name] for name in loaded.files]


def _read_safetensors(path: Path) -> list[Any]:
    from safetensors.torch import load

    return list(load(path.read_bytes()).values())


def _read_torch(path: Path) -> list[Any]:
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError("it holds something else than tensors, which could run code when loaded") from error
    return list(loaded.values()) if isinstance(loaded, dict) else [loaded]


_READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".npy": _read_numpy,
    ".npz": _read_numpy,
    ".safetensors": _read_safetensors,
    ".pt": _read_torch,
}
