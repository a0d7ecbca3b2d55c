"""A hub of models and datasets on this machine: the few addresses that huggingface_hub asks for, and their failures."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COMMIT = "0123456789abcdef0123456789abcdef01234567"

Repositories = dict[str, dict[str, bytes]]
"""``org/name`` → file → content; the only revisions are ``main``, its commit (``COMMIT`` if none is given) and the pull
requests."""

BOT = "SFconvertbot"
CONVERSION = "Adding `safetensors` variant of this model"


@dataclass(frozen=True)
class PullRequest:
    """A pull request of a repository, of the conversion bot if nothing else is said.

    Attributes:
        number: N of ``refs/pr/N``.
        files: all that its branch holds.
        author: who opened it.
        title: what it is called.
        status: whether it is open.
        commit: at its head; made of the number by default.
    """

    number: int
    files: Mapping[str, bytes]
    author: str = BOT
    title: str = CONVERSION
    status: str = "open"
    commit: str = ""

    @property
    def reference(self) -> str:
        return f"refs/pr/{self.number}"

    @property
    def head(self) -> str:
        return self.commit or f"{self.number:040x}"


@contextmanager
def hub(
    repositories: Repositories,
    *,
    gated: tuple[str, ...] = (),
    dropping: tuple[str, ...] = (),
    dropping_once: tuple[str, ...] = (),
    commits: Mapping[str, str] | None = None,
    pull_requests: Mapping[str, Sequence[PullRequest]] | None = None,
    without_discussions: tuple[str, ...] = (),
) -> Iterator[tuple[str, list[str]]]:
    """Serve repositories; yields the address and the list of requests, which grows.

    Args:
        repositories: what there is.
        gated: repositories whose files need a login; what they hold may be listed.
        dropping: files whose every transfer breaks off half way.
        dropping_once: files whose first transfer does; later ones may start where it ended.
        commits: repository → commit, of those that have another one than ``COMMIT``.
        pull_requests: repository → its pull requests.
        without_discussions: repositories whose owners have switched discussions off.
    """
    requests: list[str] = []
    dropped: set[str] = set()

    def main_of(repository: str) -> str:
        return (commits or {}).get(repository, COMMIT)

    def requests_of(repository: str) -> Sequence[PullRequest]:
        return (pull_requests or {}).get(repository, ())

    def revision_of(repository: str, revision: str) -> tuple[str, Mapping[str, bytes]] | None:
        """Commit and files."""
        if revision in {"main", main_of(repository)}:
            return main_of(repository), repositories[repository]
        for request in requests_of(repository):
            if revision in {request.reference, request.head}:
                return request.head, request.files
        return None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._serve(body=False)

        def do_GET(self) -> None:
            self._serve(body=True)

        def _serve(self, *, body: bool) -> None:
            path, _, query = self.path.partition("?")
            requests.append(f"{self.command} {unquote(path)}")
            if path.startswith(("/api/models/", "/api/datasets/")):
                org, name, what, revision, *_ = path.split("/")[3:] + ["main"] * 2
                if what == "discussions":
                    self._discussions(f"{org}/{name}", query)
                else:
                    self._list(f"{org}/{name}", what, unquote(revision))
            elif path.startswith("/api/"):
                self._send(404, b"", {})  # what the library asks of huggingface.co alone
            else:
                org, name, _, revision, file = path.removeprefix("/").removeprefix("datasets/").split("/", 4)
                self._send_file(f"{org}/{name}", unquote(revision), unquote(file), body=body)

        def _discussions(self, repository: str, query: str) -> None:
            if repository in without_discussions:
                self._send(403, b"", {"X-Error-Message": "Discussions are disabled for this repo"})
                return
            wanted = {key: values[0] for key, values in parse_qs(query).items()}
            found = [
                {
                    "num": request.number,
                    "title": request.title,
                    "author": {"name": request.author},
                    "createdAt": "2024-01-01T00:00:00.000Z",
                    "status": request.status,
                    "repo": {"name": repository, "type": "model"},
                    "isPullRequest": True,
                }
                for request in requests_of(repository)
                if wanted.get("author", request.author) == request.author
                and wanted.get("status", request.status) == request.status
            ]
            listing = {"discussions": found, "count": len(found), "start": 0}
            self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

        def _list(self, repository: str, what: str, revision: str) -> None:
            found = self._found(repository, revision)
            if found is None:
                return
            commit, files = found
            if what == "tree":
                listing: object = [
                    {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for file, content in files.items()
                ]
            elif what == "commits":
                about = {"title": "", "message": "", "date": "2024-01-01T00:00:00.000Z", "authors": []}
                listing = [{"id": commit, **about}]
            else:
                siblings = [
                    {"rfilename": file, "blobId": hashlib.sha1(content).hexdigest()}
                    for file, content in files.items()
                ]
                listing = {"id": repository, "sha": commit, "siblings": siblings, "private": False}
            self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

        def _send_file(self, repository: str, revision: str, file: str, *, body: bool) -> None:
            if repository in gated:
                self._send(401, b"", {"X-Error-Code": "GatedRepo"})
                return
            found = self._found(repository, revision)
            if found is None:
                return
            commit, files = found
            content = files.get(file)
            if content is None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
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

        def _found(self, repository: str, revision: str) -> tuple[str, Mapping[str, bytes]] | None:
            found = revision_of(repository, revision) if repository in repositories else None
            if repository not in repositories:
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif found is None:
                self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return found

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
