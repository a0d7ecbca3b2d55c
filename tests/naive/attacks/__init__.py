"""Naive transfer attacks: float64, one image at a time, plain loops.

Every function takes a model from pixels in [0, 1] to logits (float64 parameters), images N×C×H×W float64 in
[0, 1] and integer labels N, and returns the last iterate, N×C×H×W float64; its ``trace`` tells more. What all
share is defined in ``loop.py``. Random numbers are not made here: ``draws`` hands in one stream per image.
"""

from tests.naive.attacks.chains import FAMILIES, l2t
from tests.naive.attacks.inputs import (
    Choice,
    admix,
    admixed,
    block_shuffled,
    bsr,
    decowa,
    di_fgsm,
    diversified,
    scaled,
    si_fgsm,
    si_ni_fgsm,
    spectral,
    ssa,
)
from tests.naive.attacks.loop import Draws, Trace
from tests.naive.attacks.neighbours import awt, emi_fgsm, gra, mef, pgn, vmi_fgsm, vni_fgsm
from tests.naive.attacks.patchwork import patched, sia
from tests.naive.attacks.sign import fgsm, i_fgsm, mi_fgsm, ni_fgsm, pgd, smoothed, ti_fgsm
from tests.naive.attacks.styles import stm

__all__ = [
    "FAMILIES",
    "Choice",
    "Draws",
    "Trace",
    "admix",
    "admixed",
    "awt",
    "block_shuffled",
    "bsr",
    "decowa",
    "di_fgsm",
    "diversified",
    "emi_fgsm",
    "fgsm",
    "gra",
    "i_fgsm",
    "l2t",
    "mef",
    "mi_fgsm",
    "ni_fgsm",
    "patched",
    "pgd",
    "pgn",
    "scaled",
    "si_fgsm",
    "si_ni_fgsm",
    "sia",
    "smoothed",
    "spectral",
    "ssa",
    "stm",
    "ti_fgsm",
    "vmi_fgsm",
    "vni_fgsm",
]
