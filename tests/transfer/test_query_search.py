"""Searches from transferred images against loops written out image by image; and what a run counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

import mergerisk as mr
from mergerisk.attacks import Watched
from mergerisk.cli.main import main
from mergerisk.errors import UserError
from mergerisk.randomness import ImageRandom
from mergerisk.registry import Entry
from mergerisk.report.exports.query_curves import query_curves
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan, parse_study
from mergerisk.study.kinds.query import Query
from mergerisk.transfer import SEARCHES, CallableTarget, asking, search
from tests.naive import searches
from tests.naive.attacks.loop import project, unit
from tests.naive.models import Recorder, SmoothClassifier, smooth_problem
from tests.tiny import MINIMAL, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

QUERIES = 40


class Started:
    """Draws that begin with the signs of a start in columns, as the transcription of Square begins."""

    def __init__(self, signs: Tensor, draws: ImageRandom) -> None:
        self.first: Tensor | None = signs
        self.draws = draws

    def uniform(self, *shape: int, like: Tensor) -> Tensor:
        if self.first is None:
            return self.draws.uniform(*shape, like=like)
        found, self.first = self.first, None
        return found[None].reshape(1, *shape)


@pytest.mark.parametrize("epsilon", [8 / 255, 0.1])
def test_square_goes_on_as_the_paper_does_from_its_own_start(epsilon: float) -> None:
    target, images, _ = smooth_problem(4, 3, 9, 7)
    labels = target(images).argmax(dim=1)  # all of them right, so that there is something to ask
    uniform = torch.rand(4, 3, 1, 7, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    start = images + epsilon * torch.where(uniform < 0.5, -1.0, 1.0)
    recorder = Recorder(target)
    found = search(
        asking(recorder), SmoothClassifier(3, 9, 7, seed=1), images, labels, start.clamp(0, 1),
        how=SEARCHES.create("square", {}), epsilon=epsilon, queries=QUERIES, seed=3, indices=[5, 0, 2, 9],
    )  # fmt: skip
    for i, index in enumerate([5, 0, 2, 9]):
        draws: Any = Started(uniform[i], ImageRandom(3, "query_search", [index]))
        expected, asked = searches.square(
            target, images[i], int(labels[i]), draws, epsilon=epsilon, norm="linf", queries=QUERIES
        )
        torch.testing.assert_close(found.adversarial[i], expected, rtol=0, atol=1e-10)
        assert int(found.asked[i]) == asked
        fooled = int(target(expected[None]).argmax()) != int(labels[i])
        assert int(found.fooled_at[i]) == (asked if fooled else 0)
    assert sum(map(len, recorder.seen)) == int(found.asked.sum())
    assert int(found.asked.max()) > 1


def naive_simba(
    target: Any,
    surrogate: Any,
    image: Tensor,
    label: int,
    start: Tensor,
    draws: ImageRandom,
    *,
    epsilon: float,
    norm: str,
) -> tuple[Tensor, int, int]:
    """arXiv 2003.06878 with SimBA's loop: one direction, first up, then down; the margin decides. Best point, the
    query that fooled the target (0 for none), and queries."""

    def margin(point: Tensor) -> float:
        z = target(point[None])[0]
        return float(z[label]) - max(float(z[k]) for k in range(len(z)) if k != label)

    best = project(image, start, epsilon, norm)
    least, asked = margin(best), 1
    if least < 0:
        return best, 1, 1
    while True:
        weights = None
        for way in (1.0, -1.0):
            if asked == QUERIES:
                return best, 0, asked
            drawn = 2 * draws.uniform(4, like=image[None])[0] - 1  # of every query, used where a direction begins
            if way == 1.0:
                weights = drawn
                leaf = best.clone().requires_grad_()
                (slope,) = torch.autograd.grad((surrogate(leaf[None])[0] * weights).sum(), leaf)
            tried = project(image, best + way * epsilon * unit(slope, norm), epsilon, norm)
            asked += 1
            found = margin(tried)
            if found < 0:
                return tried, asked, asked
            if found < least:
                best, least = tried, found
                break


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 8 / 255), ("l2", 0.4)])
def test_simba_follows_what_changes_the_surrogate(norm: Any, epsilon: float) -> None:
    target, images, labels = smooth_problem(5, 3, 6, 5)
    labels = target(images).argmax(dim=1)  # all of them right, so that there is something to ask
    surrogate = SmoothClassifier(3, 6, 5, seed=1)
    start = mr.attacks.create("mi_fgsm", steps=3)(surrogate, images, labels, epsilon=epsilon, norm=norm)
    recorder = Recorder(target)
    found = search(
        asking(recorder), surrogate, images, labels, start,
        how=SEARCHES.create("simba_ods", {}), epsilon=epsilon, norm=norm, queries=QUERIES, seed=3,
    )  # fmt: skip
    for i in range(len(images)):
        best, fooled_at, asked = naive_simba(
            target, surrogate, images[i], int(labels[i]), start[i], ImageRandom(3, "query_search", [i]),
            epsilon=epsilon, norm=norm,
        )  # fmt: skip
        torch.testing.assert_close(found.adversarial[i], best, rtol=0, atol=1e-10)
        assert (int(found.fooled_at[i]), int(found.asked[i])) == (fooled_at, asked)
    assert sum(map(len, recorder.seen)) == int(found.asked.sum())
    assert max(map(len, recorder.seen)) > 1, "images that are left are asked about together"


class Trembling(SmoothClassifier):
    """Draws from PyTorch's global generator."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 0.01 * torch.randn_like(images))


def test_a_surrogate_is_followed_by_as_many_images_as_there_is_memory_for_and_draws_by_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, images, _ = smooth_problem(5, 3, 6, 5)
    labels = target(images).argmax(dim=1)
    settings: dict[str, Any] = {"how": SEARCHES.create("simba_ods", {}), "epsilon": 2 / 255, "queries": 6}

    def found(surrogate: torch.nn.Module) -> Tensor:
        return search(asking(target), surrogate, images, labels, images, **settings).adversarial

    state = torch.get_rng_state()
    torch.testing.assert_close(
        found(Trembling(3, 6, 5, seed=1)), found(Trembling(3, 6, 5, seed=1)), rtol=0, atol=0
    )
    assert torch.equal(torch.get_rng_state(), state)
    whole, recorder = found(SmoothClassifier(3, 6, 5, seed=1)), Recorder(SmoothClassifier(3, 6, 5, seed=1))
    monkeypatch.setattr("mergerisk.attacks.given.fitting", lambda *_: 2)
    torch.testing.assert_close(found(recorder), whole, rtol=0, atol=1e-10)
    assert max(map(len, recorder.seen)) == 2


class Alarmed(Watched):
    """Rejects everything that is brighter than a clean image; answers wrongly."""

    def heard(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.tensor([0.0, 1.0]).repeat(len(images), 1)
        return logits, (images.mean(dim=(1, 2, 3)) > 0.5).double()


def test_labels_alone_and_alarms_are_heard_as_they_are() -> None:
    images, labels = torch.full((3, 3, 8, 8), 0.5), torch.zeros(3, dtype=torch.int64)
    seen: list[Tensor] = []

    def says(shown: Tensor) -> list[int]:
        seen.append(shown)
        return [int(image[0, 0, 0] < 0.5) for image in shown]

    surrogate = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    settings: dict[str, Any] = {"how": SEARCHES.create("square", {}), "epsilon": 0.1, "queries": 12}
    found = search(CallableTarget(says, ("a", "b")).ask, surrogate, images, labels, images, **settings)
    shown = torch.cat(seen)
    assert len(shown) == int(found.asked.sum())
    # The first queries are the transferred images, and none exceeds the budget.
    assert torch.equal(shown[:3], images)
    assert float((shown.double() - 0.5).abs().max()) <= 0.1
    for image, query in zip(found.adversarial, found.fooled_at.tolist(), strict=True):
        assert (query > 1) == (float(image[0, 0, 0]) < 0.5)
    # Whoever is rejected has fooled nobody.
    rejected = search(asking(Alarmed()), surrogate, images, labels, images + 0.05, **(settings | {"queries": 1}))
    passed = search(asking(Alarmed()), surrogate, images, labels, images - 0.05, **(settings | {"queries": 1}))
    assert rejected.fooled_at.tolist() == [0, 0, 0]
    assert passed.fooled_at.tolist() == [1, 1, 1]


BLACK_BOX = """
import torch
def say(images):
    with open({log!r}, "a") as file:
        file.write(f"{{len(images)}}\\n")
    flat = images.flatten(1)
    draws = torch.randn(flat.shape[1], 3, generator=torch.Generator().manual_seed(0))
    return (flat - 0.5) @ draws
"""


def test_a_run_counts_every_query(tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "asked"
    (tmp_path / "a_scoring_box.py").write_text(BLACK_BOX.format(log=str(log)))
    monkeypatch.syspath_prepend(tmp_path)
    study = write_tiny_study(
        tmp_path,
        tiny_vit,
        tasks=["stripes.npz"],
        merging=["weight_averaging"],
        attacks=["fgsm", "mi_fgsm"],
        surrogates=["expert", "pretrained"],
        targets=[{"label": "box", "callable": {"stripes": "a_scoring_box:say"}}],
        tables=[
            {
                "table": "queries",
                "queries": 8,
                "at": [1, 4, 8],
                "targets": ["box", "weight_averaging"],
                "attacks": ["fgsm"],
            }
        ],
    )
    run = tmp_path / "run"
    result = mr.run(study, run, workers=1, progress=False)
    table, outcomes = pd.read_parquet(run / "queries.parquet"), pd.read_parquet(run / "outcomes.parquet")
    assert len(table) == 2 * 2 * 2 * 12  # surrogates × targets × searches × images
    by = ["task", "attack", "surrogate", "target", "epsilon", "seed", "image"]
    both = table.merge(outcomes, on=by, validate="many_to_one")
    right = both["target_clean"] == both["label"]
    assert both["fooled_by_1"].isna().equals(~right)
    # The first query is what the study shows the target anyway.
    first = both["target_adversarial"] != both["label"]
    assert both.loc[right, "fooled_by_1"].astype(bool).equals(first[right])
    fooled = both["queries_to_fool"].notna()
    assert (both.loc[fooled, "queries_to_fool"] == both.loc[fooled, "queries"]).all()
    assert (both.loc[right & ~fooled, "queries"] == 8).all()
    assert both.loc[right, "fooled_by_8"].sum() == fooled.sum()
    stages = [stage for stage in make_plan(load_study(study)).stages.values() if isinstance(stage, Query)]
    assert {stage.cost().get("query", stage.cost().get("forward")) for stage in stages} == {12 * 8}
    # Clean images, two attacks from two surrogates at three budgets, and the searches: not one query more.
    store = Store(run / "store")
    asked = sum(int(store.get(s.key).arrays["asked"].sum()) for s in stages if s.target.answers_by == "query")
    assert sum(map(int, log.read_text().split())) == 12 + 2 * 2 * 3 * 12 + asked
    assert "queries.parquet" in (run / "report.html").read_text()
    curves = query_curves(result.summary, "pretrained")
    assert [curve[:2] for curve in curves][:2] == [
        ("weight_averaging", "square"),
        ("weight_averaging", "simba_ods"),
    ]
    own = both[
        right & (both["surrogate"] == "pretrained") & (both["target"] == "box") & (both["search"] == "square")
    ]
    (rates,) = (curve.rates for curve in curves if curve[:2] == ("box", "square"))
    assert [rates[0], rates[3], rates[-1]] == pytest.approx([own[f"fooled_by_{n}"].mean() for n in (1, 4, 8)])
    assert (np.diff(rates) >= 0).all()
    main(["report", str(run), "--export", str(tmp_path / "export"), "--formats", "svg"])
    assert (tmp_path / "export" / "figures" / "queries_pretrained.svg").is_file()


def test_another_version_of_an_installed_search_asks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    study = parse_study(
        MINIMAL | {"seeds": [0, 1], "tables": [{"table": "queries", "searches": ["square", "mine"]}]}
    )
    made = {}
    for version in ("mine 1.0", "mine 2.0"):
        entry = Entry("mine", "mergerisk.transfer.query_search:SquareSearch", "", distribution=version)
        monkeypatch.setitem(vars(SEARCHES), "_installed", {"mine": entry})
        made[version] = [stage for stage in make_plan(study).stages.values() if isinstance(stage, Query)]
        assert len({stage.label for stage in made[version]}) == len(made[version])
    for before, after in zip(*made.values(), strict=True):
        assert (before.key == after.key) == (before.search == "square")
        assert before.plugins == (("mine 1.0",) if before.search == "mine" else ())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"targets": ["tie"]}, "table 'queries': the study has no target 'tie' (did you mean 'ties'?)"),
        ({"attacks": ["pgd"]}, "table 'queries': the study has no attack 'pgd'"),
        ({"searches": ["simba"]}, "unknown query search 'simba' (did you mean 'simba_ods'?)"),
    ],
)
def test_what_the_study_lacks_is_said(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(parse_study(MINIMAL | {"tables": [{"table": "queries", **table}]}))
    assert message in str(caught.value)


def test_no_query_is_no_search() -> None:
    with pytest.raises(UserError, match="queries must be at least 1"):
        search(
            asking(torch.nn.Identity()), torch.nn.Identity(), torch.zeros(1, 3, 4, 4), torch.zeros(1).long(),
            torch.zeros(1, 3, 4, 4), how=SEARCHES.create("square", {}), epsilon=0.1, queries=0,
        )  # fmt: skip
    assert np.array_equal(SEARCHES.names()[:2], ["square", "simba_ods"])
