"""What one model says when it is asked for its gradients, features, curvature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.results import ArrayStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.causes.probe import Probe
    from mergerisk.study.asking import Asking
    from mergerisk.study.variants.variant import SurrogateVariant
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Ask(ArrayStage):
    """A model's answers to one probe about some of a task's attacked images, made once for all its pairs.

    Keeps the probe's arrays, each with a row per image, and their ``names`` in order; or ``lacking``, why the
    model cannot answer.

    Attributes:
        task: whose attacked images the model is asked about.
        model: who is asked.
        question: what is asked, in words that tell it from any other.
        asking: of which images, within which budget, as far as the answers depend on it.
        first: of the attacked images.
        last: the one before it is the last.
        probe: the question itself.
    """

    kind: ClassVar[str] = "ask"
    noun: ClassVar[str] = "ask models"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 8

    task: Input[Task]
    model: SurrogateVariant
    question: str
    asking: Asking
    first: int
    last: int
    probe: Probe = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Images of the portion, times encoders, times what the probe asks of each: backward passes, or one
        forward."""
        images = (self.last - self.first) * self.model.passes
        gradients = self.probe.gradients_per_image
        return {"gradient": images * gradients} if gradients else {"forward": images}

    def run(self, bench: Workbench) -> Result:
        """What the model answers, a value per image of the portion; or, without arrays, why it cannot."""
        import torch

        from mergerisk.causes.given import lacking, look
        from mergerisk.memory import fitting, in_portions, live_bytes
        from mergerisk.models.inside.hooks import frozen
        from mergerisk.randomness import drawing

        model, who = self.model.classifier(bench), self.model.labels
        reason = lacking(model, self.probe.reads, who)
        if reason is not None:
            return Result({}, {"lacking": reason})
        given = self.asking.given(bench, self.task)

        def portion(start: int, stop: int) -> Mapping[str, torch.Tensor]:
            batch = given.batch(self.first + start, self.first + stop)
            with drawing(given.seed, "causes", batch.identities[0], device=batch.images.device):
                return {name: rows.detach().cpu() for name, rows in self.probe.measure(model, batch).items()}

        with torch.inference_mode(False), torch.enable_grad(), frozen(model, who):
            look(model, self.probe.reads, given, "causes", who)
            most = given.batch_size
            if min(self.last - self.first, most) > 1:
                most = min(most, fitting(live_bytes(lambda: portion(0, 1)), given.images.device))
            parts = in_portions(portion, self.last - self.first, most)
        arrays: dict[str, Any] = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
        return Result(arrays, {"names": [*arrays]})
