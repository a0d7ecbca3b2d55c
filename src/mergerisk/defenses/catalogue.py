"""Defenses by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from mergerisk.registry import Entry, Registry

if TYPE_CHECKING:
    from mergerisk.defenses.defense import Defense
    from mergerisk.defenses.detector import Detector
    from mergerisk.defenses.hidden import HidingDefense
    from mergerisk.defenses.mixing import MixingDefense
    from mergerisk.defenses.training import TrainingDefense

    Training = Literal[
        "pubdef",
        "fare",
        "adversarial_distillation",
        "decorrelate",
        "tecoa",
        "trades",
        "sam",
        "gradient_penalty",
        "private_tuning",
    ]
    Hiding = Literal["secrecy", "ensemble_of_merges", "lambda_per_query"]
    Mixing = Literal["robust_vector", "robust_soup"]
    """Those that are built in, by what they are."""

    Known = Defense | Detector | TrainingDefense | HidingDefense | MixingDefense

DEFENSES: Registry[type[Known]] = Registry(
    "defense",
    "mergerisk.defenses",
    [
        Entry(
            "bit_depth",
            "mergerisk.defenses.bit_depth:BitDepth",
            "pixels rounded to a few levels before the model sees them",
            "arXiv 1704.01155",
        ),
        Entry("jpeg", "mergerisk.defenses.jpeg:JPEG", "pixels compressed and read again", "arXiv 1711.00117"),
        Entry("median", "mergerisk.defenses.median:Median", "medians of small windows", "arXiv 1704.01155"),
        Entry(
            "resize_pad",
            "mergerisk.defenses.resize_pad:ResizePad",
            "a little smaller, at a random place on black",
            "arXiv 1711.01991",
        ),
        Entry(
            "smoothing",
            "mergerisk.defenses.smoothing:Smoothing",
            "the majority under noise, with a certified radius",
            "arXiv 1902.02918",
        ),
        Entry(
            "detector",
            "mergerisk.defenses.detector:Detector",
            "images are rejected on which a public model disagrees",
        ),
        Entry(
            "pubdef",
            "mergerisk.defenses.pubdef:PubDef",
            "trained on images that were crafted on public models",
            "arXiv 2310.17645",
        ),
        Entry(
            "fare",
            "mergerisk.defenses.fare:Fare",
            "trained to keep its own features under attack, without labels",
            "arXiv 2402.12336",
        ),
        Entry(
            "adversarial_distillation",
            "mergerisk.defenses.adversarial_distillation:AdversarialDistillation",
            "trained to keep its own answers under attack, without labels",
            "arXiv 2108.07969",
        ),
        Entry(
            "decorrelate",
            "mergerisk.defenses.decorrelate:Decorrelate",
            "trained to have other gradients than public models",
            "arXiv 1901.09981, 2104.00671",
        ),
        Entry(
            "tecoa",
            "mergerisk.defenses.tecoa:TeCoA",
            "trained on the worst images alone",
            "arXiv 2212.07016",
        ),
        Entry(
            "trades",
            "mergerisk.defenses.trades:Trades",
            "trained to say the same of the worst images; awp for weights too",
            "arXiv 1901.08573, 2004.05884",
        ),
        Entry("sam", "mergerisk.defenses.sam:SAM", "trained to a flat minimum", "arXiv 2010.01412"),
        Entry(
            "gradient_penalty",
            "mergerisk.defenses.gradient_penalty:GradientPenalty",
            "trained to small input gradients",
            "arXiv 1711.09404",
        ),
        Entry(
            "robust_vector",
            "mergerisk.defenses.robust_vector:RobustVector",
            "what robust training adds to the base, added to a merge",
        ),
        Entry(
            "robust_soup",
            "mergerisk.defenses.robust_soup:RobustSoup",
            "a mix of models trained against L∞ and against L2",
            "arXiv 2302.10164",
        ),
        Entry(
            "private_tuning",
            "mergerisk.defenses.private_tuning:PrivateTuning",
            "a short fine-tune, an ingredient or a base that nobody else has",
        ),
        Entry("secrecy", "mergerisk.defenses.secrecy:Secrecy", "a merge with a hidden λ"),
        Entry(
            "ensemble_of_merges",
            "mergerisk.defenses.ensemble_of_merges:EnsembleOfMerges",
            "merges with hidden λ and draws that answer together",
        ),
        Entry(
            "lambda_per_query",
            "mergerisk.defenses.lambda_per_query:LambdaPerQuery",
            "another merge for every picture, with hidden λ and draws",
        ),
    ],
)
"""Everything that ``mergerisk list defenses`` shows; plugins add to it."""


@overload
def create(name: Training, /, **parameters: Any) -> TrainingDefense: ...


@overload
def create(name: Hiding, /, **parameters: Any) -> HidingDefense: ...


@overload
def create(name: Literal["detector"], /, **parameters: Any) -> Detector: ...


@overload
def create(name: Mixing, /, **parameters: Any) -> MixingDefense: ...


@overload
def create(name: str, /, **parameters: Any) -> Defense: ...


def create(name: str, /, **parameters: Any) -> Known:
    """The defense called ``name`` with these hyper-parameters, checked: one that stands around a classifier, a
    :class:`~mergerisk.defenses.Defense`; one that compares it with another, a
    :class:`~mergerisk.defenses.Detector`; one that trains an encoder, a
    :class:`~mergerisk.defenses.TrainingDefense`; one that mixes weights, a
    :class:`~mergerisk.defenses.MixingDefense`; or one that hides how a merge is made, a
    :class:`~mergerisk.defenses.HidingDefense`.

    Raises:
        UserError: unknown name or hyper-parameter, or a value out of range.
    """
    defense: Known = DEFENSES.create(name, parameters)
    return defense
