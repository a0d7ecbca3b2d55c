"""Tensors with several names: tied weights, in memory and on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


def tied_names(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Further names of tensors that are one and the same → the first name of each.

    In memory they share it. On disk a tensor is kept once: its other names are the ``aliases`` that
    :class:`mergerisk.models.on_disk.checkpoints.StoredTensors` knows.
    """
    if not isinstance(state, dict):
        return dict(getattr(state, "aliases", {}))
    firsts: dict[tuple[object, ...], str] = {}
    found = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        first = firsts.setdefault(place if tensor.numel() else (name,), name)
        if first != name:
            found[name] = first
    return found


def retie(module: nn.Module, like: nn.Module) -> None:
    """Make parameters of ``module`` one that are one in ``like``, if they are still equal.

    Loading a state dict gives every name a parameter of its own. Those with other values stay apart: whoever loads
    them says whether that is a fault.
    """
    own = dict(module.named_parameters(remove_duplicate=False))
    firsts: dict[nn.Parameter, str] = {}
    for name, parameter in like.named_parameters(remove_duplicate=False):
        first = firsts.setdefault(parameter, name)
        one, twin = own[first], own[name]
        if one is not twin and (one.data_ptr() == twin.data_ptr() or torch.equal(one, twin)):
            place, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(place), attribute, one)
