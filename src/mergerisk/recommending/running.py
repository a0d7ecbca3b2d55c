"""A recommendation from start to end: a search on held-out images, and one measurement on attacked ones."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk import api
from mergerisk.errors import UserError
from mergerisk.listeners.catalogue import listeners_of
from mergerisk.listeners.events import SearchEnded, SearchFinished, SearchStarted
from mergerisk.listeners.told import listening
from mergerisk.progress.study_progress import CHECKING
from mergerisk.recommending.clock import Clock, parse_time
from mergerisk.recommending.composing import compose, to_measure, to_search
from mergerisk.recommending.files import write_recipes
from mergerisk.recommending.measuring import measured
from mergerisk.recommending.result import Recommendation
from mergerisk.recommending.scoring import chosen, front, recommended
from mergerisk.recommending.searching import search
from mergerisk.recommending.shown import SearchProgress
from mergerisk.recommending.spaces import reading, space_of, starts
from mergerisk.recommending.trials import JOURNAL, check_installed, open_trials
from mergerisk.recommending.trying import Trying
from mergerisk.recommending.words import headline
from mergerisk.recommending.writing import table_of, told_of, write_all
from mergerisk.report.formatting import duration
from mergerisk.store import bucket_named, open_store
from mergerisk.study.executors.hiring import workforce
from mergerisk.study.fields.search import Search
from mergerisk.study.finished import load_run as read_run
from mergerisk.study.locating import locate
from mergerisk.study.planning import make_plan
from mergerisk.study.preflight import check_material, check_output
from mergerisk.study.reading import load_study
from mergerisk.study.resolving import resolve
from mergerisk.study.running import Options, store_folder
from mergerisk.study.schema import Study

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from mergerisk.listeners.told import Told
    from mergerisk.recommending.recipe import Recipe
    from mergerisk.recommending.scoring import Tried
    from mergerisk.recommending.space import Space
    from mergerisk.recommending.trials import Trials
    from mergerisk.store import Store
    from mergerisk.study.executors.events import Event, Listener
    from mergerisk.study.executors.hiring import Executor, Workforce
    from mergerisk.tasks.outline import Outline
    from mergerisk.tasks.source import TaskSource

RUN = "run"
"""Of the folder: the run in which recipes were measured."""

_SHARE = 0.5
"""Of the time, that measuring may take: where more recipes would take more, fewer are measured."""

_FIRST_VERSION = 1
"""Of what decides a search's trials besides its stages."""


def recommend(
    study: str | Path | Study,
    out: str | Path | None = None,
    *,
    time: float | str | None = "30m",
    trials: int | None = None,
    seed: int = 0,
    device: str = "auto",
    devices: str | None = None,
    workers: int | None = 1,
    executor: Executor = "local",
    address: str | None = None,
    store: str | Path | None = None,
    data: str | Path | None = None,
    offline: bool = False,
    force: bool = False,
    progress: bool = True,
    listeners: Sequence[str | Listener] = (),
) -> Recommendation:
    """Look for the best trades of clean accuracy against ε50 under the worst attacker who knows of every defense,
    over merging methods, their hyper-parameters and defenses.

    Recipes are chosen on held-out images, and those that are best measured once on attacked images that the search
    never saw, beside the study's own merges.

    Args:
        study: a shipped study's name (``"starter"``), the path of a study file, or a :class:`Study`; its
            ``search`` says among which recipes.
        out: the folder to write; ``recommended/NAME`` by default. The same call again goes on where it was
            stopped.
        time: that searching and measuring may take together, in seconds or as ``"30m"``; None for no limit.
        trials: recipes that are tried, at most; None for any number.
        seed: of the search.
        device: see :func:`mergerisk.run`; likewise
        devices: and
        workers: and
        executor: and
        address: who computes.
        store: folder of artefacts or ``s3://bucket/prefix``, to share with studies; ``OUT/store`` by default.
        data: what relative paths in the study are relative to; by default the study file's folder.
        offline: take what comes from a hub from the cache of downloads only.
        force: replace the search of another study, if the folder holds one.
        progress: show on standard error how far it is.
        listeners: who is told what is tried and what is found, as of :func:`mergerisk.run`.

    Raises:
        UserError: Optuna is not installed, or the study, a file or an option is at fault; raised before anything
            is trained where it can be known. Or the time did not suffice for one recipe.
    """
    check_installed()
    heard = listeners_of(listeners)
    limit = checked_limit(time, trials, seed, workers)
    asked = resolve(study) if isinstance(study, Study) else load_study(study, data=data)
    folder = Path(out) if out is not None else Path("recommended") / asked.name
    with listening(heard) as told:
        with SearchProgress(limit, trials) if progress else nullcontext() as shown:
            told.shown = shown
            if shown is not None:
                shown.say(CHECKING)
            said = asked.search or Search()
            space = space_of(to_search(asked), said)
            begins = starts(asked, space)
            check_output(folder)
            told(SearchStarted(asked, folder, seed, limit, trials))
            located = locate(compose(to_measure(asked), [_plain(space)])[0], offline=offline)
            outlines = check_material(located.study.model_copy(update={"attacked": "calibration"}))
            here = _placed(asked, located.study)
            base = to_search(here)
            of = _decides(base, outlines, space, seed)
            named = Path(store) if store is not None else None
            kept = open_store(store_folder(folder, named), bucket_named(named))
            with (
                workforce(
                    executor=executor, address=address, device=device, devices=devices, workers=workers
                ) as crew,
                open_trials(folder, space, begins, seed, of, force=force) as log,
            ):
                clock = Clock(limit, log.seconds, crew.workers)
                found = _searched(base, outlines, kept, crew, log, clock, trials, here, shown, told)
                best = _best(here, outlines, found, kept, clock, log)
                told(SearchEnded(len(found), len(best), folder / RUN))
                again = len(log.measured) > 1
                searching = log.seconds
        measuring, labels = compose(to_measure(asked), [one.recipe for one in best])
        begun = clock.here
        options = Options(kept.root, device, devices, workers, executor, address, offline=offline, force=True)
        result = api.run_told(resolve(measuring), folder / RUN, options, told, progress=progress)
        files = write_recipes(folder, asked, best, labels)
        given = to_measure(asked).ranked
        recipes, references, beside = measured(
            read_run(folder / RUN), result.summary.prices, best, labels, given, files
        )
        made = Recommendation(
            folder,
            asked.name,
            labels[recommended(front(found)).recipe],
            recipes,
            references,
            beside,
            tuple(found),
            base.attacks[0].label,
            base.images_per_task,
            base.budgets.epsilon,
            (searching, clock.here - begun),
            limit,
            (*_notes(space, again), *result.summary.run.notes),
        )
        told(SearchFinished(folder, made.recommended, headline(made), table_of(made), write_all(made)))
    return made


_PLACED = ("backbone", "tasks", "heads", "ingredients", "outsider", "other_architecture", "targets")
"""Fields that name what may have to be fetched from a hub, besides the experts."""


def _placed(study: Study, located: Study) -> Study:
    """A study that names folders where it named models of a hub, so that its parts can be planned at any time."""
    experts = located.experts
    if experts.source == "hub":  # which are files by now
        experts = experts.model_copy(update={"source": "files"})
    return study.model_copy(update={name: getattr(located, name) for name in _PLACED} | {"experts": experts})


def checked_limit(time: float | str | None, trials: int | None, seed: int, workers: int | None) -> float | None:
    """The seconds that there are; None for any number.

    Args:
        time: of :func:`recommend`; likewise
        trials: and
        seed: and
        workers: of it.

    Raises:
        UserError: one of them is out of range.
    """
    limit = parse_time(time) if isinstance(time, str) else time
    if limit is not None and not 0 < limit < 1e8:
        raise UserError(f"--time must be above 0, got {limit:g} s")
    if limit is None and trials is None:
        raise UserError("give --time or --trials: a search ends by one of them")
    if trials is not None and trials < 1:
        raise UserError(f"--trials must be 1 or more, got {trials}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed must be 0 or more, and below 2**32, got {seed}")
    if workers is not None and workers < 1:
        raise UserError(f"--workers must be 1 or more, got {workers}")
    return limit


def _plain(space: Space) -> Recipe:
    """One recipe of the space, with the first answer to every question."""
    return space.draw(_First())


class _First:
    """Chooses whatever comes first."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        del name
        return choices[0]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        del name, high, log
        return low

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        del name, high, log
        return low


def _decides(base: Study, outlines: Mapping[TaskSource, Outline], space: Space, seed: int) -> dict[str, Any]:
    """What decides a search's trials: the stages of one of them, down to the data; what there is to choose from;
    the seed."""
    plan = make_plan(compose(base, [_plain(space)])[0], outlines=outlines, further=False)
    return {"stages": sorted(plan.stages), "space": space.to_plain(), "seed": seed, "version": _FIRST_VERSION}


def _searched(
    base: Study,
    outlines: Mapping[TaskSource, Outline],
    store: Store,
    crew: Workforce,
    log: Trials,
    clock: Clock,
    most: int | None,
    here: Study,
    shown: SearchProgress | None,
    told: Told,
) -> list[Tried]:
    """What was tried, on held-out images.

    Raises:
        UserError: the time did not suffice for one recipe.
    """

    def listen(event: Event) -> None:
        told(event)
        clock(event)

    spent = 0.0

    def spend() -> None:
        nonlocal spent
        log.spend(clock.here - spent)
        spent = clock.here

    def settled(found: list[Tried]) -> bool:
        spend()
        if shown is not None:
            shown.settle(found, clock)
        if not found:
            return False
        told(told_of(found))
        _, clock.reserve = affordable(here, outlines, found, store, clock)
        return clock.left is not None and clock.left <= 0

    if clock.limit is not None and log.finished():  # nothing was timed in this part of the search yet
        from mergerisk.study.timing import measure_speeds

        clock.speeds = measure_speeds(base, crew.device.partition(",")[0])
    tried = Trying(base, outlines, store, crew.hire, listen)
    try:
        found = search(log, tried, most=most, settled=settled)
    finally:
        spend()
    if not found:
        if clock.left is not None and clock.left <= 0:
            raise UserError(
                f"--time: {duration(clock.elapsed)} did not suffice to try one recipe; everything finished is "
                "kept: run again with more"
            )
        raise UserError(
            "no recipe could be measured: no image that was attacked counts; raise search.images_per_task"
        )
    return found


def _best(
    here: Study,
    outlines: Mapping[TaskSource, Outline],
    found: Sequence[Tried],
    store: Store,
    clock: Clock,
    log: Trials,
) -> tuple[Tried, ...]:
    """The best trades, which are measured; what was measured before, if nothing was tried since."""
    for count, numbers in log.measured:
        if count == len(found):
            return tuple(one for number in numbers for one in found if one.number == number)
    best = affordable(here, outlines, found, store, clock)[0]
    log.measure(len(found), [one.number for one in best])
    return best


def affordable(
    here: Study, outlines: Mapping[TaskSource, Outline], found: Sequence[Tried], store: Store, clock: Clock
) -> tuple[tuple[Tried, ...], float]:
    """As many of the best trades as are asked for, or as can be measured in a share of the time, one at least; and
    the seconds that it takes, as far as is known."""
    best = front(found)
    for count in range((here.search or Search()).recipes, 0, -1):
        some = chosen(best, count)
        study = compose(to_measure(here), [one.recipe for one in some])[0]
        seconds = clock.estimate(make_plan(study, outlines=outlines).missing(store))
        if clock.limit is None or seconds <= _SHARE * clock.limit:
            break
    return some, seconds


def _notes(space: Space, again: bool) -> list[str]:
    """What one must know of a search to read what it found."""
    said = []
    if read := reading(space):
        said.append(
            f"{', '.join(read)} {'reads' if len(read) == 1 else 'read'} the held-out images that recipes are "
            "chosen by: in the search they look better than they are"
        )
    if again:
        said.append(
            f"recipes of an earlier search in this folder were measured on the same attacked images, in the file "
            f"{JOURNAL}; who chooses between both by their figures has chosen on these images"
        )
    return said
