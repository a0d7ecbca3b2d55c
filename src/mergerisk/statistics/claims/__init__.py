"""What is claimed of a study: one file per kind of claim, with its fields, its test, and its test on ε50."""

from mergerisk.statistics.claims.claim import Claim
from mergerisk.statistics.claims.explains import ExplainsClaim
from mergerisk.statistics.claims.extreme import ExtremeClaim
from mergerisk.statistics.claims.paired import PairedClaim
from mergerisk.statistics.claims.published import BUILT_IN, ON_CAUSES, PUBLISHED, built_in
from mergerisk.statistics.claims.rate import RateClaim
from mergerisk.statistics.claims.reading import KINDS, check_claims, load_claims, parse_claims
from mergerisk.statistics.claims.trend import TrendClaim

__all__ = [
    "BUILT_IN",
    "KINDS",
    "ON_CAUSES",
    "PUBLISHED",
    "Claim",
    "ExplainsClaim",
    "ExtremeClaim",
    "PairedClaim",
    "RateClaim",
    "TrendClaim",
    "built_in",
    "check_claims",
    "load_claims",
    "parse_claims",
]
