"""Targets asked on from transferred images, a few queries each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.results import ArrayStage
from mergerisk.study.stage import Result
from mergerisk.study.variants.black_box import BlackBoxVariant
from mergerisk.study.variants.variant import SurrogateVariant, TargetVariant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task
    from mergerisk.transfer.query_search import Asked


@dataclass(frozen=True, kw_only=True)
class Query(ArrayStage):
    """A search by queries from one set of transferred images; see :func:`mergerisk.transfer.search`.

    Keeps per image its index as ``image``, ``fooled_at`` (0 where no query fooled the target), ``asked``, and the
    length of the change in the end, ``l2`` and ``linf``.

    Attributes:
        task: whose images were attacked.
        surrogate: what they were crafted on.
        target: who is asked, one.
        crafted: the transferred images.
        search: the search's name.
        parameters: its hyper-parameters, defaults filled in.
        epsilon: the budget, of pixels in [0, 1].
        norm: of the budget.
        queries: at most, per image.
        seed: of what is drawn.
        shown: images.
        gradients: of the surrogate, per query, at most.
    """

    kind: ClassVar[str] = "query"
    noun: ClassVar[str] = "ask targets"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 8

    task: Input[Task]
    surrogate: SurrogateVariant
    target: TargetVariant
    crafted: Input[torch.Tensor]
    search: str
    parameters: Mapping[str, Any]
    epsilon: float
    norm: Literal["linf", "l2"]
    queries: int
    seed: int
    shown: int = unkeyed()
    gradients: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """As if no query fooled the target: what a budget of queries must allow."""
        asked = self.shown * self.queries
        gradients = asked * self.gradients * self.surrogate.passes
        answers: dict[str, int] = {self.target.answers_by: asked * self.target.passes}
        return {**answers, "gradient": gradients} if gradients else answers

    def run(self, bench: Workbench) -> Result:
        """One row per attacked image."""
        from mergerisk.transfer import SEARCHES, search

        kept, device = bench.crafted(self.crafted.key), bench.compute.device
        indices = kept["indices"]
        images = bench.task(self.task).test.images[indices].to(device)
        found = search(
            self._asked(bench),
            self.surrogate.classifier(bench),
            images,
            kept["labels"].to(device),
            kept["adversarial"][-1].to(device),
            how=SEARCHES.create(self.search, self.parameters),
            epsilon=self.epsilon,
            norm=self.norm,
            queries=self.queries,
            seed=self.seed,
            indices=indices.tolist(),
        )
        changes = (found.adversarial.double() - images.double()).flatten(1)
        sizes = {"l2": changes.norm(dim=1), "linf": changes.abs().amax(dim=1)}
        assert float(sizes[self.norm].max()) <= self.epsilon, "a search exceeded its budget"
        rows = {"fooled_at": found.fooled_at, "asked": found.asked, **sizes}
        return Result({"image": indices.numpy(), **{name: rows[name].cpu().numpy() for name in rows}})

    def _asked(self, bench: Workbench) -> Asked:
        """How the target is asked: a model at hand for its logits, a black box for what it says."""
        from mergerisk.study.query_budget import shared_queries
        from mergerisk.transfer import asking

        if isinstance(self.target, BlackBoxVariant):
            spec = self.target.spec
            queries = None if spec.queries is None else shared_queries(bench.store.root, spec)
            black_box = self.target.asked(bench, queries)
            return lambda images: black_box.ask(images.cpu())
        assert isinstance(self.target, SurrogateVariant), "the table asks no others"
        return asking(self.target.classifier(bench), batch_size=bench.compute.batch_size, seed=self.seed)
