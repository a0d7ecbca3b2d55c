"""How alike the geometry of two models' features is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from mergerisk.causes.cause import SetCause
from mergerisk.causes.given import Need
from mergerisk.causes.gradients import cosines, flat
from mergerisk.causes.representations import BlockFeatures, Features, check_comparable
from mergerisk.causes.result import Column, Measured, stated
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from torch import nn

    from mergerisk.causes.cause import Seen
    from mergerisk.causes.given import Given
    from mergerisk.causes.probe import Probe

_FEWEST = 4
"""Images that the unbiased estimate needs."""
_ROUNDING = 1e-10
"""What is left of a sum of squares, as a share of it, is rounding."""


@hyperparameters
class CKA(SetCause):
    """Per block and for the final features, over all images: linear centred kernel alignment (Kornblith et al.
    2019, arXiv 1905.00414) by the unbiased estimate of HSIC (Song et al. 2012; Nguyen et al. 2021, arXiv
    2010.15327, equation 3); the orthogonal Procrustes distance 2 − 2 ‖XᵀY‖_* of centred features of norm 1 (Ding
    et al. 2021, arXiv 2108.01661); and the mean cosine of an image's two features.

    CKA lies in [−1, 1] and is 1 for features that differ by rotation and one scale; the plain estimate would be
    too large for fewer images than features. The distance lies in [0, 2], 0 for such features. Memory holds three
    matrices of width × width per block, however many images. The cosine leaves out images of which one feature has
    length zero, and says how many.

    Attributes:
        blocks: measure every block as well; False for models without a list of blocks, or with different ones.
    """

    name: ClassVar[str] = "cka"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "images"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column("cka", "similarity", -1.0, 1.0, "alike features, so attacks transfer more"),
        Column("procrustes", "squared distance of unit norms", 0.0, 2.0, "other features, attacks transfer less"),
        Column("mean_cosine", "cosine", -1.0, 1.0, "alike features, so attacks transfer more"),
        Column("undefined_cosines", "images", 0.0, None, "the mean cosine speaks for fewer images"),
    )

    blocks: bool = True

    @property
    def features(self) -> Probe:
        """What is asked of both models."""
        return BlockFeatures() if self.blocks else Features()

    def of_surrogate(self) -> tuple[Probe, ...]:
        return (self.features,)

    def of_target(self) -> tuple[Probe, ...]:
        return (self.features,)

    def check_pair(self, surrogate: nn.Module, target: nn.Module) -> None:
        check_comparable(surrogate, target, self.name, blocks=self.blocks)

    def tally(self) -> _Parts:
        return _Parts(self)


@dataclass
class _Parts:
    """The moments of every part's features."""

    cause: CKA
    moments: dict[str, Moments] = field(default_factory=dict)

    def add(self, seen: Seen) -> None:
        s, t = seen.surrogate[self.cause.features], seen.target[self.cause.features]
        for part in s:
            self.moments.setdefault(part, Moments()).add(s[part], t[part])

    def finish(self, given: Given) -> Measured:  # noqa: ARG002
        found = list(self.moments.values())
        constant = [not part.varies for part in found]
        few = [part.count < _FEWEST for part in found]
        lone = [part.count >= _FEWEST and part.varies and part.lone for part in found]
        other = [part.cosines is None for part in found]
        none = [part.cosines is not None and part.undefined == part.count for part in found]
        still = "the features are the same for all images"
        columns = {
            "cka": stated(
                [part.cka for part in found],
                {
                    f"fewer than {_FEWEST} images": few,
                    still: constant,
                    "the features of single images differ, and no others": lone,
                },
            ),
            "procrustes": stated([part.procrustes for part in found], {still: constant}),
            "mean_cosine": stated(
                [part.mean_cosine for part in found],
                {"the features have different widths": other, "no image has features of some length": none},
            ),
            "undefined_cosines": stated(
                [float(part.undefined) for part in found], {"the features have different widths": other}
            ),
        }
        return Measured(self.cause.name, "pair", tuple(self.moments), columns)


@dataclass
class Moments:
    """Sums over images of what the features of two models, X and Y, are compared by, in float64.

    Features are taken less the first batch's mean: nothing depends on it, but less is lost by rounding.
    """

    count: int = 0
    undefined: int = 0
    cosines: float | None = 0.0
    sums: Any = None

    def add(self, one: torch.Tensor, other: torch.Tensor) -> None:
        """Features of a batch, N × p and N × q."""
        x, y = flat(one), flat(other)
        if x.shape[1] == y.shape[1] and self.cosines is not None:
            found = cosines(x, y)
            self.cosines += float(found.nansum())
            self.undefined += int(found.isnan().sum())
        else:
            self.cosines = None
        if self.sums is None:
            self.sums = _Sums.empty(x.mean(dim=0), y.mean(dim=0))
        self.sums.add(x, y)
        self.count += len(x)

    @property
    def mean_cosine(self) -> float:
        """NaN where it is not defined."""
        there = self.count - self.undefined
        return math.nan if self.cosines is None or not there else self.cosines / there

    @property
    def varies(self) -> bool:
        """Whether the features of both differ from image to image."""
        return all(float(self.sums.centred(pair).trace()) > 0 for pair in ("xx", "yy"))

    @property
    def lone(self) -> bool:
        """Whether features of one model differ for single images only, so that no pair of images is alike."""
        return any(
            self.sums.hsic(self.count, pair) <= _ROUNDING * float(self.sums.centred(pair).square().sum())
            for pair in ("xx", "yy")
        )

    @property
    def cka(self) -> float:
        """NaN where it is not defined."""
        if self.count < _FEWEST or not self.varies or self.lone:
            return math.nan
        cross, own_x, own_y = (self.sums.hsic(self.count, pair) for pair in ("xy", "xx", "yy"))
        size = math.sqrt(own_x * own_y)
        return float(min(1.0, max(-1.0, cross / size)))

    @property
    def procrustes(self) -> float:
        """NaN where it is not defined."""
        if not self.varies:
            return math.nan
        cross, own_x, own_y = (self.sums.centred(pair) for pair in ("xy", "xx", "yy"))
        size = math.sqrt(own_x.trace() * own_y.trace())
        return max(0.0, 2.0 - 2.0 * float(torch.linalg.svdvals(cross).sum()) / size)


@dataclass
class _Sums:
    """Of rows x and y: Σ1, Σx, Σ x yᵀ, Σ‖x‖², Σ‖x‖²‖y‖², Σ ‖y‖² x, and the like, by pair."""

    shift: dict[str, torch.Tensor]
    count: int
    plain: dict[str, torch.Tensor]
    products: dict[str, torch.Tensor]
    squares: dict[str, float]
    both: dict[str, float]
    weighted: dict[str, torch.Tensor]

    @classmethod
    def empty(cls, x: torch.Tensor, y: torch.Tensor) -> _Sums:
        shift = {"x": x, "y": y}
        pairs = ("xy", "xx", "yy")
        return cls(
            shift,
            0,
            {name: torch.zeros_like(mean) for name, mean in shift.items()},
            {pair: x.new_zeros(len(shift[pair[0]]), len(shift[pair[1]])) for pair in pairs},
            dict.fromkeys(shift, 0.0),
            dict.fromkeys(pairs, 0.0),
            {f"{name}{by}": torch.zeros_like(shift[name]) for name in shift for by in shift},
        )

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        rows = {"x": x - self.shift["x"], "y": y - self.shift["y"]}
        lengths = {name: found.square().sum(dim=1) for name, found in rows.items()}
        self.count += len(x)
        for name, found in rows.items():
            self.plain[name] += found.sum(dim=0)
            self.squares[name] += float(lengths[name].sum())
            for by in rows:
                self.weighted[f"{name}{by}"] += lengths[by] @ found
        for pair in self.products:
            one, other = pair[0], pair[1]
            self.products[pair] += rows[one].mT @ rows[other]
            self.both[pair] += float(lengths[one] @ lengths[other])

    def centred(self, pair: str) -> torch.Tensor:
        """Σ (x − mean)(y − mean)ᵀ."""
        one, other = pair[0], pair[1]
        return self.products[pair] - torch.outer(self.plain[one], self.plain[other]) / self.count

    def hsic(self, count: int, pair: str) -> float:
        """The unbiased estimate for the kernels XXᵀ and YYᵀ, whose diagonals are left out, times n (n − 3)."""
        one, other = pair[0], pair[1]
        a, b = self.plain[one], self.plain[other]
        trace = float(self.products[pair].square().sum()) - self.both[pair]
        total_one = float(a @ a) - self.squares[one]
        total_other = float(b @ b) - self.squares[other]
        rows = (
            float(a @ self.products[pair] @ b)
            - float(a @ self.weighted[f"{one}{other}"])
            - float(b @ self.weighted[f"{other}{one}"])
            + self.both[pair]
        )
        return trace + total_one * total_other / ((count - 1) * (count - 2)) - 2.0 * rows / (count - 2)
