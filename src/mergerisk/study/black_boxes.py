"""The targets of a study that are asked rather than loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.named_callables import load_callable
from mergerisk.transfer import CallableTarget, HttpTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.study.fields.targets import TargetSpec
    from mergerisk.transfer import BlackBox, QueryBudget

_PASSED_ON = ("answer", "batch_size", "timeout", "retries", "token_variable", "header_variables")


def make_black_box(
    spec: TargetSpec, task: str, class_names: Sequence[str], queries: QueryBudget | None
) -> BlackBox:
    """The target that answers for a task.

    Args:
        spec: whom and how.
        task: one that it names.
        class_names: the task's.
        queries: the budget, of an ``http`` target.

    Raises:
        UserError: a callable that cannot be loaded, no address, or an environment variable that is not set.
    """
    if task in spec.callable:
        function = load_callable(spec.callable[task])
        return CallableTarget(function, class_names, batch_size=spec.batch_size)
    assert queries is not None, "an http target has a budget"
    return HttpTarget(
        spec.http[task], class_names, queries=queries, **{name: getattr(spec, name) for name in _PASSED_ON}
    )
