"""Whether two models say and mistake the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import PositiveInt

from mergerisk.causes.answers import Logits
from mergerisk.causes.attacked import Attacked, AttackName
from mergerisk.causes.cause import ImageCause
from mergerisk.causes.given import Need
from mergerisk.causes.probe import Reads, predictions
from mergerisk.causes.result import Column, Values, stated
from mergerisk.errors import UserError
from mergerisk.transfer.rates import Happened
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from mergerisk.causes.cause import Seen
    from mergerisk.causes.probe import Batch, Known, Parts, Probe

_SHARE = "1 for yes, 0 for no"


@hyperparameters
class Agreement(ImageCause):
    """Whether both name the same class when clean; of the images that at least one errs on, whether both do (the
    mean is the overlap of the error sets, |E_s ∩ E_t| / |E_s ∪ E_t|); and what the target says of images that fool
    the surrogate: the same wrong label, another wrong one, or the right one (Waseda et al. 2023, arXiv
    2112.14337).

    Each is 0 or 1 per image, and the three last add up to 1; they are missing for images that one of the models
    errs on when clean, or on which the attack fails. Both models must have the same classes.

    Attributes:
        attack: that the surrogate is attacked with, within the call's budget.
        steps: it takes; None for its own number.
    """

    name: ClassVar[str] = "agreement"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "images", "labels"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column("agreement", _SHARE, 0.0, 1.0, "similar decisions, so attacks transfer more"),
        Column("shared_error", _SHARE, 0.0, 1.0, "similar boundaries, so attacks transfer more"),
        Column("same_mistake", _SHARE, 0.0, 1.0, "both use the same features that people do not see"),
        Column("other_mistake", _SHARE, 0.0, 1.0, "attacks transfer by disturbing, not by shared features"),
        Column("not_fooled", _SHARE, 0.0, 1.0, "attacks do not transfer"),
    )
    same_classes: ClassVar[bool] = True
    across_reads: ClassVar[frozenset[Reads]] = frozenset({"logits"})

    attack: AttackName = "i_fgsm"
    steps: PositiveInt | None = None

    @property
    def attacked(self) -> Attacked:
        """What is asked of the surrogate besides its logits."""
        return Attacked(attack=self.attack, steps=self.steps)

    @property
    def forwards_per_pair(self) -> int:
        return 1

    def of_surrogate(self) -> tuple[Probe, ...]:
        return (Logits(), self.attacked)

    def of_target(self) -> tuple[Probe, ...]:
        return (Logits(),)

    def check_pair(self, surrogate: nn.Module, target: nn.Module) -> None:
        named = [getattr(model, "class_names", None) for model in (surrogate, target)]
        if None not in named and named[0] != named[1]:
            raise UserError("agreement: the two models have other classes, or the same in another order")

    def across(self, surrogate: Known, target: nn.Module, batch: Batch) -> Parts:
        adversarial = surrogate[self.attacked]["adversarial"].to(batch.images)
        return {"predicted": predictions(target, adversarial).cpu()}

    def compare(self, seen: Seen) -> Mapping[str, Values]:
        said = [known[Logits()]["logits"] for known in (seen.surrogate, seen.target)]
        s, t = (logits.argmax(dim=1) for logits in said)
        s_after, t_after = seen.surrogate[self.attacked]["predicted"], seen.across["predicted"]
        found = Happened(
            *(x.numpy() for x in (s == seen.labels, t == seen.labels)),
            *(x.numpy() for x in (s_after != seen.labels, t_after != seen.labels)),
        )
        failed = {
            "a model errs on the clean image": torch.from_numpy(~found.counts),
            "the attack does not fool the surrogate": torch.from_numpy(~found.surrogate_fooled),
        }
        same = s_after == t_after
        right = t_after == seen.labels
        errs = (s != seen.labels, t != seen.labels)
        return {
            "agreement": stated((s == t).double()),
            "shared_error": stated(
                (errs[0] & errs[1]).double(), {"neither errs on the clean image": ~(errs[0] | errs[1])}
            ),
            "same_mistake": stated(same.double(), failed),
            "other_mistake": stated((~same & ~right).double(), failed),
            "not_fooled": stated(right.double(), failed),
        }
