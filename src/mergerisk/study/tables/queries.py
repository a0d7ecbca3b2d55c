"""``queries.parquet``: what a few queries add to transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

from mergerisk.errors import UserError, did_you_mean
from mergerisk.registry import plugins
from mergerisk.study.keyed import Input
from mergerisk.study.kinds.query import Query
from mergerisk.study.plan import Piece
from mergerisk.study.tables.answers import clean_answers
from mergerisk.study.tables.declared import Column, Declared
from mergerisk.study.tables.table import RunTable
from mergerisk.study.variants.black_box import BlackBoxVariant
from mergerisk.study.variants.variant import SurrogateVariant
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

    from mergerisk.study.tables.gathered import Gathered
    from mergerisk.study.tables.table import Scene

WRONG = "the target names the clean image wrongly"
NEVER = "no query fooled the target"


@hyperparameters
class QueriesTable(RunTable):
    """Transferred images, and from them on a search by queries, at the study's middle budget: one row per image,
    attack, surrogate, target and search; see :func:`mergerisk.transfer.search`.

    Attributes:
        queries: at most, per image; the first is the transferred image itself.
        searches: ``square``, ``simba_ods``, or what is installed.
        at: numbers of queries after which success is told.
        targets: who is asked; by default black boxes, or, where there are none, every merge.
        attacks: labels of those that images are transferred by; all by default.
    """

    queries: PositiveInt = 50
    searches: Annotated[tuple[str, ...], Field(min_length=1)] = ("square", "simba_ods")
    at: tuple[PositiveInt, ...] = (1, 5, 10, 25, 50)
    targets: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()

    @property
    def told(self) -> tuple[int, ...]:
        """``at``, as far as queries reach."""
        return tuple(sorted({number for number in self.at if number <= self.queries}))

    @property
    def declared(self) -> Declared:
        """Success after so many queries, and how many it took."""
        return Declared(
            "queries",
            "image, attack, surrogate, target and search",
            (
                Column("task", "name", "the task"),
                Column("attack", "name", "what the image was crafted by"),
                Column("surrogate", "name", "whom it was crafted on"),
                Column("target", "name", "who is asked"),
                Column("search", "name", "how it is asked on from there"),
                Column("epsilon", "setting", "the budget, of pixels in [0, 1]"),
                Column("seed", "number", "of the study"),
                Column("image", "number", "place in the test split"),
                *(
                    Column(
                        f"fooled_by_{count}",
                        "yes_no",
                        f"whether one of the first {count} queries fooled the target",
                    )
                    for count in self.told
                ),
                Column("queries_to_fool", "number", "the query that fooled the target, from 1; of those alone"),
                Column("queries", "number", "that were spent on the image"),
                Column("missing", "reason", "why there is no number"),
            ),
            may_be_empty=True,
            shown_by="mean",
        )

    def plan(self, scene: Scene) -> Iterator[Piece]:
        """A stage per attack, surrogate, target and search.

        Raises:
            UserError: an unknown search, target or attack, or a target that cannot be asked.
        """
        import dataclasses

        from mergerisk.transfer import SEARCHES

        study = scene.study
        searches = {name: SEARCHES.create(name, {}) for name in self.searches}
        asked = self.targets or tuple(spec.label for spec in study.targets if spec.places) or study.target_labels
        _check_known("target", asked, study.target_labels)
        _check_known("attack", self.attacks, [spec.label for spec in study.attacks])
        place = study.budgets.epsilon.index(scene.epsilon)
        for sweep in scene.sweeps:
            if self.attacks and sweep.attack not in self.attacks:
                continue
            for shown in sweep.evaluations:
                for label in (name for name in shown.target.columns if name in asked and name != sweep.surrogate):
                    target = shown.target.alone(label)
                    if not isinstance(target, BlackBoxVariant | SurrogateVariant):
                        raise UserError(f"table 'queries': {label} cannot be asked; name other targets")
                    for name, how in searches.items():
                        made = scene.add(
                            Query(
                                label=f"{label} by {name}, {sweep.attack} on {scene.name} from {sweep.surrogate}, "
                                f"seed {scene.seed}",
                                plugins=plugins(SEARCHES.check(name)),
                                task=scene.task,
                                surrogate=scene.surrogates[sweep.surrogate],
                                target=target,
                                crafted=Input(sweep.crafted[place]),
                                search=name,
                                parameters=dataclasses.asdict(how),
                                epsilon=scene.epsilon,
                                norm=study.budgets.norm,
                                queries=self.queries,
                                seed=scene.seed,
                                shown=scene.attacked,
                                gradients=how.gradients,
                            )
                        )
                        names: dict[str, str | int | float] = {"task": scene.name, "attack": sweep.attack}
                        names |= {"surrogate": sweep.surrogate, "target": label, "search": name}
                        yield Piece({**names, "epsilon": scene.epsilon, "seed": scene.seed}, made)

    def collect(self, gathered: Gathered, pieces: Iterable[Piece]) -> pd.DataFrame:
        """One row per image; numbers of images alone that the target names rightly when clean."""
        import numpy as np

        from mergerisk.study.tables.blocks import stack

        clean = {(run.seed, run.task): clean_answers(run, gathered.store) for run in gathered.plan.task_runs}
        blocks = []
        for piece in pieces:
            names, kept = piece.names, gathered.store.get(piece.made.key).arrays
            said = clean[int(names["seed"]), str(names["task"])][str(names["target"])]
            right = said.predictions[kept["image"]] == said.labels[kept["image"]]
            fooled_at, fooled = kept["fooled_at"], kept["fooled_at"] > 0
            columns: dict[str, Any] = {"image": kept["image"]}
            for count in self.told:
                columns[f"fooled_by_{count}"] = np.where(right, fooled & (fooled_at <= count), np.nan)
            columns["queries_to_fool"] = np.where(right & fooled, fooled_at, np.nan)
            columns["queries"] = np.where(right, kept["asked"], np.nan)
            columns["missing"] = np.where(right, np.where(fooled, "", NEVER), WRONG).astype(object)
            blocks.append((names, columns))
        return stack(blocks, [column.name for column in self.declared.columns])


def _check_known(what: str, named: Iterable[str], known: Iterable[str]) -> None:
    for name in named:
        if name not in known:
            raise UserError(f"table 'queries': the study has no {what} {name!r}{did_you_mean(name, known)}")
