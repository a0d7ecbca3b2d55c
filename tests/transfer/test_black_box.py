"""Black boxes answer as a plain function does, and no image is ever sent beyond the budget."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
import torch

from mergerisk.errors import UserError
from mergerisk.named_callables import load_callable
from mergerisk.transfer import CallableTarget, HttpTarget, Queries
from tests.transfer.black_box_stand_in import Reply, service

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.transfer.black_box_stand_in import Pixels

NAMES = ("ant", "bee", "cat")
TRUTH = [0, 2, 1, 1, 0]


def make_images(labels: list[int] = TRUTH) -> torch.Tensor:
    """Images whose first red value, in 255ths, is the label."""
    images = torch.full((len(labels), 3, 2, 4), 0.5)
    images[:, 0, 0, 0] = torch.tensor(labels) / 255
    return images


def read(images: list[Pixels]) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


def labels_of(images: list[Pixels]) -> Reply:
    return Reply({"labels": read(images)})


def target(url: str, **settings: Any) -> HttpTarget:
    settings = {"queries": Queries(1000), "batch_size": 2, "timeout": 5.0, "backoff": 0.0} | settings
    return HttpTarget(url, NAMES, **settings)


@pytest.fixture(autouse=True)
def _plain_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, and no certificates, which take longer to read than most of these tests."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(httpx2, "Client", partial(httpx2.Client, verify=False))


# Callables


@pytest.mark.parametrize(
    "answer",
    [
        torch.tensor(TRUTH),
        torch.tensor(TRUTH, dtype=torch.int32),
        np.array(TRUTH),
        TRUTH,
        tuple(TRUTH),
        [NAMES[label] for label in TRUTH],
        np.array([NAMES[label] for label in TRUTH]),
        torch.eye(3)[TRUTH],
        torch.eye(3, dtype=torch.bfloat16)[TRUTH].requires_grad_(),
        np.eye(3)[TRUTH],
        torch.eye(3)[TRUTH].log(),  # impossible classes score minus infinity
        np.eye(3, dtype=int)[TRUTH].tolist(),
    ],
)
def test_a_callable_may_answer_labels_names_or_scores(answer: object) -> None:
    predictions = CallableTarget(lambda _: answer, NAMES).predict(make_images())
    assert predictions.dtype == torch.int64
    assert predictions.tolist() == TRUTH


def test_images_go_out_in_portions_and_cannot_be_changed_by_the_callable() -> None:
    sizes = []

    def function(images: torch.Tensor) -> list[int]:
        sizes.append(len(images))
        labels = (images[:, 0, 0, 0] * 255).round().long().tolist()
        images.zero_()
        return labels

    images = make_images()
    assert CallableTarget(function, NAMES, batch_size=2).predict(images).tolist() == TRUTH
    assert sizes == [2, 2, 1]
    assert torch.equal(images, make_images())
    assert CallableTarget(function, NAMES).predict(images[:0]).shape == (0,)
    assert len(sizes) == 3


def _raise(_: object) -> list[int]:
    raise RuntimeError("out of\nmemory")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda _: [0, 1], "2 answers for 5 images"),
        (lambda _: [0, 1, 2, 3, 0], "label 3 is neither .* from 0 to 2"),
        (lambda _: [0, 1, 2, -1, 0], "label -1 is neither"),
        (lambda _: [0.0, 1.0, 2.0, 0.0, 0.0], "label 0.0 is neither"),
        (lambda _: [True] * 5, "label True is neither"),
        (lambda _: ["bea"] * 5, "label 'bea' is neither .*did you mean 'bee'"),
        (lambda _: torch.zeros(4, 3), "4 answers for 5 images"),
        (lambda _: torch.zeros(5, 4), "4 scores per image, but the task has 3 classes"),
        (lambda _: torch.full((5, 3), torch.nan), "a score is NaN"),
        (lambda _: [["0", "1", "2"]] * 5, "5 rows of 3 numbers"),
        (lambda _: [[0, 1], [1]], r"5 labels or 5 × 3 scores, got list"),
        (lambda _: torch.zeros(5, 3, 1), r"got Tensor of shape \(5, 3, 1\)"),
        (lambda _: None, "got NoneType"),
        (_raise, "test_black_box:_raise fails: RuntimeError: out of memory"),
    ],
)
def test_what_a_callable_answers_is_checked(function: Callable[[torch.Tensor], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CallableTarget(function, NAMES).predict(make_images())


def test_a_name_that_two_classes_share_is_no_answer() -> None:
    with pytest.raises(UserError, match="'ant' is neither the name of one class"):
        CallableTarget(lambda _: ["ant"], ("ant", "ant")).predict(make_images([0]))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 1, 2, 2), "N × 3 × H × W"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "floating point"),
        (torch.full((1, 3, 2, 2), 255.0), r"\[0, 1\]"),
        (torch.full((1, 3, 2, 2), torch.nan), r"\[0, 1\]"),
    ],
)
def test_images_are_checked(images: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CallableTarget(lambda _: [0], NAMES).predict(images)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("json", "package.module:function"),
        ("json:", "package.module:function"),
        ("no_such_module:f", "No module named 'no_such_module'; is it installed"),
        ("json:dump_", "no 'dump_'.*did you mean 'dump"),
        ("json:__doc__", "a str, which cannot be called"),
        ("broken_target:f", "cannot be imported: SyntaxError"),
    ],
)
def test_a_callable_that_cannot_be_loaded_is_said_why(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_target.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load_callable(spec)
    assert "\n" not in str(caught.value)


def test_a_callable_is_loaded_by_name() -> None:
    assert load_callable("torch:argmax") is torch.argmax


# HTTP: answers


@pytest.mark.parametrize(
    ("kind", "entry"),
    [("labels", lambda i: i), ("labels", lambda i: NAMES[i]), ("scores", lambda i: np.eye(3)[i].tolist())],
)
def test_a_service_may_answer_labels_names_or_scores(kind: str, entry: Callable[[int], object]) -> None:
    with service(lambda _, images: Reply({kind: [entry(i) for i in read(images)], "model": "m"})) as seen:
        queries = Queries(5)
        predictions = target(seen.address, answer=kind, queries=queries).predict(make_images())
    assert predictions.dtype == torch.int64
    assert predictions.tolist() == TRUTH
    assert [len(request) for request in seen.requests] == [2, 2, 1]
    assert seen.images == queries.used == 5


def test_pixels_are_rounded_to_the_nearest_of_256_levels() -> None:
    images = torch.rand(3, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 1.0, 254.6 / 255
    with service(lambda _, images: Reply({"labels": [0] * len(images)})) as seen:
        target(seen.address).predict(images)
    sent = np.stack([image for request in seen.requests for image in request])
    assert sent.shape == (3, 5, 4, 3)
    assert sent[0, 0, 0, 0] == sent[0, 0, 1, 0] == 255
    exact = 255 * images.double().numpy().transpose(0, 2, 3, 1)
    assert np.abs(sent - exact).max() <= 0.5


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret\n")
    monkeypatch.setenv("MY_KEY", "key")
    with service(lambda _, images: labels_of(images)) as seen:
        box = target(seen.address, token_variable="MY_TOKEN", header_variables={"X-Api-Key": "MY_KEY"})
        box.predict(make_images())
    assert seen.headers[0]["Authorization"] == "Bearer s3cret"
    assert seen.headers[0]["X-Api-Key"] == "key"
    assert "s3cret" not in repr(box)


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"<html>\n busy</html>", "labels", "no JSON: <html> busy</html>"),
        (b"\xff\xfe\x00", "labels", "no JSON"),
        (b"", "labels", r"no JSON: \(nothing\)"),
        (b"[" * 100_000, "labels", "no JSON"),
        ([0, 1], "labels", "must answer with"),
        ({"scores": [[1, 0, 0], [1, 0, 0]]}, "labels", r'must answer with \{"labels"'),
        ({"labels": "ab"}, "labels", "must answer with"),
        ({"labels": [0]}, "labels", "1 answers for 2 images"),
        ({"labels": [0, 3]}, "labels", "label 3 is neither"),
        ({"labels": [0, 10**30]}, "labels", "is neither"),
        ({"labels": [0, None]}, "labels", "label None is neither"),
        ({"labels": ["ant", "dog"]}, "labels", "label 'dog' is neither"),
        ({"scores": [[1, 0, 0]]}, "scores", "1 answers for 2 images"),
        ({"scores": [[1, 0], [1, 0]]}, "scores", "2 scores per image"),
        ({"scores": [[1, 0, 0], [1, 0]]}, "scores", "2 rows of 3 numbers"),
        ({"scores": [0, 1]}, "scores", "2 rows of 3 numbers"),
        ({"scores": [[1, 0, 0], [1, None, 0]]}, "scores", "2 rows of 3 numbers"),
        ({"scores": [[1, 0, 0], [1, float("nan"), 0]]}, "scores", "a score is NaN"),
    ],
)
def test_a_malformed_answer_is_named_and_not_asked_for_again(body: object, kind: str, message: str) -> None:
    with service(lambda *_: Reply(body)) as seen, pytest.raises(UserError, match=message) as caught:
        target(seen.address, answer=kind).predict(make_images())
    assert str(caught.value).startswith(f"{seen.address}: ")
    assert "\n" not in str(caught.value)
    assert len(seen.requests) == 1


# HTTP: failures


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_flaky_service_is_asked_again_after_doubling_waits(status: int) -> None:
    waits: list[float] = []
    flaky = [Reply(status=status)] * 3
    queries = Queries(100)
    with service(lambda number, images: (flaky[number:] or [labels_of(images)])[0]) as seen:
        box = target(seen.address, backoff=0.5, sleep=waits.append, queries=queries)
        assert box.predict(make_images()).tolist() == TRUTH
    assert waits == [0.5, 1.0, 2.0]
    assert seen.images == queries.used == 5 + 3 * 2


@pytest.mark.parametrize(
    ("asked", "shortest", "longest"),
    [
        (lambda _: "7", 7.0, 7.0),
        (lambda now: format_datetime(now + timedelta(seconds=300)), 200.0, 300.0),
        (lambda now: format_datetime((now + timedelta(seconds=300)).replace(tzinfo=None)), 200.0, 300.0),
        (lambda now: format_datetime(now - timedelta(seconds=300)), 0.5, 0.5),
        (lambda _: "soon", 0.5, 0.5),
        (lambda _: "Sun, 06 Nov 99999999999999 08:49:37 GMT", 0.5, 0.5),
        (lambda _: "0", 0.5, 0.5),
    ],
)
def test_the_service_says_how_long_to_wait(
    asked: Callable[[datetime], str], shortest: float, longest: float
) -> None:
    waits: list[float] = []
    busy = Reply(status=429, headers={"Retry-After": asked(datetime.now(UTC))})
    with service(lambda number, images: labels_of(images) if number else busy) as seen:
        target(seen.address, backoff=0.5, sleep=waits.append).predict(make_images())
    (wait,) = waits
    assert shortest <= wait <= longest


def test_a_real_wait_is_as_long_as_asked_for() -> None:
    busy = Reply(status=429, headers={"Retry-After": "1"})
    with service(lambda number, images: labels_of(images) if number else busy) as seen:
        start = time.monotonic()
        target(seen.address).predict(make_images())
    assert time.monotonic() - start >= 1.0


def test_a_service_that_asks_for_a_day_is_left_alone() -> None:
    with (
        service(lambda *_: Reply(status=429, headers={"Retry-After": "86400"})) as seen,
        pytest.raises(UserError, match="asks to wait 86400 s"),
    ):
        target(seen.address, sleep=lambda _: pytest.fail("waits")).predict(make_images())


@pytest.mark.parametrize("trouble", [Reply(hang_up=True), Reply(delay=1.5)])
def test_connections_that_break_or_stall_are_tried_again(trouble: Reply) -> None:
    queries = Queries(100)
    with service(lambda number, images: labels_of(images) if number else trouble) as seen:
        predictions = target(seen.address, timeout=1.0, queries=queries).predict(make_images())
    assert predictions.tolist() == TRUTH
    assert seen.images == queries.used == 7


def test_a_service_that_stays_away_ends_in_an_error() -> None:
    with (
        service(lambda *_: Reply(b"mend\nme", status=503)) as seen,
        pytest.raises(UserError, match=r"no answer in 3 attempts, .* status 503: mend me") as caught,
    ):
        target(seen.address, retries=2).predict(make_images())
    assert seen.address in str(caught.value)
    assert len(seen.requests) == 3
    with pytest.raises(UserError, match=r"no answer in 2 attempts, .* ConnectError"):  # the service is gone by now
        target(seen.address, retries=1).predict(make_images())


@pytest.mark.parametrize("status", [301, 308, 400, 401, 404, 408, 422])
def test_other_statuses_are_not_tried_again(status: int) -> None:
    refusal = Reply(b"no such\nmodel " + b"x" * 1000, status=status, headers={"Location": "/elsewhere"})
    with (
        service(lambda *_: refusal) as seen,
        pytest.raises(UserError, match=f"status {status}: no such model xxx") as caught,
    ):
        target(seen.address).predict(make_images())
    assert seen.address in str(caught.value)
    assert len(str(caught.value)) < 300
    assert len(seen.requests) == 1


@pytest.mark.parametrize(
    ("url", "settings", "message"),
    [
        ("127.0.0.1:8000", {}, "must begin with http"),
        ("ftp://host", {}, "must begin with http"),
        ("http://", {}, "must begin with http"),
        ("http://host/\n", {}, "no address"),
        ("http://me:s3cret@host", {}, "^(?!.*s3cret).*password"),
        ("http://host", {"answer": "logits"}, "'labels' or 'scores'"),
        ("http://host", {"batch_size": 0}, "batch_size"),
        ("http://host", {"timeout": float("nan")}, "timeout"),
        ("http://host", {"retries": -1}, "retries"),
        ("http://host", {"token_variable": "MISSING"}, "MISSING is not set"),
        ("http://host", {"token_variable": "TWO_LINES"}, "^(?!.*s3cret).*TWO_LINES holds"),
        ("http://host", {"header_variables": {"X Key": "PATH"}}, "'X Key' is no name of a header"),
    ],
)
def test_settings_are_checked_at_once(
    url: str, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MISSING", raising=False)
    monkeypatch.setenv("TWO_LINES", "s3cret\nline")
    with pytest.raises(UserError, match=message):
        target(url, **settings)


def test_a_body_that_cannot_be_unpacked_is_said_to_be() -> None:
    with (
        service(lambda *_: Reply(b"garbage", headers={"Content-Encoding": "gzip"})) as seen,
        pytest.raises(UserError, match="DecodingError"),
    ):
        target(seen.address).predict(make_images())
    assert len(seen.requests) == 1


# Budgets


def test_a_budget_is_spent_exactly_and_never_exceeded() -> None:
    queries = Queries(10)
    queries.spend(10)
    with pytest.raises(UserError, match="query budget of 10 is spent: 10 used, 1 asked for; raise `queries`"):
        queries.spend(1)
    assert queries.used == 10
    with pytest.raises(ValueError, match="-1"):
        queries.spend(-1)
    with pytest.raises(UserError, match="negative"):
        Queries(-1)


def test_what_the_budget_cannot_pay_for_is_refused_as_a_whole() -> None:
    queries = Queries(4)
    with (
        service(lambda _, images: labels_of(images)) as seen,
        pytest.raises(UserError, match="4 is spent: 0 used, 5 asked for"),
    ):
        target(seen.address, queries=queries).predict(make_images())
    assert seen.images == queries.used == 0


@pytest.mark.parametrize("trouble", [Reply(status=503), Reply(hang_up=True), Reply(delay=0.3)])
@pytest.mark.parametrize("limit", [5, 6, 7, 8])
def test_retries_stop_at_the_budget(trouble: Reply, limit: int) -> None:
    queries = Queries(limit)
    with (
        service(lambda number, images: trouble if number % 2 == 0 else labels_of(images)) as seen,
        pytest.raises(UserError, match=f"query budget of {limit} is spent"),
    ):
        target(seen.address, timeout=0.1, queries=queries).predict(make_images())
    assert seen.images <= queries.used <= limit


def test_threads_share_a_budget() -> None:
    queries = Queries(21)
    with service(lambda number, images: Reply(status=503) if number % 3 == 0 else labels_of(images)) as seen:

        def ask(_: int) -> bool:
            try:
                target(seen.address, queries=queries, retries=9).predict(make_images())
            except UserError:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(ask, range(8)))
    assert not all(done)
    assert seen.images == queries.used <= 21


# The documentation's server


def test_the_documented_server_runs(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "black_box.md").read_text(encoding="utf-8")
    (server,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "HTTPServer" in block)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "8000" in server
    (tmp_path / "server.py").write_text(server.replace("8000", str(port)))
    process = subprocess.Popen([sys.executable, "server.py"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
        box = HttpTarget(
            f"http://127.0.0.1:{port}", ("dark", "bright"), queries=Queries(1000), backoff=0.05, retries=9
        )
        assert box.predict(images).tolist() == [0, 1]
    finally:
        process.terminate()
        process.wait()
