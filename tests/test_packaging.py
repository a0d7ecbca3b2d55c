"""What describes the package to indexes, archives and people who cite it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import yaml

import mergerisk as mr


def test_whatever_describes_the_software_says_the_same() -> None:
    root = Path(__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    meta = json.loads((root / "codemeta.json").read_text())
    cited = yaml.safe_load((root / "CITATION.cff").read_text())
    assert meta["version"] == cited["version"] == mr.__version__
    assert meta["description"] == project["description"]
    assert meta["license"].endswith(f"/{project['license']}")
    assert cited["license"] == project["license"]
    assert meta["keywords"] == project["keywords"]
    assert meta["runtimePlatform"] == f"Python {project['requires-python']}"
    assert [author["name"] for author in meta["author"]] == [author["name"] for author in project["authors"]]
    urls = {one.get("url") or one["identifier"] for one in meta["referencePublication"]}
    assert urls == {one.get("url") or f"https://doi.org/{one['doi']}" for one in cited["references"]}
