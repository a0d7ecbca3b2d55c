"""Targets that are asked rather than loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.variants.variant import TargetVariant

if TYPE_CHECKING:
    import torch

    from mergerisk.study.fields.targets import TargetSpec
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Images, Task
    from mergerisk.transfer import BlackBox, QueryBudget


@dataclass(frozen=True, kw_only=True)
class BlackBoxVariant(TargetVariant):
    """A service or a function that answers for a task; its queries are counted beside the store's artefacts.

    Attributes:
        of: the task, for its class names.
        place: where it is answered.
        says: what comes back: ``labels`` or ``scores``.
        version: of the target, as the study says it.
        spec: how to ask, which changes no answer.
    """

    kind: ClassVar[str] = "black_box"
    answers_by: ClassVar[Literal["forward", "query"]] = "query"

    of: Input[Task]
    place: str
    says: Literal["labels", "scores"]
    version: str
    spec: TargetSpec = unkeyed()

    def answer(self, bench: Workbench, images: Images, first: int = 0) -> torch.Tensor:  # noqa: ARG002
        """Classes that it names, 1 × N; every image sent counts against its budget."""
        from mergerisk.study.query_budget import shared_queries

        spec = self.spec
        queries = None if spec.queries is None else shared_queries(bench.store.root, spec)
        return self.asked(bench, queries).predict(images[:])[None]

    def asked(self, bench: Workbench, queries: QueryBudget | None) -> BlackBox:
        """The target itself, whose queries count against a budget; an ``http`` one has one.

        Raises:
            UserError: a callable that cannot be loaded, no address, or an environment variable that is not set.
        """
        from mergerisk.study.black_boxes import make_black_box

        return make_black_box(self.spec, self.task, bench.task(self.of).class_names, queries)
