"""BatchNorm's running statistics after a merge: no combination of weights preserves them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import nn

from mergerisk.errors import UserError
from mergerisk.randomness import generator
from mergerisk.tasks.images import check_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.merging.material import Calibration, Tensors
    from mergerisk.models.core.encoder import Encoder, State

BatchNormStatistics = Literal["reestimate", "average"]
"""What becomes of running statistics: estimated anew on unlabelled images, or the experts' mean."""

_BATCH = 64


def is_statistic(name: str, state: Tensors) -> bool:
    """Whether a tensor is a running mean or variance, by the names that PyTorch's BatchNorm gives them."""
    layer, _, own = name.rpartition(".")
    pair = {"running_mean", "running_var"}
    return own in pair and all((f"{layer}.{other}" if layer else other) in state for other in pair)


def batch_norm_layers(module: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """The layers that normalise with running statistics, by every name they have."""
    return {
        name: layer
        for name, layer in module.named_modules(remove_duplicate=False)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None
    }


def reestimate_batch_norm(
    encoder: Encoder, experts: Iterable[str], calibration: Mapping[str, Calibration], seed: int = 0
) -> State:
    """Running statistics of an encoder's own activations on unlabelled images, as in stochastic weight averaging
    (Izmailov et al. 2018, arXiv 1803.05407, section 3.2); REPAIR (Jordan et al. 2023, arXiv 2211.08403) shows
    that merges need them.

    Every image counts once, so a task weighs by its images. Batches of 64 or a few more mix all tasks; mean and
    variance are averaged over batches.

    Args:
        encoder: left as it is.
        experts: the tasks merged.
        calibration: images of every one of them.
        seed: of the order in which images are drawn.

    Returns:
        By their names in the encoder's state, statistics and batch counts of the layers that images reach.

    Raises:
        UserError: there are too few images to have a variance.
    """
    pools = [calibration[task].images for task in sorted(experts)]
    owners = torch.cat([torch.full((len(pool),), position) for position, pool in enumerate(pools)])
    places = torch.cat([torch.arange(len(pool)) for pool in pools])
    twin = copy.deepcopy(encoder)
    layers = batch_norm_layers(twin.backbone)
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over batches
        layer.train()
    order = torch.randperm(len(owners), generator=generator(seed, "batch_norm"))
    with torch.no_grad():
        # A last batch much smaller than the others would weigh as much as they do.
        for batch in order.tensor_split(max(1, len(order) // _BATCH)):
            images = [
                encoder.resized(pools[owner][place][None])
                for owner, place in zip(owners[batch], places[batch], strict=True)
            ]
            try:
                twin.encode(torch.cat(images).to(encoder.mean.device))
            except ValueError as error:  # a single value per channel has no variance
                raise UserError(f"BatchNorm statistics need more calibration images: {error}") from error
    return {
        name: tensor
        for prefix, layer in layers.items()
        if layer.num_batches_tracked
        for name, tensor in layer.named_buffers(prefix, recurse=False)
    }


def check_batch_norm(
    base: Encoder,
    experts: Iterable[str],
    calibration: Mapping[str, Calibration] | None,
    statistics: BatchNormStatistics,
) -> bool:
    """Whether statistics are to be estimated anew.

    Raises:
        UserError: they are, but a task has no images to do it on, or pixels out of range; or ``statistics`` is
            neither of its values.
    """
    if statistics not in get_args(BatchNormStatistics):
        raise UserError(f"batch_norm must be 'reestimate' or 'average', got {statistics!r}")
    if statistics == "average" or not batch_norm_layers(base.backbone):
        return False
    given = calibration or {}
    lacking = [task for task in experts if task not in given or not len(given[task].images)]
    if lacking:
        raise UserError(
            "the encoder has BatchNorm layers, whose statistics no merge of weights preserves: pass calibration "
            f"images of task {lacking[0]!r}, or batch_norm='average' to keep the experts' mean"
        )
    for task in experts:
        check_pixels(given[task].images, f"calibration for task {task!r}")
    return True
