"""Diagnostics by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergerisk.registry import Entry, Registry

if TYPE_CHECKING:
    from mergerisk.causes.cause import Cause

_ROOM = "mergerisk.causes"

CAUSES: Registry[type[Cause]] = Registry(
    "cause",
    "mergerisk.causes",
    [
        Entry(
            "gradient_alignment",
            f"{_ROOM}.gradient_alignment:GradientAlignment",
            "cosine of the two models' input gradients",
            "arXiv 1809.02861",
        ),
        Entry(
            "gradient_size",
            f"{_ROOM}.gradient_size:GradientSize",
            "how steep the target's loss is, also beside the surrogate's",
            "arXiv 1809.02861",
        ),
        Entry(
            "smoothness",
            f"{_ROOM}.smoothness:Smoothness",
            "largest curvature of both losses in the pixels",
            "arXiv 2307.07873",
        ),
        Entry(
            "boundary_distance",
            f"{_ROOM}.boundary_distance:BoundaryDistance",
            "how far the target's decision boundary is, and along the surrogate's step",
            "arXiv 1704.03453",
        ),
        Entry(
            "agreement",
            f"{_ROOM}.agreement:Agreement",
            "same answers, same errors, same mistakes",
            "arXiv 2112.14337",
        ),
        Entry(
            "diversity",
            f"{_ROOM}.diversity:Diversity",
            "the target's loss on images that look like others to the surrogate",
            "arXiv 2009.14720",
        ),
        Entry(
            "representation_bias",
            f"{_ROOM}.representation_bias:RepresentationBias",
            "mean absolute distance of the features, per block too",
            "arXiv 2402.02705",
        ),
        Entry("cka", f"{_ROOM}.cka:CKA", "similarity of the features' geometry, per block", "arXiv 1905.00414"),
        Entry(
            "feature_shift",
            f"{_ROOM}.feature_shift:FeatureShift",
            "how far an attack on the surrogate moves the target's features",
        ),
        Entry(
            "linearity",
            f"{_ROOM}.linearity:Linearity",
            "whether a linear merge's features are the mix of its experts' features",
            "arXiv 2402.03660",
        ),
        Entry(
            "weight_distance",
            f"{_ROOM}.weight_distance:WeightDistance",
            "how far the merge is from its ingredient, and in which direction",
            "arXiv 2508.01148",
        ),
        Entry(
            "loss_barrier",
            f"{_ROOM}.loss_barrier:LossBarrier",
            "rise of the loss between ingredient or base and merge",
            "arXiv 1912.05671",
        ),
        Entry(
            "subspace_alignment",
            f"{_ROOM}.subspace_alignment:SubspaceAlignment",
            "share of the ingredient that lies where the merge moved",
            "arXiv 2502.04959",
        ),
        Entry(
            "interference",
            f"{_ROOM}.interference:Interference",
            "how much the merged tasks' singular directions overlap",
            "arXiv 2412.00081",
        ),
        Entry(
            "confidence", f"{_ROOM}.confidence:Confidence", "entropy of what both models say", "arXiv 2508.01148"
        ),
    ],
)
"""Built in, installed and registered diagnostics."""


def create(name: str, /, **parameters: Any) -> Cause:
    """The diagnostic called ``name`` with these hyper-parameters, checked.

    Raises:
        UserError: unknown name or hyper-parameter, or a value out of range.
    """
    cause: Cause = CAUSES.create(name, parameters)
    return cause
