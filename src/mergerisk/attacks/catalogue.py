"""Attacks by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError
from mergerisk.registry import Entry, Registry

if TYPE_CHECKING:
    from mergerisk.attacks.attack import Attack
    from mergerisk.attacks.ensemble_gradients import EnsembleAlgorithm

_ADAPTIVE = "mergerisk.attacks.adaptive_steps"
_SIGN = "mergerisk.attacks.gradient_sign"
_NEIGHBOURS = "mergerisk.attacks.neighbours"
_TRANSFORMERS = "mergerisk.attacks.vision_transformers"
_FEATURES = "mergerisk.attacks.convolutional"
_FORWARD = "mergerisk.attacks.forward_refinement"
_EMBEDDING = "mergerisk.attacks.embedding"
_ENSEMBLES = "mergerisk.attacks.ensemble_gradients"

ATTACKS: Registry[type[Attack]] = Registry(
    "attack",
    "mergerisk.attacks",
    [
        Entry("fgsm", f"{_SIGN}:FGSM", "one step of size ε along the gradient's sign", "arXiv 1412.6572"),
        Entry("i_fgsm", f"{_SIGN}:IFGSM", "FGSM in several small steps (BIM)", "arXiv 1607.02533"),
        Entry("pgd", f"{_SIGN}:PGD", "I-FGSM from a random start", "arXiv 1706.06083"),
        Entry("mi_fgsm", f"{_SIGN}:MIFGSM", "I-FGSM with momentum", "arXiv 1710.06081"),
        Entry("ni_fgsm", f"{_SIGN}:NIFGSM", "MI-FGSM with Nesterov look-ahead", "arXiv 1908.06281"),
        Entry("ti_fgsm", f"{_SIGN}:TIFGSM", "MI-FGSM with blurred gradients", "arXiv 1904.02884"),
        Entry("di_fgsm", f"{_SIGN}:DIFGSM", "MI-FGSM with randomly resized inputs", "arXiv 1803.06978"),
        Entry("si_fgsm", f"{_SIGN}:SIFGSM", "MI-FGSM over scales of the pixel values", "arXiv 1908.06281"),
        Entry("si_ni_fgsm", f"{_SIGN}:SINIFGSM", "NI-FGSM over scales of the pixel values", "arXiv 1908.06281"),
        Entry("vmi_fgsm", f"{_NEIGHBOURS}:VMIFGSM", "MI-FGSM with tuned gradient variance", "arXiv 2103.15571"),
        Entry("vni_fgsm", f"{_NEIGHBOURS}:VNIFGSM", "NI-FGSM with tuned gradient variance", "arXiv 2103.15571"),
        Entry("admix", f"{_SIGN}:AdmixFGSM", "MI-FGSM on images mixed with others", "arXiv 2102.00436"),
        Entry(
            "ssa", f"{_SIGN}:SSA", "MI-FGSM under noise in the frequency domain", "arXiv 2207.05382", revision=2
        ),
        Entry("pgn", f"{_NEIGHBOURS}:PGN", "towards flat regions, by penalised gradient norm", "arXiv 2306.05225"),
        Entry("gra", f"{_NEIGHBOURS}:GRA", "neighbours' gradients by their relevance", "ICCV 2023"),
        Entry("bsr", f"{_SIGN}:BSR", "MI-FGSM on shuffled and rotated blocks", "arXiv 2308.10299"),
        Entry(
            "emi_fgsm", f"{_NEIGHBOURS}:EMIFGSM", "gradients along the line of the one before", "arXiv 2103.10609"
        ),
        Entry("mef", f"{_NEIGHBOURS}:MEF", "gradients at neighbours where the loss is low", "arXiv 2405.16181"),
        Entry(
            "sia", "mergerisk.attacks.patchwork:SIA", "MI-FGSM on blocks changed each its way", "arXiv 2309.14700"
        ),
        Entry(
            "stm", "mergerisk.attacks.style_transfer:STM", "MI-FGSM on images in drawn styles", "arXiv 2308.10601"
        ),
        Entry(
            "l2t",
            "mergerisk.attacks.learned_transforms:L2T",
            "MI-FGSM on drawn chains of operations",
            "arXiv 2405.14077",
            revision=2,
        ),
        Entry("awt", "mergerisk.attacks.weight_tuning:AWT", "PGN on a surrogate tuned to resist", "AAAI 2025"),
        Entry("decowa", "mergerisk.attacks.warping:DeCowA", "MI-FGSM on warped images", "arXiv 2402.03951"),
        Entry(
            "pna_patchout",
            f"{_TRANSFORMERS}:PNAPatchOut",
            "ViTs: attention frozen, random patches",
            "arXiv 2109.04176",
        ),
        Entry("tgr", f"{_TRANSFORMERS}:TGR", "ViTs: extreme token gradients tamed", "arXiv 2303.15754"),
        Entry("att", "mergerisk.attacks.token_tuning:ATT", "ViTs: token gradients tuned", "NeurIPS 2024"),
        Entry(
            "fpr",
            "mergerisk.attacks.forward_refinement:FPR",
            "ViTs: diverse attention, slow tokens",
            "arXiv 2503.15404",
        ),
        Entry("sgm", f"{_FEATURES}:SGM", "less gradient through residual branches", "arXiv 2002.05990"),
        Entry("fia", f"{_FEATURES}:FIA", "against important features of a layer", "arXiv 2107.14185"),
        Entry("naa", f"{_FEATURES}:NAA", "against a layer's attributions", "arXiv 2204.00008", revision=2),
        Entry("ilpd", f"{_FEATURES}:ILPD", "a layer lets little of the perturbation pass", "arXiv 2304.13410"),
        Entry("feature", f"{_EMBEDDING}:Feature", "away from an image's own features, no label", "own"),
        Entry("apgd_ce", f"{_ADAPTIVE}:APGD", "PGD whose steps follow what they gain", "arXiv 2003.01690"),
        Entry("apgd_dlr", f"{_ADAPTIVE}:APGDRatio", "APGD on a ratio of logits", "arXiv 2003.01690"),
        Entry("square", "mergerisk.attacks.square:Square", "random squares, no gradient", "arXiv 1912.00049"),
        Entry(
            "universal", "mergerisk.attacks.universal:Universal", "one perturbation for all", "arXiv 1610.08401"
        ),
    ],
)
"""Built in, installed and registered attacks."""

BROUGHT = ("file", "style")
"""Hyper-parameters of attacks that name what lies elsewhere, a path in it perhaps."""

ENSEMBLE_ALGORITHMS: Registry[type[EnsembleAlgorithm]] = Registry(
    "ensemble algorithm",
    "mergerisk.ensemble_algorithms",
    [
        Entry("svre", f"{_ENSEMBLES}:SVRE", "steps along one member each, variance reduced", "arXiv 2111.10752"),
        Entry("cwa", f"{_ENSEMBLES}:CWA", "towards flat places that members share", "arXiv 2303.09105"),
        Entry("adaea", f"{_ENSEMBLES}:AdaEA", "members weighed by how they transfer", "arXiv 2308.02897"),
        Entry("smer", f"{_ENSEMBLES}:SMER", "one member after the other, reweighed", "CVPR 2024"),
    ],
)
"""How an ensemble may be followed: what its ``algorithm`` can name."""


def create(name: str, /, **parameters: Any) -> Attack:
    """The attack called ``name`` with these hyper-parameters, checked.

    Raises:
        UserError: unknown name or hyper-parameter, or a value out of range.
    """
    known = getattr(ATTACKS.load(name), "__dataclass_fields__", {})
    for key in ("epsilon", "eps", "budget"):
        if key in parameters and key not in known:
            raise UserError(
                f"attack {name!r}: {key}: the budget is none of an attack's hyper-parameters; give it by itself: "
                "--epsilon 8/255 on the command line, budgets: {epsilon: [8/255]} in a study"
            )
    attack: Attack = ATTACKS.create(name, parameters)
    return attack


def create_algorithm(name: str, /, **parameters: Any) -> EnsembleAlgorithm:
    """The ensemble algorithm called ``name`` with these hyper-parameters, checked.

    Raises:
        UserError: unknown name or hyper-parameter, or a value out of range.
    """
    made: EnsembleAlgorithm = ENSEMBLE_ALGORITHMS.create(name, parameters)
    return made
