"""The claims that were published, of the study on 336 settings and of its poster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.statistics.claims.extreme import ExtremeClaim
from mergerisk.statistics.claims.paired import PairedClaim
from mergerisk.statistics.claims.rate import RateClaim
from mergerisk.statistics.claims.trend import TrendClaim

if TYPE_CHECKING:
    from mergerisk.statistics.claims.claim import Claim

PUBLISHED: dict[str, tuple[str | float, ...]] = {"surrogate_role": ("expert", "pretrained")}
"""The surrogates of the published studies: the attacked task's own expert, and the pretrained model."""

BUILT_IN: tuple[Claim, ...] = (
    RateClaim(
        name="no_robustness",
        sentence="Merging gives no robustness: attacks that fool a surrogate fool merges about as often.",
        where=PUBLISHED,
        measure="relative_asr",
        expect="higher",
        against=1,
        margin=0.05,
    ),
    TrendClaim(
        name="stronger_more_vulnerable",
        sentence="Stronger merging is more vulnerable: relative ASR rises with clean accuracy.",
        where=PUBLISHED,
        by="clean_accuracy",
    ),
    PairedClaim(
        name="bias_mitigation",
        sentence="Mitigating representation bias makes merges more vulnerable: relative ASR rises with Surgery.",
        where=PUBLISHED,
        first={"correction": "surgery"},
        second={"correction": "none"},
        expect="higher",
    ),
    ExtremeClaim(
        name="averaging_worst",
        sentence="Weight averaging is the most vulnerable merge, though the weakest.",
        where=PUBLISHED,
        kind="worst",
        method="weight_averaging",
        measures=("relative_asr", "clean_accuracy"),
    ),
    RateClaim(
        name="poster_delta",
        sentence="ΔASR is mostly at or below 0: merges are fooled no more often than the surrogate.",
        where=PUBLISHED,
        measure="delta_asr",
        expect="lower",
        against=0,
    ),
    PairedClaim(
        name="poster_surgery",
        sentence="Stronger merging (with Surgery) lowers ASR or keeps it, within one percentage point.",
        where=PUBLISHED,
        measure="asr",
        first={"correction": "surgery"},
        second={"correction": "none"},
        expect="lower",
        margin=0.01,
    ),
    PairedClaim(
        name="poster_surrogate",
        sentence="Attacks made on the pretrained surrogate transfer worse than those on the fine-tuned one.",
        measure="asr",
        first={"surrogate_role": "expert"},
        second={"surrogate_role": "pretrained"},
        expect="higher",
    ),
)
"""Claims of the published study on 336 settings, and the three of its poster; of attacks made on `PUBLISHED`
alone, whatever other surrogates a study has."""
