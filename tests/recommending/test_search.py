"""The search by itself: what it draws, where it goes on, and what choosing the best of it does to figures."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mergerisk.errors import UserError
from mergerisk.recommending.clock import Clock, parse_time
from mergerisk.recommending.recipe import Part, Recipe
from mergerisk.recommending.scoring import Score, Tried, chosen, continued, front, recommended
from mergerisk.recommending.searching import ROUND, OutOfTime, search
from mergerisk.recommending.space import Space
from mergerisk.recommending.trials import JOURNAL, check_installed, open_trials
from mergerisk.study.executors.attempt import Outcome
from mergerisk.study.executors.events import StageEnded, StageStarted
from mergerisk.study.fields.search import Between, OneOf
from mergerisk.study.timing import Speeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mergerisk.recommending.trials import Trials

pytest.importorskip("optuna")

SPACE = Space(
    methods={
        "plain": {},
        "ties": {"density": Between(low=0.1, high=1.0), "scaling": Between(low=0.1, high=2.0, log=True)},
    },
    defenses={"jpeg": {"quality": OneOf(values=(50, 75))}, "median": {"size": Between(low=2, high=3)}},
    innermost={"plain": ("jpeg", "median"), "ties": ("jpeg",)},
    further=("jpeg", "median"),
    bare=True,
    layers=2,
)


@contextmanager
def opened(folder: Path, *, seed: int = 0, of: str = "this", force: bool = False) -> Iterator[Trials]:
    folder.mkdir(exist_ok=True)
    with open_trials(folder, SPACE, [{"method": "plain"}], seed, {"of": of}, force=force) as trials:
        yield trials


def worth(recipe: Recipe) -> Score:
    """More density is more accurate and less safe; a defense is safer and less accurate."""
    density = float(recipe.merge.parameters.get("density", 0.5))
    return Score(density - 0.1 * len(recipe.defenses), 1.0 - density + 0.3 * len(recipe.defenses))


def worths(recipes: Sequence[Recipe]) -> list[Score | None]:
    return [worth(recipe) for recipe in recipes]


def test_everything_that_is_drawn_lies_in_the_space(tmp_path: Path) -> None:
    with opened(tmp_path) as trials:
        tried = search(trials, worths, most=40)
    assert [one.number for one in tried] == list(range(40))
    assert tried[0].recipe.merge == Part("plain")
    kinds = set()
    for one in tried:
        names = [part.name for part in one.recipe.defenses]
        kinds.add((one.recipe.merge.name, *names))
        assert len(set(names)) == len(names) <= 2
        if one.recipe.merge.name == "ties":
            assert names[:1] in ([], ["jpeg"])
            density, scaling = (one.recipe.merge.parameters[name] for name in ("density", "scaling"))
            assert 0.1 <= density <= 1.0
            assert 0.1 <= scaling <= 2.0
            assert density == float(f"{density:.3g}")
        for part in one.recipe.defenses:
            assert part.parameters in (
                [{"quality": 50}, {"quality": 75}] if part.name == "jpeg" else [{"size": 2}, {"size": 3}]
            )
    assert {("plain",), ("ties", "jpeg"), ("ties", "jpeg", "median"), ("plain", "median", "jpeg")} <= kinds


def test_a_seed_gives_one_search_and_another_seed_another(tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        with opened(tmp_path / name, seed=seed) as trials:
            found.append(search(trials, worths, most=20))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("stopped", ["in a round", "while a round was drawn", "by a half-written line"])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(stopped: str, tmp_path: Path) -> None:
    with opened(tmp_path / "whole") as trials:
        whole = search(trials, worths, most=3 * ROUND)

    rounds = 0

    def stops(recipes: Sequence[Recipe]) -> list[Score | None]:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            raise KeyboardInterrupt
        return worths(recipes)

    parts = tmp_path / "parts"
    with opened(parts) as trials:
        if stopped == "while a round was drawn":
            search(trials, worths, most=ROUND)
            for _ in range(3):
                trials.begin()
        else:
            with pytest.raises(KeyboardInterrupt):
                search(trials, stops, most=3 * ROUND)
    if stopped == "by a half-written line":
        with (parts / JOURNAL).open("a") as file:
            file.write('{"op_code":')
        (parts / f"{JOURNAL}.lock").touch()  # as a process leaves it that was killed while it wrote
    with opened(parts) as trials:
        assert search(trials, worths, most=3 * ROUND) == whole


def test_time_that_runs_out_keeps_what_was_tried_and_its_round_is_tried_next(tmp_path: Path) -> None:
    asked: list[list[Recipe]] = []

    def late(recipes: Sequence[Recipe]) -> list[Score | None]:
        asked.append([*recipes])
        if len(asked) == 2:
            raise OutOfTime
        return worths(recipes)

    with opened(tmp_path) as trials:
        assert len(search(trials, late)) == ROUND
    with opened(tmp_path) as trials:
        assert len(search(trials, late, settled=lambda found: len(found) > ROUND)) == 2 * ROUND
    assert asked[2] == asked[1]


def test_another_search_is_not_gone_on_with(tmp_path: Path) -> None:
    with opened(tmp_path) as trials:
        search(trials, worths, most=2)
    with (
        pytest.raises(UserError, match=r"holds the search of another study.*--force"),
        opened(tmp_path, of="that"),
    ):
        pass
    with opened(tmp_path, of="that", force=True) as trials:
        assert trials.finished() == []


def test_two_searches_do_not_share_a_folder(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(UserError, match="a search is under way here"), opened(tmp_path):
        pass


def test_a_recipe_without_a_score_is_given_up(tmp_path: Path) -> None:
    with opened(tmp_path) as trials:
        found = search(trials, lambda recipes: [None, *worths(recipes[1:])], most=2 * ROUND)
    assert [one.number for one in found] == [number for number in range(2 * ROUND) if number % ROUND]


def tried_of(scores: Sequence[Score]) -> list[Tried]:
    return [
        Tried(number, Recipe(Part.of("ties", {"density": number})), score) for number, score in enumerate(scores)
    ]


def test_the_front_is_what_comparing_every_pair_leaves() -> None:
    random = np.random.default_rng(0)
    for size in (1, 2, 7, 40):
        points = [Score(*map(float, pair)) for pair in random.integers(0, 6, (size, 2))]
        left = {
            point
            for point in points
            if not any(
                other.accuracy >= point.accuracy and other.safety >= point.safety and other != point
                for other in points
            )
        }
        found = front(tried_of(points))
        assert {one.score for one in found} == left
        assert [one.score.accuracy for one in found] == sorted((one.score.accuracy for one in found), reverse=True)
        for count in (1, 2, 4):
            some = chosen(found, count)
            assert len(some) == min(count, len(found))
            assert recommended(found) in some
            assert [one for one in found if one in some] == [*some]


def test_a_recipe_that_is_tried_twice_is_on_the_front_once() -> None:
    one = Tried(0, Recipe(Part("ties")), Score(0.5, 0.5))
    assert front([one, one._replace(number=1)]) == (one,)


def test_recommended_is_the_safest_within_two_points() -> None:
    best = tried_of([Score(0.90, 0.1), Score(0.885, 0.2), Score(0.87, 0.9)])
    assert recommended(best) == best[1]


def test_what_lies_beyond_the_budgets_is_ordered_without_a_jump() -> None:
    epsilons = np.array([1.0, 2.0, 4.0])
    curves = [[0.6, 0.9, 1], [0.5, 0.9, 1], [0.4, 0.6, 1], [0.1, 0.2, 0.5], [0.1, 0.2, 0.4], [0.0, 0.0, 0.0]]
    found = [continued(np.array(curve), epsilons) for curve in curves]
    assert found == sorted(found)
    assert found[0] == pytest.approx(0.9)
    assert found[1] == pytest.approx(1.0)
    assert 1.0 < found[2] < 2.0
    assert found[3:] == pytest.approx([4.0, 4.4, 6.0])


def test_the_figures_of_a_search_are_too_good_and_those_of_the_measurement_are_not(tmp_path: Path) -> None:
    """All recipes are worth the same, and figures are nothing but noise: of images, as an accuracy is."""
    images, truth = 60, 0.5
    optimism, error = [], []
    for repeat in range(6):
        chance, measuring = np.random.default_rng([repeat, 0]), np.random.default_rng([repeat, 1])

        def looked_at(random: np.random.Generator) -> Callable[[Sequence[Recipe]], list[Score | None]]:
            return lambda recipes: [
                Score(*map(float, random.binomial(images, truth, 2) / images)) for _ in recipes
            ]

        with opened(tmp_path / str(repeat), seed=repeat) as trials:
            best = chosen(front(search(trials, looked_at(chance), most=4 * ROUND)), 4)
        for one, score in zip(best, looked_at(measuring)([one.recipe for one in best]), strict=True):
            assert score is not None
            optimism.append(sum(one.score) - 2 * truth)
            error.append(sum(score) - 2 * truth)
    # The sum of two means of 60 draws has a standard error of 0.091.
    allowed = 3.3 * 0.0913 / np.sqrt(len(error))
    assert np.mean(optimism) > allowed
    assert abs(np.mean(error)) < allowed


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("15 min", 900), ("1.5h", 5400), ("1h 30m", 5400)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "half an hour", "0m", "-5m", "5 weeks", "10m later"])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(UserError, match="--time must be a time such as 90s"):
        parse_time(text)


def test_a_clock_keeps_what_measuring_takes_and_goes_by_what_it_timed() -> None:
    now = 0.0
    clock = Clock(100.0, 20.0, 2, now=lambda: now)
    stage: Any = type("Stage", (), {"kind": "craft", "work": 50.0, "cost": lambda _: {"gradient": 30}})()
    assert clock.estimate([stage]) == 0.0
    clock.speeds = Speeds({"gradient": 10.0}, "cpu")
    assert clock.estimate([stage]) == pytest.approx(1.15 * 1.5)
    clock(StageEnded(stage, Outcome("done", 10.0)))
    assert clock.estimate([stage, stage]) == pytest.approx(
        1.15 * 10.0
    )  # two of 10 s, by two workers, and a little more
    clock.reserve = 30.0
    now = 49.0
    clock(StageStarted(stage))
    now = 51.0
    with pytest.raises(OutOfTime):
        clock(StageStarted(stage))


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UserError, match=r"mergerisk\[recommend\]"):
        check_installed()
