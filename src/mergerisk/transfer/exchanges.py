"""One question to a service over HTTP, and its answer: within one deadline, and of a size that fits."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

OVERHEAD = 2**20
"""Bytes that an answer may have besides what is asked for: an error's page, say."""


class LateError(Exception):
    """The answer was not whole when the time was over."""


class LargeError(Exception):
    """The answer has more bytes than any that would do."""


@dataclass(frozen=True)
class Answer:
    """What a service answered.

    Attributes:
        status: of HTTP.
        headers: by name, in small letters.
        body: unpacked.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether it is one of the statuses 2xx."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text; what is no UTF-8 is replaced."""
        return self.body.decode("utf-8", "replace")

    def parsed(self) -> object:
        """The body as JSON.

        Raises:
            ValueError: it is none.
            RecursionError: it is nested too deeply.
        """
        return json.loads(self.body)


class Exchanges:
    """Questions to services, one at a time, over a connection that is kept; a context manager.

    HTTP libraries limit how long they wait for the next byte, so that a service that sends one at a time is never
    late. Here the whole exchange has its time: when that is over, the connection is shut down, which ends whatever
    waits on it.

    Args:
        headers: of every request.
        seconds: from the beginning of a request to the end of its answer.
    """

    def __init__(self, headers: Mapping[str, str], seconds: float) -> None:
        self._seconds = seconds
        self._client = httpx2.Client(headers=dict(headers), timeout=seconds)
        self._line = _Line()

    def __enter__(self) -> Exchanges:
        self._client.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._line.close()
        self._client.__exit__(*raised)

    def post(self, url: str, content: object, room: int) -> Answer:
        """Post JSON.

        Args:
            url: where to.
            content: what JSON can say.
            room: bytes that the answer may have, both as it is sent and unpacked.

        Raises:
            LateError: the answer is not whole in time.
            LargeError: it does not fit.
            httpx2.HTTPError: the exchange fails otherwise.
        """
        with self._deadline() as over:
            try:
                with self._client.stream(
                    "POST", url, json=content, extensions={"trace": self._line.follow}
                ) as response:
                    body = _read(response, room)
            except httpx2.TimeoutException as error:
                raise LateError from error
            except httpx2.TransportError as error:
                if over():
                    raise LateError from error
                raise
            if over():  # a body without a length ends where the line is cut
                raise LateError
            return Answer(response.status_code, dict(response.headers), body)

    @contextmanager
    def _deadline(self) -> Iterator[Callable[[], bool]]:
        """Cut the line when the time is over; yields what tells whether it was."""
        self._line.was_cut = False
        timer = Timer(self._seconds, self._line.cut)
        timer.daemon = True
        timer.start()
        try:
            yield lambda: self._line.was_cut
        finally:
            timer.cancel()
            timer.join()


class _Line:
    """The connection that is in use, and how to cut it from another thread.

    A duplicate of its descriptor is held, since encryption takes the socket over: what is shut down is the
    connection, whoever reads from it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._socket: socket.socket | None = None
        self.was_cut = False

    def follow(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear of a new connection, as the HTTP library's ``trace`` extension tells."""
        if event != "connection.connect_tcp.complete":
            return
        opened = info["return_value"].get_extra_info("socket")
        self.close()
        with self._lock:
            self._socket = socket.socket(fileno=os.dup(opened.fileno()))
        if self.was_cut:
            self.cut()

    def cut(self) -> None:
        with self._lock:
            self.was_cut = True
            if self._socket is not None:
                with suppress(OSError):  # the other side has closed it already
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None


def _read(response: httpx2.Response, room: int) -> bytes:
    # Unpacked a piece at a time, so that what is refused was never in memory.
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if max(len(body), response.num_bytes_downloaded) > room:
            raise LargeError
    return bytes(body)
