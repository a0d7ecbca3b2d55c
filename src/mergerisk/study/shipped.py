"""Studies that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped_studies() -> dict[str, Path]:
    """Study files by name."""
    folder = Path(str(resources.files("mergerisk.study") / "studies"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
