"""Known vulnerabilities of installed packages, without a network: pip-audit, asked about a copy of the advisories.

    pip install pip-audit
    git clone https://github.com/pypa/advisory-database
    python scripts/audit_dependencies.py advisory-database [OPTIONS of pip-audit]

The folder holds advisories in OSV's format, YAML or JSON, wherever in it they are: the Python Packaging
Authority's, or OSV's own for PyPI. A server on the loopback answers from them as OSV's does, and pip-audit is told
to ask it. Exits as pip-audit does: with 1 if something is found.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
"""To which all is text: times as OSV's service writes them, and versions."""


def advisories(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Package → what is known of it."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in sorted(path for path in folder.rglob("*") if path.suffix in {".yaml", ".json"}):
        read = file.read_bytes()
        content = json.loads(read) if file.suffix == ".json" else yaml.load(read, _LOADER)
        for affected in content.get("affected", ()) if isinstance(content, dict) and "id" in content else ():
            package = affected.get("package", {})
            if package.get("ecosystem") == "PyPI":
                found[canonicalize_name(package["name"])].append(content)
    return found


def applying(known: Iterable[Mapping[str, Any]], name: str, version: str) -> list[Mapping[str, Any]]:
    """Those advisories that a version of a package is affected by, as OSV's format says it.

    Args:
        known: that name the package.
        name: its name, canonical.
        version: what is installed; with one that is none, only what lists it applies.
    """
    return [
        advisory
        for advisory in known
        if any(
            canonicalize_name(affected.get("package", {}).get("name", "")) == name
            and (version in affected.get("versions", ()) or _in_a_range(affected.get("ranges", ()), version))
            for affected in advisory["affected"]
        )
    ]


def _in_a_range(ranges: Iterable[Mapping[str, Any]], version: str) -> bool:
    try:
        installed = Version(version)
        return any(_within(each["events"], installed) for each in ranges if each["type"] == "ECOSYSTEM")
    except InvalidVersion:
        return False


def _within(events: Iterable[Mapping[str, str]], installed: Version) -> bool:
    """Whether the last event that is not beyond the version has it affected."""
    inside = False
    for (what, where), *_ in sorted(
        (list(event.items()) for event in events), key=lambda pair: Version(pair[0][1])
    ):
        if what == "last_affected":
            inside = inside and installed <= Version(where)
        elif installed >= Version(where):
            inside = what == "introduced"
    return inside


def main(folder: Path, options: list[str]) -> int:
    """Serve the advisories for as long as pip-audit asks."""
    known = advisories(folder)
    count = len({advisory["id"] for each in known.values() for advisory in each})
    if not count:
        raise SystemExit(f"{folder}: holds no advisories for PyPI in OSV's format")

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = canonicalize_name(asked["package"]["name"])
            vulns = applying(known.get(name, ()), name, asked["version"])
            content = json.dumps({"vulns": vulns} if vulns else {}, default=str).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        print(f"{count:,} advisories on {len(known):,} packages, from {folder}", flush=True)
        asking = ["-s", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/v1/query"]
        audit = [sys.executable, "-m", "pip_audit", *asking, "--progress-spinner", "off", *options]
        ended = subprocess.run(audit, check=False).returncode
        server.shutdown()
    return ended


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
