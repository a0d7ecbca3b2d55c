"""Which of the targets an image fools: conditional logistic regression, matched by image."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from mergerisk.errors import UserError
from mergerisk.seeds import numpy_generator
from mergerisk.statistics.correction import holm
from mergerisk.statistics.explaining.rows import BLOCK, codes_of, complete

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mergerisk.statistics.explaining.conditional import ManySets

_COLLINEAR = 10.0
"""A variance inflated this often is usually called collinear."""
_CERTAIN = 1e-3
"""A log-likelihood per set nearer to 0 than this is that of a model that is never wrong."""
_ALIKE = "the same for all targets of an image"
_BY_TARGET = "the same for all images of a target: tested between targets only"


class AlikeError(UserError):
    """Every image fools all of the targets or none: there is nothing to compare."""


@dataclass(frozen=True, eq=False)
class MatchedModel:
    """A fitted model.

    Attributes:
        terms: a row per diagnostic and covariate: ``term, odds_ratio`` per standard deviation within images,
            ``low, high, p, p_holm`` (over diagnostics), ``inflation`` of its variance by the others, and ``note``,
            why there is no figure or how to read it.
        sets: images under one attack and budget that fool some targets and not others; the others say nothing.
        images: how many different ones they are of.
        left_out: such sets that were not used, by ``most``.
    """

    terms: pd.DataFrame
    sets: int
    images: int
    left_out: int


def matched_logit(
    table: pd.DataFrame,
    diagnostics: Sequence[str],
    *,
    covariates: Sequence[str] = (),
    confidence: float = 0.95,
    most: int = 2000,
    seed: int = 0,
) -> MatchedModel:
    """Conditional logistic regression of ``fooled`` on the diagnostics, in sets of one image under one attack and
    budget: what makes an image easy to attack cancels, and targets are compared on it. By statsmodels; errors are
    clustered by image, across attacks and budgets.

    Intervals are over images, of these targets. A diagnostic that is the same for all images of a target, as those
    in weight space are, has as many values as there are targets, which no number of images adds to: it is kept as
    a covariate and gets an odds ratio, but no interval.

    Args:
        table: a row per task, attack, epsilon, target and image; see the package.
        diagnostics: columns of it.
        covariates: others, such as the target's clean accuracy.
        confidence: of the intervals.
        most: sets that are used, drawn image by image.
        seed: of the draw.

    Raises:
        AlikeError: no image fools some targets and not others.
        UserError: the likelihood has no maximum.
    """
    from mergerisk.statistics.explaining.conditional import ManySets  # takes a second to import

    terms = [*diagnostics, *covariates]
    rows = complete(table, [*terms, "fooled"])
    sets, count = codes_of(rows, [*BLOCK, "image"])
    fooled = rows["fooled"].to_numpy(dtype=np.float64)
    said = np.bincount(sets, fooled, minlength=count) / np.maximum(1, np.bincount(sets, minlength=count))
    mixed = (said > 0) & (said < 1)
    if not mixed.any():
        raise AlikeError("no image fools some targets and not others, so that nothing can be compared")
    chosen = _drawn(rows, sets, mixed, most, seed)
    keep = np.isin(sets, chosen)
    rows, sets, fooled = rows[keep].reset_index(drop=True), sets[keep], fooled[keep]
    inside = {term: _within(rows[term].to_numpy(dtype=np.float64), sets) for term in terms}
    by_target = {term: rows.groupby(["task", "target"])[term].nunique().max() == 1 for term in terms}
    used = [term for term in terms if inside[term].std() > 1e-12 * (1 + np.abs(rows[term]).max())]
    images = codes_of(rows, ["task", "image"])
    figures: dict[str, dict[str, Any]] = {term: {"note": _ALIKE} for term in terms}
    if used:
        x = np.column_stack([inside[term] / inside[term].std() for term in used])
        model = ManySets(fooled, x, sets)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                fitted = model.fit(disp=False, method="bfgs")
        except Warning as warning:
            raise UserError(
                f"the matched model of {', '.join(used)} does not settle ({warning}); leave out what "
                "others say already"
            ) from warning
        if fitted.llf > -_CERTAIN * len(chosen):
            raise UserError(
                f"{' and '.join(used)} tell who is fooled without fail, so that there is no largest "
                "likelihood; leave out what is the outcome itself"
            )
        errors = np.sqrt(np.diag(_clustered(model, fitted.params, sets, images[0])))
        inflation = np.diag(np.linalg.pinv(np.corrcoef(x, rowvar=False).reshape(len(used), len(used))))
        # Of few images the errors are themselves uncertain.
        scale = stats.t(max(1, len(np.unique(images[0])) - len(used)))
        reach = scale.isf((1 - confidence) / 2)
        for term, slope, error, inflated in zip(used, fitted.params, errors, inflation, strict=True):
            known = not by_target[term]
            figures[term] = {
                "odds_ratio": np.exp(slope),
                "low": np.exp(slope - reach * error) if known else np.nan,
                "high": np.exp(slope + reach * error) if known else np.nan,
                "p": 2 * scale.sf(abs(slope) / error) if known else np.nan,
                "inflation": inflated,
                "note": "" if known else _BY_TARGET,
            }
            if inflated > _COLLINEAR:
                figures[term]["note"] = "; ".join(
                    filter(None, [figures[term]["note"], "collinear: cannot be told from the others"])
                )
    result = pd.DataFrame(figures).T.reindex(columns=["odds_ratio", "low", "high", "p", "inflation", "note"])
    result = result.astype(dict.fromkeys(result.columns[:-1], np.float64)).rename_axis("term").reset_index()
    own = result["term"].isin(list(diagnostics))
    result.insert(4, "p_holm", holm(result["p"].where(own)))
    return MatchedModel(result, len(chosen), images[1], int(mixed.sum()) - len(chosen))


def _drawn(
    rows: pd.DataFrame, sets: NDArray[np.intp], mixed: NDArray[np.bool_], most: int, seed: int
) -> NDArray[np.intp]:
    """Sets that are used: those of images drawn at random, until there are enough."""
    first = np.unique(sets, return_index=True)[1]
    images = codes_of(rows, ["task", "image"])[0][first]
    rank = numpy_generator(seed, "explaining", "sets").permutation(int(images.max()) + 1)
    usable = np.flatnonzero(mixed)
    return np.asarray(usable[np.argsort(rank[images[usable]], kind="stable")][:most])


def _within(values: NDArray[np.float64], sets: NDArray[np.intp]) -> NDArray[np.float64]:
    """Less the mean of each set."""
    count = np.bincount(sets)
    return np.asarray(values - (np.bincount(sets, values) / np.maximum(1, count))[sets])


def _clustered(
    model: ManySets, slopes: NDArray[np.float64], sets: NDArray[np.intp], images: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The covariance of the slopes where sets of one image depend on each other in any way (Liang and Zeger
    1986)."""
    image_of = dict(zip(sets.tolist(), images.tolist(), strict=True))
    order = list(dict.fromkeys(sets.tolist()))  # in which statsmodels numbers its groups
    scores = model.by_set(slopes)[1]
    owners = np.array([image_of[one] for one in order])
    summed = np.zeros((int(owners.max()) + 1, len(slopes)))
    np.add.at(summed, owners, scores)
    clusters = len(np.unique(owners))
    bread = np.linalg.pinv(-model.hessian(slopes))
    return np.asarray(clusters / max(1, clusters - 1) * bread @ (summed.T @ summed) @ bread)
