"""The claims that were published, of the study on 336 settings and of its poster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.statistics.cell_means import is_diagnostic
from mergerisk.statistics.claims.extreme import ExtremeClaim
from mergerisk.statistics.claims.paired import PairedClaim
from mergerisk.statistics.claims.rate import RateClaim
from mergerisk.statistics.claims.trend import TrendClaim

if TYPE_CHECKING:
    from mergerisk.statistics.claim_tables import Tables
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

ON_CAUSES: tuple[Claim, ...] = (
    TrendClaim(
        name="hint_representation_bias",
        sentence="The farther a merge’s features are from the attacker’s model’s, the less often it is fooled.",
        where=PUBLISHED,
        measure="asr",
        expect="falling",
        by="representation_bias",
    ),
    TrendClaim(
        name="hint_gradient_alignment",
        sentence="The more a merge’s gradients align with the attacker’s model’s, the more often it is fooled.",
        where=PUBLISHED,
        measure="asr",
        expect="rising",
        by="gradient_alignment",
    ),
    TrendClaim(
        name="poster_boundaries",
        sentence="Similar decision boundaries transfer more: the larger the gap between the boundaries of a merge "
        "and of the attacker’s model along the attack, the less often the merge is fooled.",
        where=PUBLISHED,
        measure="asr",
        expect="falling",
        by="boundary_gap",
    ),
    PairedClaim(
        name="poster_architecture",
        sentence="The same architecture transfers more: attacks made on the pretrained model fool merges more "
        "often than those made on a model of another architecture.",
        measure="asr",
        first={"surrogate_role": "pretrained"},
        second={"surrogate": "other_architecture"},
        expect="higher",
    ),
)
"""The two hints of the paper's own analysis (representation bias, gradient alignment) and the two expectations of
its poster (similar decision boundaries, same architecture), for runs that keep diagnostics."""


def built_in(tables: Tables) -> tuple[Claim, ...]:
    """The built-in claims that some data are judged on unless others are named: of those on causes the ones whose
    measures, or surrogates, a run with diagnostics has."""
    if tables.diagnostics is None:
        return BUILT_IN
    measures, surrogates = tables.diagnostics.measures, set(tables.rates["surrogate"])

    def can_be_told(claim: Claim) -> bool:
        named = {str(name) for part in claim.filters for name in part.get("surrogate", ())}
        return named <= surrogates and all(name in measures for name in claim.reads if is_diagnostic(name))

    return (*BUILT_IN, *filter(can_be_told, ON_CAUSES))
