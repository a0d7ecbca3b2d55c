"""What describes the package to indexes, archives and people who cite it."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import mergerisk as mr

ROOT = Path(__file__).parent.parent


def test_whatever_describes_the_software_says_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    meta = json.loads((ROOT / "codemeta.json").read_text())
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert meta["version"] == cited["version"] == mr.__version__
    assert meta["description"] == project["description"]
    assert meta["license"].endswith(f"/{project['license']}")
    assert cited["license"] == project["license"]
    assert meta["keywords"] == project["keywords"]
    assert meta["runtimePlatform"] == f"Python {project['requires-python']}"
    assert [author["name"] for author in meta["author"]] == [author["name"] for author in project["authors"]]
    urls = {one.get("url") or one["identifier"] for one in meta["referencePublication"]}
    assert urls == {one.get("url") or f"https://doi.org/{one['doi']}" for one in cited["references"]}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of sources, unpacked, with a wheel that was made from it alone in its ``dist``."""
    pytest.importorskip("hatchling", reason="the extra test brings it")
    folder = tmp_path_factory.mktemp("packed")
    build = [sys.executable, "-m", "hatchling", "build", "-d"]
    subprocess.run([*build, folder, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    assert archive.name == f"mergerisk-{mr.__version__}.tar.gz"
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    sources = folder / f"mergerisk-{mr.__version__}"
    subprocess.run([*build, "dist", "-t", "wheel"], cwd=sources, check=True, capture_output=True)
    return sources


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is tracked is known in a clone only")
def test_the_archive_holds_whatever_is_tracked_and_nothing_else_from_the_root(packed: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    tracked = [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]
    assert len(tracked) > 500
    assert [name for name in tracked if not (packed / name).is_file()] == []
    roots = {name.partition("/")[0] for name in tracked}
    assert {path.name for path in packed.iterdir()} - {"PKG-INFO", "dist"} == roots


def test_the_wheel_holds_the_package_with_all_its_data(packed: Path) -> None:
    (wheel,) = (packed / "dist").iterdir()
    with zipfile.ZipFile(wheel) as opened:
        held = set(opened.namelist())
        metadata = opened.read(f"mergerisk-{mr.__version__}.dist-info/METADATA")
        points = opened.read(f"mergerisk-{mr.__version__}.dist-info/entry_points.txt").decode()
    package = {
        path.relative_to(packed / "src").as_posix() for path in (packed / "src").rglob("*") if path.is_file()
    }
    information = {name for name in held if name.startswith(f"mergerisk-{mr.__version__}.dist-info/")}
    assert held - information == package | {"mergerisk/constraints.txt"}
    # What no import would miss: said here by name, since it has to be in the package first.
    for data in ("py.typed", "__init__.pyi", "report/templates/report.html.j2", "study/studies/starter.yaml"):
        assert f"mergerisk/{data}" in held
    assert any(name.startswith("mergerisk/models/starter/") and name.endswith(".safetensors") for name in held)
    described = Metadata.from_email(metadata, validate=True)  # as an index does
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert str(described.version) == mr.__version__
    assert described.requires_python == SpecifierSet(project["requires-python"])
    assert set(described.provides_extra or ()) == set(project["optional-dependencies"])
    needed = {
        canonicalize_name(one.name): one.specifier for one in described.requires_dist or () if not one.marker
    }
    stated = map(Requirement, project["dependencies"])
    assert needed == {canonicalize_name(one.name): one.specifier for one in stated}
    assert points.split("\n")[:2] == ["[console_scripts]", "mergerisk = mergerisk.cli.main:main"]
