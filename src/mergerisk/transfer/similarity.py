"""How hard adversarial images are to tell from the images they were made of, image by image."""

from __future__ import annotations

import functools
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from mergerisk.errors import UserError, first_line
from mergerisk.hub_downloads import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch
    from numpy.typing import NDArray

StealthMeasure = Literal["psnr", "ssim", "lpips"]
"""``psnr``: peak signal-to-noise ratio, 10 log₁₀(1 / mean squared change), in dB. ``ssim``: structural similarity
(Wang et al. 2004), 1 for the same image: Gaussian windows of 11 × 11 pixels with σ = 1.5, K = (0.01, 0.03), the
mean over channels and over the windows that lie within the image. ``lpips``: learned perceptual distance (Zhang et
al. 2018, arXiv 1801.03924) by AlexNet's features, 0 for the same image."""

LIBRARIES: dict[StealthMeasure, tuple[str, str]] = {
    "ssim": ("skimage", "pip install 'mergerisk[stealth]'"),
    "lpips": ("lpips", "pip install lpips, and the torchvision that goes with the torch installed"),
}
"""What a measure is computed by: the module, and how to come by it."""

UNCHANGED = "the image is as it was"
SMALL = "the image is smaller than a window, 11 × 11 pixels"

_WINDOW = 11


class Measured(NamedTuple):
    """One measure of every image.

    Attributes:
        values: float64, N; NaN where there is none.
        missing: why there is none of any image that has none; empty where all have one.
    """

    values: NDArray[np.float64]
    missing: str


def check_measures(measures: Iterable[StealthMeasure]) -> None:
    """See that what computes them is installed.

    Raises:
        UserError: it is not.
    """
    for measure in measures:
        module, install = LIBRARIES.get(measure, ("numpy", ""))
        if find_spec(module) is None:
            raise UserError(f"{measure} is computed by {module}, which is not installed; {install}")


def fetch_weights(measures: Iterable[StealthMeasure], *, offline: bool = False) -> None:
    """Have the weights that measures need on this machine, downloaded if need be: of ``lpips``, AlexNet's.

    Args:
        measures: which.
        offline: download nothing.

    Raises:
        UserError: they are not there and are not, or cannot be, downloaded; or what computes a measure is not
            installed.
    """
    wanted = [*measures]
    check_measures(wanted)
    if "lpips" not in wanted:
        return
    import torch

    try:
        from torchvision.models import AlexNet_Weights
    except ImportError as error:
        raise UserError(
            f"lpips: torchvision cannot be imported ({first_line(error)}); install the one that goes with torch "
            f"{torch.__version__}"
        ) from error
    weights = AlexNet_Weights.IMAGENET1K_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if file.is_file():
        return
    by_hand = f"put {weights.url} into {file.parent}"
    if offline:
        raise UserError(f"lpips: {file.name} is not there; fetch it once without --offline, or {by_hand}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # of which PyTorch has none
    try:
        weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # no connection, a broken one, no room, another file than it should be
        raise UserError(f"lpips: {file.name} cannot be downloaded: {first_line(error)}; {by_hand}") from error
    finally:
        socket.setdefaulttimeout(before)


def stealth(
    images: torch.Tensor, adversarial: torch.Tensor, measures: Iterable[StealthMeasure] = ("psnr", "ssim")
) -> dict[StealthMeasure, Measured]:
    """Measures of how little a change shows, each of every image.

    Args:
        images: N × C × H × W, floating, in [0, 1].
        adversarial: the same, changed.
        measures: which.

    Raises:
        UserError: an unknown measure, images that do not fit each other, or a library that is not installed.
    """
    wanted = [*dict.fromkeys(measures)]
    for measure in wanted:
        if measure not in get_args(StealthMeasure):
            raise UserError(f"unknown measure {measure!r}; choose from {', '.join(get_args(StealthMeasure))}")
    if images.shape != adversarial.shape or images.ndim != 4:
        shapes = f"{tuple(images.shape)} and {tuple(adversarial.shape)}"
        raise UserError(f"images and adversarial images must be N × C × H × W alike, got {shapes}")
    check_measures(wanted)
    return {measure: _MEASURES[measure](images, adversarial) for measure in wanted}


def _psnr(images: torch.Tensor, adversarial: torch.Tensor) -> Measured:
    squared = (adversarial.double() - images.double()).square().mean(dim=(1, 2, 3)).cpu().numpy()
    changed = squared > 0
    values = np.full(len(squared), np.nan)
    values[changed] = -10 * np.log10(squared[changed])
    return Measured(values, "" if changed.all() else UNCHANGED)


def _ssim(images: torch.Tensor, adversarial: torch.Tensor) -> Measured:
    from skimage.metrics import structural_similarity

    if min(images.shape[2:]) < _WINDOW:
        return Measured(np.full(len(images), np.nan), SMALL)
    # A call per image: of many, the library takes as much memory as several copies of all.
    pairs = zip(images.cpu().double().numpy(), adversarial.cpu().double().numpy(), strict=True)
    values = [
        structural_similarity(
            image,
            changed,
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for image, changed in pairs
    ]
    return Measured(np.array(values, dtype=np.float64), "")


def _lpips(images: torch.Tensor, adversarial: torch.Tensor) -> Measured:
    import torch

    network = _lpips_network().to(images.device)
    found = []
    with torch.no_grad():
        for image, changed in zip(images.split(32), adversarial.split(32), strict=True):
            # Its pixels lie in [−1, 1].
            found.append(network(2 * image.float() - 1, 2 * changed.float() - 1).flatten().double().cpu())
    return Measured(torch.cat(found).numpy() if found else np.empty(0), "")


@functools.lru_cache(maxsize=1)
def _lpips_network() -> torch.nn.Module:
    """The network behind LPIPS; its weights come from the internet the first time.

    Raises:
        UserError: it cannot be had.
    """
    import lpips

    try:
        network: torch.nn.Module = lpips.LPIPS(net="alex", verbose=False).eval()
    except Exception as error:  # somebody else's code, which reads files and the internet
        raise UserError(f"lpips cannot be made: {type(error).__name__}: {error}") from error
    return network


_MEASURES: dict[StealthMeasure, Callable[[torch.Tensor, torch.Tensor], Measured]] = {
    "psnr": _psnr,
    "ssim": _ssim,
    "lpips": _lpips,
}
