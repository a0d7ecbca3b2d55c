"""A service that repeats what it was sent, never ends, or sends more than anybody asked for."""

from __future__ import annotations

import gzip
import html
import json
import resource
import time
import traceback
import zlib
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx2
import pytest
import torch

from mergerisk.errors import UserError
from mergerisk.transfer import HttpTarget, Queries
from mergerisk.transfer.redaction import Secrets
from tests.transfer.black_box_stand_in import Reply, service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Raw = Callable[[Mapping[str, str]], Iterable[bytes]]

NAMES = ("ant", "bee", "cat")
TOKEN, KEY = 'tok/3n&"<e0123456789abcdef', "key 9876543210fedcba"


@pytest.fixture(autouse=True)
def _plain_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(httpx2, "Client", partial(httpx2.Client, verify=False))
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    monkeypatch.setenv("MY_KEY", KEY)


def ask(reply: Reply, *, timeout: float = 5.0, retries: int = 0, answer: str = "labels") -> UserError:
    """The error that a service's reply ends in; the service is asked about one image."""
    with service(lambda *_: reply) as seen, pytest.raises(UserError) as caught:
        HttpTarget(
            seen.address,
            NAMES,
            queries=Queries(10),
            answer=answer,  # type: ignore[arg-type]  # a parameter
            timeout=timeout,
            retries=retries,
            token_variable="MY_TOKEN",
            header_variables={"X-Key": "MY_KEY"},
            backoff=0.0,
        ).predict(torch.zeros(1, 3, 2, 2))
    assert len(seen.requests) == retries + 1
    assert "\n" not in str(caught.value)
    return caught.value


def lines(*, status: str = "200 OK", headers: str = "", body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"HTTP/1.1 {status}\r\n{headers}{length}\r\n".encode() + body


def text_of(headers: Mapping[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


ECHOES: dict[str, Raw] = {
    "an error's page": lambda sent: [lines(status="401 No", body=text_of(sent).encode())],
    "one tried again": lambda sent: [lines(status="503 Busy", body=text_of(sent).encode())],
    "one to wait for": lambda sent: [
        lines(status="429 Later", headers="Retry-After: 86400\r\n", body=text_of(sent).encode())
    ],
    "JSON": lambda sent: [lines(status="400 No", body=json.dumps(sent).encode())],
    "JSON in JSON": lambda sent: [lines(status="400 No", body=json.dumps(json.dumps(sent)).encode())],
    "HTML": lambda sent: [lines(status="400 No", body=html.escape(text_of(sent)).encode())],
    "a URL": lambda sent: [lines(status="400 No", body=quote(text_of(sent)).encode())],
    "escapes": lambda sent: [
        lines(status="400 No", body="".join(f"\\u{ord(c):04x}" for c in sent["Authorization"]).encode())
    ],
    "a line each": lambda sent: [lines(status="400 No", body="\n".join(sent["Authorization"]).encode())],
    "capitals": lambda sent: [lines(status="400 No", body=sent["Authorization"].upper().encode())],
    "cut short": lambda sent: [lines(status="400 No", body=b"x" * 190 + sent["Authorization"][:-3].encode())],
    "no JSON": lambda sent: [lines(body=text_of(sent).encode())],
    "another field": lambda sent: [lines(body=json.dumps({"request": sent}).encode())],
    "a label": lambda sent: [lines(body=json.dumps({"labels": [sent["Authorization"]]}).encode())],
    "a key as a label": lambda sent: [lines(body=json.dumps({"labels": [sent["X-Key"]]}).encode())],
    "labels within a label": lambda sent: [lines(body=json.dumps({"labels": [sent]}).encode())],
    "a header that is none": lambda sent: [lines(headers=text_of(sent).replace("\n", "\r\n") + "\x01\r\n")],
    "no HTTP": lambda sent: [text_of(sent).encode()],
    "an unknown packing": lambda sent: [
        lines(headers="Content-Encoding: gzip\r\n", body=text_of(sent).encode())
    ],
}  # fmt: skip


@pytest.mark.parametrize("echo", ECHOES)
def test_what_was_sent_in_confidence_is_repeated_nowhere(echo: str) -> None:
    error = ask(Reply(raw=ECHOES[echo]))
    # Behind --debug too, with the errors it came from.
    said = "".join(traceback.format_exception(error)[-1:]) + "".join(str(cause) for cause in _causes(error))
    for secret in (TOKEN, KEY.split()[-1]):
        for part in (secret, json.dumps(secret)[1:-1], html.escape(secret), quote(secret), secret.upper()):
            assert part not in said
        assert secret[:9] not in said


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What a traceback would show."""
    while error is not None:
        yield error
        shown = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if shown is None:
            return
        error = shown


def test_the_rest_of_an_answer_is_still_shown() -> None:
    hidden = Secrets(["Bearer abcdefgh1234"]).hidden("no access with Bearer abcdefgh1234, ask Jo")
    assert hidden == "no access with ***, ask Jo"
    assert Secrets([]).hidden("as it is") == "as it is"
    assert "abcdefg" not in Secrets(["Bearer abcdefgh1234"]).hidden("no access with abcdefg, ask Jo")


def _slowly(first: bytes, piece: bytes) -> Iterator[bytes]:
    yield first
    while True:
        time.sleep(0.02)
        yield piece


@pytest.mark.parametrize(
    "raw",
    [
        lambda _: _slowly(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        lambda _: _slowly(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        lambda _: _slowly(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        lambda _: _slowly(lines(headers="Content-Length: 1000000\r\n"), b" "),
        lambda _: _slowly(lines(headers="Transfer-Encoding: chunked\r\n"), b"1\r\n \r\n"),
        lambda _: _slowly(lines(status="500 No"), b" "),
        lambda _: _slowly(lines(headers="Content-Encoding: gzip\r\n"), gzip.compress(b"")),
    ],
    ids=["header", "headers", "informational", "body", "chunks", "error", "packed nothing"],
)
def test_an_answer_that_drips_is_late(raw: Raw) -> None:
    start = time.monotonic()
    error = ask(Reply(raw=raw), timeout=0.3, retries=1)
    assert time.monotonic() - start < 4  # two attempts of 0.3 s, on a machine that may be busy
    assert str(error).count("no whole answer within 0.3 s") == 1


def _bomb(times: int = 1) -> bytes:
    """64 MiB of blanks, packed, once or more."""
    packer = zlib.compressobj(9, wbits=31)
    content = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    for _ in range(times - 1):
        content = gzip.compress(content)
    return content


@pytest.mark.parametrize(
    "raw",
    [
        lambda _: chain([lines()], repeat(b" " * 2**16)),
        lambda _: [lines(headers="Content-Length: 99999999999\r\n"), b" " * 2**21],
        lambda _: chain(
            [lines(headers="Transfer-Encoding: chunked\r\n")], repeat((b"100\r\n" + b" " * 256 + b"\r\n") * 2**8)
        ),
        lambda _: [lines(headers="Content-Encoding: gzip\r\n", body=_bomb())],
        lambda _: [lines(headers="Content-Encoding: gzip, gzip\r\n", body=_bomb(2))],
        lambda _: [lines(status="400 No", headers="Content-Encoding: deflate\r\n", body=_bomb()[10:-8])],
    ],
    ids=["endless", "announced", "chunks", "bomb", "bomb in a bomb", "an error's bomb"],
)
def test_an_answer_that_is_too_large_is_not_read(raw: Raw) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "answers with more than 1 MiB, which no answer for 1 images needs" in str(ask(Reply(raw=raw)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024  # KiB; the bomb's are 65,536


def test_an_answer_as_large_as_it_may_be_is_read() -> None:
    body = json.dumps({"labels": [0]}).encode()
    padded = body + b" " * (2**20 - len(body))
    with service(lambda *_: Reply(gzip.compress(padded), headers={"Content-Encoding": "gzip"})) as seen:
        box = HttpTarget(seen.address, NAMES, queries=Queries(1))
        assert box.predict(torch.zeros(1, 3, 2, 2)).tolist() == [0]


def test_after_a_late_answer_the_next_one_counts() -> None:
    late = Reply(raw=lambda _: _slowly(b"", b"HTTP/1.1 100 Continue\r\n\r\n"))
    with service(lambda number, _: Reply({"labels": [number]}) if number else late) as seen:
        box = HttpTarget(seen.address, NAMES, queries=Queries(9), timeout=0.3, backoff=0.0, batch_size=1)
        assert box.predict(torch.zeros(2, 3, 2, 2)).tolist() == [1, 2]


@pytest.mark.parametrize("settings", [{"timeout": 1e300}, {"timeout": float("inf")}, {"backoff": 1e9}])
def test_no_wait_is_longer_than_a_day(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match="timeout above 0 and at most 86400 s, and backoff from 0 to 600 s"):
        HttpTarget("http://127.0.0.1", NAMES, queries=Queries(1), **settings)  # type: ignore[arg-type]


def test_waits_stop_doubling() -> None:
    waits: list[float] = []
    with service(lambda *_: Reply(status=503)) as seen, pytest.raises(UserError, match="in 13 attempts"):
        HttpTarget(seen.address, NAMES, queries=Queries(13), retries=12, sleep=waits.append).predict(
            torch.zeros(1, 3, 2, 2)
        )
    assert max(waits) == 600
