"""A pair of models, compared by what both answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.measured import kept
from mergerisk.study.kinds.results import ArrayStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from mergerisk.causes.cause import ProbingCause
    from mergerisk.causes.given import Given
    from mergerisk.causes.probe import Probe
    from mergerisk.causes.result import Measured
    from mergerisk.study.asking import Asking
    from mergerisk.study.stage import Result
    from mergerisk.study.variants.variant import SurrogateVariant, TargetVariant
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task

    Answers = Mapping[str, tuple[Input[torch.Tensor], ...]]
    """Question → its answers, in portions of the images."""


@dataclass(frozen=True, kw_only=True)
class Compare(ArrayStage):
    """One diagnostic of a surrogate and a target, from what each was asked by itself.

    Keeps what :func:`~mergerisk.study.kinds.measured.kept` says.

    Attributes:
        task: whose attacked images were asked about.
        surrogate: whom images are crafted on.
        target: who is attacked.
        cause: the diagnostic, in words that tell it from any other.
        asking: of which images, within which budget.
        of_surrogate: what the surrogate answered.
        of_target: what the target answered; nothing of a target that cannot be looked into.
        diagnostic: the diagnostic itself.
        shown: images that are compared.
    """

    kind: ClassVar[str] = "compare"
    noun: ClassVar[str] = "compare models"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 9

    task: Input[Task]
    surrogate: SurrogateVariant
    target: TargetVariant
    cause: str
    asking: Asking
    of_surrogate: Answers
    of_target: Answers
    diagnostic: ProbingCause = unkeyed()
    shown: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Forward passes that the diagnostic makes for the pair by itself, beside what models were asked."""
        return {"forward": self.shown * self.target.passes * self.diagnostic.forwards_per_pair}

    def run(self, bench: Workbench) -> Result:
        """The diagnostic's columns, a value per image, and why values are missing."""
        given = self.asking.given(bench, self.task)
        found = self._measured(bench, given)
        return kept(self.diagnostic, found, given.identities)

    def _measured(self, bench: Workbench, given: Given) -> Measured | str:
        """The columns, or why there are none."""
        import torch

        from mergerisk.causes.cause import Seen
        from mergerisk.causes.given import lacking
        from mergerisk.errors import UserError
        from mergerisk.models.inside.hooks import frozen
        from mergerisk.study.variants.variant import SurrogateVariant

        if not isinstance(self.target, SurrogateVariant):
            return f"{self.target.labels} only answers with labels: it has no features and no gradients to read"
        for answers in (*self.of_surrogate.values(), *self.of_target.values()):
            said = bench.artefact(answers[0].key).info.get("lacking")
            if said is not None:
                return str(said)
        surrogate, target = self.surrogate.classifier(bench), self.target.classifier(bench)
        reason = lacking(target, self.diagnostic.across_reads, self.target.labels)
        if reason is not None:
            return reason
        try:
            self.diagnostic.check_pair(surrogate, target)
        except UserError as error:
            return str(error)
        tally, start = self.diagnostic.tally(), 0
        asked_s, asked_t = self.diagnostic.of_surrogate(), self.diagnostic.of_target()
        with torch.inference_mode(False), torch.enable_grad(), frozen(target, self.target.labels):
            for portion in range(_portions(self.of_surrogate, self.of_target)):
                s = _known(bench, asked_s, self.of_surrogate, portion)
                t = _known(bench, asked_t, self.of_target, portion)
                count = _rows(s, t)
                for first in range(0, count, given.batch_size):
                    last = min(first + given.batch_size, count)
                    batch = given.batch(start + first, start + last)
                    mine, theirs = _part(s, first, last), _part(t, first, last)
                    across = self.diagnostic.across(mine, target, batch)
                    tally.add(Seen(mine, theirs, across, batch.labels.cpu()))
                start += count
        return tally.finish(given)


def _portions(*sides: Answers) -> int:
    """In how many portions of images the models were asked."""
    return max(len(answers) for side in sides for answers in side.values())


def _known(
    bench: Workbench, probes: tuple[Probe, ...], answers: Answers, portion: int
) -> dict[Probe, dict[str, torch.Tensor]]:
    """Probe → name → tensor of one portion's answers, a row per image."""
    found = {}
    for probe in probes:
        key = answers[repr(probe)][portion].key
        arrays = bench.arrays(key)
        found[probe] = {name: arrays[name] for name in bench.artefact(key).info["names"]}
    return found


def _rows(*sides: Mapping[Any, Mapping[str, torch.Tensor]]) -> int:
    """How many images a portion has."""
    return next(len(rows) for side in sides for parts in side.values() for rows in parts.values())


def _part(
    known: Mapping[Probe, Mapping[str, torch.Tensor]], first: int, last: int
) -> dict[Probe, dict[str, torch.Tensor]]:
    """The answers to some of a portion's images."""
    return {probe: {name: rows[first:last] for name, rows in parts.items()} for probe, parts in known.items()}
