"""What measures of diagnostics are called, and what they are, for somebody who never heard of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class MeasureWords:
    """A measure for somebody who never heard of it.

    Attributes:
        title: its name in words.
        sentence: what it is.
        larger: what images or methods with larger values are called.
    """

    title: str
    sentence: str
    larger: str


_WORDS: Mapping[str, tuple[str, str, str]] = {
    "gradient_alignment": (
        "gradient alignment",
        (
            "Do both models want to change the same pixels? The cosine of their gradients: 1 where a step "
            "that hurts the attacker’s model hurts the merge in the same direction, 0 where the two have "
            "nothing in common."
        ),
        "gradients that point more alike",
    ),
    "first_order_gain": (
        "first-order gain",
        (
            "How much of the best possible first step on the merge does the attacker’s own first step "
            "gain? 1 is all of it, 0 no more than a random step."
        ),
        "gradients that point more alike",
    ),
    "gradient_size_l1": (
        "gradient size (L1)",
        "How steeply the merge’s loss rises when pixels change: steep images need a smaller change.",
        "steeper losses",
    ),
    "gradient_size_l2": (
        "gradient size (L2)",
        (
            "How steeply the merge’s loss rises when pixels change, measured by length: steep images need "
            "a smaller change."
        ),
        "steeper losses",
    ),
    "gradient_ratio_l1": (
        "gradient ratio (L1)",
        "How much steeper the merge’s loss is than that of the attacker’s model, on the same image.",
        "losses that are steep compared with the attacker’s",
    ),
    "gradient_ratio_l2": (
        "gradient ratio (L2)",
        ("How much steeper the merge’s loss is than that of the attacker’s model, on the same image, by length."),
        "losses that are steep compared with the attacker’s",
    ),
    "curvature_surrogate": (
        "curvature of the attacker’s model",
        ("How fast the attacker’s gradient turns when pixels change: how far its directions can be trusted."),
        "more curved losses of the attacker’s model",
    ),
    "curvature_target": (
        "curvature of the merge",
        "How fast the merge’s gradient turns when pixels change.",
        "more curved losses",
    ),
    "gradient_change_surrogate": (
        "gradient change of the attacker’s model",
        "How much the attacker’s gradient changes under a small random change of the pixels.",
        "gradients of the attacker’s model that change more",
    ),
    "gradient_change_target": (
        "gradient change of the merge",
        "How much the merge’s gradient changes under a small random change of the pixels.",
        "gradients that change more",
    ),
    "boundary_distance": (
        "distance to the boundary",
        ("How far the image is from being taken for something else by the merge, as its gradients tell."),
        "boundaries farther away",
    ),
    "boundary_along_surrogate": (
        "distance along the attack, on the attacker’s model",
        "How far one walks along the attacker’s direction until the attacker’s own model errs.",
        "longer ways until the attacker’s model errs",
    ),
    "boundary_along_target": (
        "distance along the attack, on the merge",
        "How far one walks along the attacker’s direction until the merge errs.",
        "longer ways until the merge errs",
    ),
    "boundary_gap": (
        "gap between the boundaries",
        (
            "How much farther along the attacker’s direction the merge errs than the attacker’s model "
            "does: near 0 where their decision boundaries lie side by side."
        ),
        "boundaries farther behind the attacker’s",
    ),
    "agreement": (
        "agreement",
        "Do both models say the same of the untouched image?",
        "more agreement with the attacker’s model",
    ),
    "shared_error": (
        "shared errors",
        "Of untouched images that one of the models gets wrong: does the other, too?",
        "more errors shared with the attacker’s model",
    ),
    "diversity": (
        "diversity",
        (
            "How little the merge is misled by an image that looks like another one to the attacker’s "
            "features: low where the two rely on the same fragile features."
        ),
        "fewer fragile features shared",
    ),
    "representation_bias": (
        "representation bias",
        "How far apart the features are that merge and attacker’s model see in the same image.",
        "features farther from the attacker’s",
    ),
    "cka": (
        "CKA",
        (
            "How alike the two models arrange all images in their features, whatever the axes: 1 is the "
            "same up to a turn, 0 nothing alike."
        ),
        "features arranged more alike",
    ),
    "procrustes": (
        "Procrustes distance",
        "How far apart the two models’ features remain after the best turn of the one onto the other.",
        "features farther apart after the best turn",
    ),
    "mean_cosine": (
        "mean cosine of features",
        "How much the features of the two models point the same way, on average over images.",
        "features that point more alike",
    ),
    "feature_shift": (
        "feature shift",
        "How far the attack moves what the merge sees: does it arrive?",
        "features that the attack moves farther",
    ),
    "feature_shift_surrogate": (
        "feature shift on the attacker’s model",
        "How far the attack moves what the attacker’s own model sees.",
        "features of the attacker’s model that the attack moves farther",
    ),
    "feature_shift_cosine": (
        "direction of the feature shift",
        (
            "Does the attack push the merge’s features the way it pushes the attacker’s? The cosine of "
            "the two shifts."
        ),
        "features pushed more alike",
    ),
    "linearity": (
        "linearity",
        ("Are the merge’s features the same mix of its ingredients’ features as its weights are of theirs?"),
        "features that are more of a mix of the ingredients’",
    ),
    "linearity_ratio": (
        "size of features against the mix",
        "Whether the merge’s features keep the length that a mix of the ingredients’ would have.",
        "features longer than the ingredients’ mix",
    ),
    "entropy_surrogate": (
        "uncertainty of the attacker’s model",
        "How unsure the attacker’s model is of the untouched image.",
        "less certainty of the attacker’s model",
    ),
    "entropy_target": (
        "uncertainty of the merge",
        "How unsure the merge is of the untouched image.",
        "less certainty of the merge",
    ),
    "weight_distance": (
        "weight distance",
        ("How far the merge’s weights are from the ingredient’s, as a multiple of how far fine-tuning moved it."),
        "weights farther from the ingredient’s",
    ),
    "weight_cosine": (
        "weight cosine",
        "Does merging move the weights the way the ingredient’s fine-tuning did?",
        "weights moved more like the ingredient’s",
    ),
    "sign_conflicts": (
        "sign conflicts",
        "The share of weights that merge and ingredient move in opposite directions.",
        "more weights moved against the ingredient",
    ),
    "norm_spread": (
        "spread of task vectors",
        "How much longer the longest task vector is than the shortest.",
        "more unequal task vectors",
    ),
    "loss_barrier": (
        "loss barrier",
        "How high the loss rises on the straight way from the ingredient to the merge.",
        "higher barriers to the ingredient",
    ),
    "adversarial_loss_barrier": (
        "adversarial loss barrier",
        "The same way, on attacked images.",
        "higher barriers on attacked images",
    ),
    "subspace_alignment": (
        "subspace alignment",
        "How much of the ingredient’s task vector lies in the main directions of the merge.",
        "more of the ingredient in the merge’s main directions",
    ),
    "interference": (
        "interference",
        "How much the ingredients’ main directions get into each other’s way.",
        "more interference of ingredients",
    ),
    "interference_relative": (
        "relative interference",
        "How much the ingredients’ main directions get into each other’s way, per unit of their size.",
        "more interference of ingredients",
    ),
    "over_accumulation": (
        "over-accumulation",
        (
            "How much stronger directions that ingredients share come out of the merge than any "
            "ingredient has them."
        ),
        "shared directions that come out stronger",
    ),
}


def words_of(measure: str, meaning: str = "") -> MeasureWords:
    """What a measure is called; of one from elsewhere its own name, and what its table declares.

    Args:
        measure: the column of its diagnostic.
        meaning: as its table declares it.
    """
    if measure in _WORDS:
        return MeasureWords(*_WORDS[measure])
    title = measure.replace("_", " ")
    return MeasureWords(title, meaning or "A diagnostic of an installed package.", f"a larger {title}")
