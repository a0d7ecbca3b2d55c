"""What is recorded beside a result, but is not part of what it is the result of."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mergerisk._version import __version__

RECORDED = (
    "torch",
    "transformers",
    "safetensors",
    "numpy",
    "scikit-learn",
    "scipy",
    "pyarrow",
    "pandas",
    "pillow",
)
"""Libraries that compute, as an index has them."""


def versions() -> dict[str, str]:
    """Versions of the package, of Python, and of the libraries that compute."""
    return {"mergerisk": __version__, "python": platform.python_version(), **dict(_installed())}


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Looked up once: what is loaded does not change, and every stage's record says it."""
    return tuple((name, metadata.version(name)) for name in RECORDED)


def provenance(device: str) -> dict[str, Any]:
    """Versions, platform and device."""
    return {"versions": versions(), "platform": platform.platform(), "device": device}


def git_revision() -> str | None:
    """The revision of the checkout the package runs from, with ``-dirty`` if it was edited; None if installed."""
    package = Path(__file__).resolve().parent
    top = _git("rev-parse", "--show-toplevel", folder=package)
    # An environment inside somebody's own repository must not lend us that repository's revision.
    if top is None or Path(top).resolve() / "src" / "mergerisk" != package:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=12", folder=package)


def _git(*arguments: str, folder: Path) -> str | None:
    try:
        result = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
