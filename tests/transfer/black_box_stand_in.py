"""A black box on this machine that answers as it is told, and counts the images it sees."""

from __future__ import annotations

import base64
import io
import json
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


@dataclass
class Reply:
    """What one request is answered with.

    Attributes:
        body: bytes as they are; anything else as JSON.
        status: of HTTP.
        headers: besides the length.
        delay: seconds before the answer.
        hang_up: close the connection instead.
        raw: instead of all that: from the request's headers, the bytes to send, status line and all, until the
            other side hangs up.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hang_up: bool = False
    raw: Callable[[Mapping[str, str]], Iterable[bytes]] | None = None


@dataclass
class Seen:
    """What arrived, in order.

    Attributes:
        address: of the service.
        requests: the images of each request, H × W × 3.
        headers: of each request.
    """

    address: str
    requests: list[list[Pixels]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def images(self) -> int:
        """How many images arrived, repeated ones included."""
        return sum(map(len, self.requests))


@contextmanager
def service(answer: Callable[[int, list[Pixels]], Reply]) -> Iterator[Seen]:
    """Serve; ``answer`` is told the request's number, from 0, and its images."""
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            images = [_pixels(text) for text in content["images"]]
            with lock:
                number = len(seen.requests)
                seen.requests.append(images)
                seen.headers.append(dict(self.headers))
            reply = answer(number, images)
            time.sleep(reply.delay)
            if reply.hang_up:
                self.close_connection = True
                return
            if reply.raw is not None:
                self.close_connection = True
                with suppress(OSError):
                    for piece in reply.raw(dict(self.headers)):
                        self.wfile.write(piece)
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            try:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                self.close_connection = True  # the client has given up

        def log_message(self, *_: object) -> None:
            """Nothing on the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    seen = Seen(f"http://127.0.0.1:{server.server_port}/predict")
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _pixels(text: str) -> Pixels:
    picture = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    assert picture.format == "PNG"
    return np.asarray(picture)
