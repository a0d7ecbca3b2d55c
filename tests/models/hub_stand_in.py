"""A hub of models and datasets on this machine: the few addresses that huggingface_hub asks for, and their failures."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COMMIT = "0123456789abcdef0123456789abcdef01234567"

Repositories = dict[str, dict[str, bytes]]
"""``org/name`` → file → content; the only revisions are ``main`` and its commit, ``COMMIT`` if none is given."""


@contextmanager
def hub(
    repositories: Repositories,
    *,
    gated: tuple[str, ...] = (),
    dropping: tuple[str, ...] = (),
    dropping_once: tuple[str, ...] = (),
    commits: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, list[str]]]:
    """Serve repositories; yields the address and the list of requests, which grows.

    Args:
        repositories: what there is.
        gated: repositories whose files need a login; what they hold may be listed.
        dropping: files whose every transfer breaks off half way.
        dropping_once: files whose first transfer does; later ones may start where it ended.
        commits: repository → commit, of those that have another one than ``COMMIT``.
    """
    requests: list[str] = []
    dropped: set[str] = set()

    def commit_of(repository: str) -> str:
        return (commits or {}).get(repository, COMMIT)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._serve(body=False)

        def do_GET(self) -> None:
            self._serve(body=True)

        def _serve(self, *, body: bool) -> None:
            path, _, _ = self.path.partition("?")
            requests.append(f"{self.command} {path}")
            if path.startswith(("/api/models/", "/api/datasets/")):
                org, name, what, revision, *_ = path.split("/")[3:] + ["main"] * 2
                self._list(f"{org}/{name}", what, revision)
            else:
                org, name, _, revision, file = path.removeprefix("/").removeprefix("datasets/").split("/", 4)
                self._send_file(f"{org}/{name}", revision, file, body=body)

        def _list(self, repository: str, what: str, revision: str) -> None:
            if not self._found(repository, revision):
                return
            files = repositories[repository]
            if what == "tree":
                listing: object = [
                    {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for file, content in files.items()
                ]
            elif what == "commits":
                about = {"title": "", "message": "", "date": "2024-01-01T00:00:00.000Z", "authors": []}
                listing = [{"id": commit_of(repository), **about}]
            else:
                siblings = [{"rfilename": file} for file in files]
                listing = {"id": repository, "sha": commit_of(repository), "siblings": siblings, "private": False}
            self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

        def _send_file(self, repository: str, revision: str, file: str, *, body: bool) -> None:
            if repository in gated:
                self._send(401, b"", {"X-Error-Code": "GatedRepo"})
                return
            if not self._found(repository, revision):
                return
            content = repositories[repository].get(file)
            if content is None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit_of(repository)}
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            if body and (file in dropping or (file in dropping_once and file not in dropped)):
                dropped.add(file)
                self._start(200, len(content), headers)
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
            elif body and start:
                requests[-1] += f" from {start}"
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self._send(206, content[start:], headers)
            else:
                self._send(200, content, headers, body=body)

        def _found(self, repository: str, revision: str) -> bool:
            if repository not in repositories:
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif revision not in {"main", commit_of(repository)}:
                self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return repository in repositories and revision in {"main", commit_of(repository)}

        def _send(self, status: int, content: bytes, headers: Mapping[str, str], *, body: bool = True) -> None:
            self._start(status, len(content), headers)
            if body:
                self.wfile.write(content)

        def _start(self, status: int, length: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
