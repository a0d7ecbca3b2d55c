"""What was tried, kept on disk by Optuna, and what to try next."""

from __future__ import annotations

import hashlib
import json
import warnings
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mergerisk.disk import locked
from mergerisk.errors import UserError, first_line
from mergerisk.recommending.recipe import Recipe
from mergerisk.recommending.scoring import Score, Tried
from mergerisk.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import optuna

    from mergerisk.recommending.space import Space

JOURNAL = "search.journal"
"""Of the folder: Optuna's log of what was tried."""

_STARTED_AT_RANDOM = 8
"""Recipes that are drawn at random before Optuna's sampler goes by those that were tried."""

_NAME = "recipes"
_OF, _SECONDS, _MEASURED, _RECIPE = "of", "seconds", "measured", "recipe"


def check_installed() -> None:
    """See that Optuna is there.

    Raises:
        UserError: it is not.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError("recommend searches with Optuna: pip install 'mergerisk[recommend]'") from error


class Trials:
    """The trials of a search.

    What is tried next depends on the seed, the trial's number and the trials that were finished when its round
    began alone: a search that was stopped, whatever stopped it, goes on as if it had not been.

    Args:
        study: Optuna's.
        space: what recipes there are.
        starts: what is tried first.
        seed: of the search.
    """

    def __init__(self, study: optuna.Study, space: Space, starts: Sequence[Mapping[str, Any]], seed: int) -> None:
        self._study = study
        self._space = space
        self._starts = starts
        self._seed = seed

    @property
    def count(self) -> int:
        """Of trials that were begun."""
        from optuna.trial import TrialState

        return sum(trial.state != TrialState.WAITING for trial in self._study.get_trials(deepcopy=False))

    def finished(self) -> list[Tried]:
        """Those with a score, in order."""
        from optuna.trial import TrialState

        found = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [
            Tried(trial.number, Recipe.from_plain(trial.user_attrs[_RECIPE]), Score(*trial.values))
            for trial in found
        ]

    def begun(self) -> list[tuple[int, Recipe]]:
        """Those that were begun and not finished, by number. One stopped while it was drawn is given up."""
        from optuna.trial import TrialState

        found = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _RECIPE in trial.user_attrs:
                found.append((trial.number, Recipe.from_plain(trial.user_attrs[_RECIPE])))
            else:
                self._study.tell(trial.number, state=TrialState.FAIL)
        return found

    def begin(self) -> tuple[int, Recipe]:
        """Draw the next recipe."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        number = self.count
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if number < len(self._starts) and not waiting:
            self._study.enqueue_trial(dict(self._starts[number]))
        self._study.sampler = TPESampler(
            n_startup_trials=len(self._starts) + _STARTED_AT_RANDOM,
            seed=derive_seed(self._seed, "trial", number) % 2**32,
            constant_liar=True,
        )
        trial = self._study.ask()
        recipe = self._space.draw(trial)
        trial.set_user_attr(_RECIPE, recipe.to_plain())
        return trial.number, recipe

    def finish(self, number: int, score: Score | None) -> None:
        """Keep where a recipe stands; None gives it up."""
        from optuna.trial import TrialState

        if score is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, values=[*map(float, score)])

    @property
    def seconds(self) -> float:
        """That the search took so far, however often it was stopped."""
        return float(self._study.user_attrs.get(_SECONDS, 0.0))

    def spend(self, seconds: float) -> None:
        """Add to :attr:`seconds`."""
        self._study.set_user_attr(_SECONDS, self.seconds + seconds)

    @property
    def measured(self) -> list[tuple[int, list[int]]]:
        """What was measured on attacked images, in order: after how many trials, and which ones' recipes."""
        return [(count, list(numbers)) for count, numbers in self._study.user_attrs.get(_MEASURED, [])]

    def measure(self, count: int, numbers: Sequence[int]) -> None:
        """Take note that some trials' recipes are measured, after so many trials."""
        if (count, [*numbers]) not in self.measured:
            self._study.set_user_attr(_MEASURED, [*self.measured, (count, [*numbers])])


@contextmanager
def open_trials(
    folder: Path,
    space: Space,
    starts: Sequence[Mapping[str, Any]],
    seed: int,
    of: Mapping[str, Any],
    *,
    force: bool,
) -> Iterator[Trials]:
    """The trials of the search in a folder, which nobody else goes on with meanwhile.

    Args:
        folder: that exists.
        space: what recipes there are.
        starts: what is tried first.
        seed: of the search.
        of: what decides its results, as JSON has it: another search is not gone on with.
        force: replace another search.

    Raises:
        UserError: the folder holds another search, one that cannot be read, or one that is under way.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    file = folder / JOURNAL
    digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
    with ExitStack() as held:
        try:
            ours = held.enter_context(locked(folder / f"{JOURNAL}.ours", wait=False))
        except OSError as error:
            raise UserError(f"{folder}: cannot be locked: {error.strerror}; choose another --out") from error
        if not ours:
            raise UserError(f"{folder}: a search is under way here; wait for it, or choose another --out")
        # Nobody else writes here: what a killed process left is not waited for, and half a line is none.
        (folder / f"{JOURNAL}.lock").unlink(missing_ok=True)
        _whole_lines(file)
        with warnings.catch_warnings(), _quiet(optuna):
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = _study(
                file, lambda: JournalStorage(JournalFileBackend(str(file), JournalFileOpenLock(str(file))))
            )
            known = study.user_attrs.get(_OF)
            if known not in {None, digest}:
                if not force:
                    raise UserError(
                        f"{folder}: holds the search of another study, seed or version of mergerisk; choose "
                        "another --out, or replace it with --force"
                    )
                file.unlink()
                study = _study(
                    file, lambda: JournalStorage(JournalFileBackend(str(file), JournalFileOpenLock(str(file))))
                )
                known = None
            if known is None:
                study.set_user_attr(_OF, digest)
            yield Trials(study, space, starts, seed)


def _study(file: Path, storage: Any) -> optuna.Study:
    import optuna

    try:
        return optuna.create_study(
            storage=storage(), study_name=_NAME, directions=["maximize", "maximize"], load_if_exists=True
        )
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{file}: cannot be read: {first_line(error)}; replace it with another --out") from error


def _whole_lines(file: Path) -> None:
    """Cut off what stands behind a file's last line end."""
    with suppress(FileNotFoundError), file.open("r+b") as opened:
        content = opened.read()
        opened.truncate(content.rfind(b"\n") + 1)


@contextmanager
def _quiet(module: Any) -> Iterator[None]:
    """Without Optuna's lines on every trial."""
    before = module.logging.get_verbosity()
    module.logging.set_verbosity(module.logging.ERROR)
    try:
        yield
    finally:
        module.logging.set_verbosity(before)
