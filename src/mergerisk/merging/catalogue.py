"""Merging methods by name, and how a name with its hyper-parameters becomes a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError
from mergerisk.registry import Entry, Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.merging.method import MergingMethod
    from mergerisk.merging.surgery import Surgery
    from mergerisk.models.encoder import State

METHODS: Registry[type[MergingMethod]] = Registry(
    "merging method",
    "mergerisk.merging",
    [
        Entry(
            "weight_averaging",
            "mergerisk.merging.averaging:WeightAveraging",
            "mean of the experts' parameters",
            "arXiv 2203.05482",
        ),
        Entry(
            "task_arithmetic",
            "mergerisk.merging.averaging:TaskArithmetic",
            "base plus the scaled sum of task vectors",
            "arXiv 2212.04089",
        ),
        Entry(
            "ties",
            "mergerisk.merging.ties:Ties",
            "trim task vectors, elect signs, merge what agrees",
            "arXiv 2306.01708",
        ),
        Entry(
            "adamerging",
            "mergerisk.merging.adamerging:AdaMerging",
            "coefficients per layer learnt by minimising entropy on unlabelled images",
            "arXiv 2310.02575",
        ),
    ],
)
"""Methods that yield an encoder."""

CORRECTIONS: Registry[type[Surgery]] = Registry(
    "correction",
    "mergerisk.corrections",
    [
        Entry(
            "surgery",
            "mergerisk.merging.surgery:Surgery",
            "stacked on any method (ties+surgery): per-task adapters on the merged features",
            "arXiv 2402.02705",
        ),
    ],
)
"""What is stacked on a method with ``+``."""


def split_name(name: str) -> tuple[str, str | None]:
    """``"ties+surgery"`` → ``("ties", "surgery")``; both parts are checked.

    Raises:
        UserError: an unknown part, or more than one ``+``.
    """
    method, *stacked = name.split("+")
    METHODS.check(method)
    if len(stacked) > 1:
        raise UserError(f"merging method {name!r}: at most one correction can be stacked on a method")
    if not stacked:
        return method, None
    CORRECTIONS.check(stacked[0])
    return method, stacked[0]


def create(name: str, **parameters: Any) -> MergingMethod:
    """The method called ``name`` with these hyper-parameters, checked.

    Args:
        name: a registered method, or one with a correction stacked on it: ``"ties+surgery"``.
        **parameters: the method's hyper-parameters; a correction's go in a mapping under its own name:
            ``create("ties+surgery", density=0.3, surgery={"rank": 8})``.

    Raises:
        UserError: unknown name or hyper-parameter, or a value out of range.
    """
    method_name, correction_name = split_name(name)
    if correction_name is None:
        method: MergingMethod = METHODS.create(method_name, parameters)
        return method
    own = {key: value for key, value in parameters.items() if key != correction_name}
    from mergerisk.merging.stacked import Stacked

    return Stacked(
        method=METHODS.create(method_name, own),
        correction=CORRECTIONS.create(correction_name, parameters.get(correction_name) or {}),
    )


def merge_state_dicts(name: str, base: State, experts: Sequence[State], **parameters: Any) -> State:
    """Merge plain state dicts with a method that needs no data.

    Args:
        name: a registered method.
        base: the pretrained parameters θ0.
        experts: the experts' parameters, same names and shapes.
        **parameters: the method's hyper-parameters.

    Returns:
        New tensors by the base's names; integer tensors are copied from the base.

    Raises:
        UserError: the method needs images, or states that do not fit each other.
    """
    import torch

    from mergerisk.merging.method import StateMerging, check_states

    method = create(name, **parameters)
    if not isinstance(method, StateMerging):
        raise UserError(
            f"{name} is no function of state dicts alone; use mergerisk.merging.create({name!r}).merge"
        )
    check_states(base, {str(position): expert for position, expert in enumerate(experts)})
    with torch.no_grad():
        return method.merge_states(base, experts)
