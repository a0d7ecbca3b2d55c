"""The training that a mix begins with, chosen by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.defenses.mixing import Step
from mergerisk.defenses.training import AdversarialTraining, TrainingDefense
from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping


def robust_step(by: str, training: Mapping[str, Any], *, searching: bool = False) -> Step:
    """One training by name.

    Args:
        by: the defense that trains.
        training: its hyper-parameters.
        searching: whether it must be one that looks for the worst images.

    Raises:
        UserError: it is not, it looks at public models, or a hyper-parameter is unknown or out of range.
    """
    loaded: Any = DEFENSES.load(by)
    if not issubclass(loaded, AdversarialTraining if searching else TrainingDefense) or loaded.needs_public:
        what = "training on the worst images" if searching else "training"
        raise UserError(f"by: {by} is no {what} that needs no public models; take fare, tecoa or trades")
    return Step(by, DEFENSES.create(by, training))
