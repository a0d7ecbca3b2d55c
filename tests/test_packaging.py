"""What describes the package to indexes, archives and people who cite it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import mergerisk as mr
from mergerisk.cli.main import cli

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_whatever_describes_the_software_says_the_same() -> None:
    meta = json.loads((ROOT / "codemeta.json").read_text())
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert meta["version"] == cited["version"] == mr.__version__
    assert meta["description"] == PROJECT["description"]
    assert meta["license"].endswith(f"/{PROJECT['license']}")
    assert cited["license"] == PROJECT["license"]
    assert meta["keywords"] == PROJECT["keywords"]
    assert meta["runtimePlatform"] == f"Python {PROJECT['requires-python']}"
    assert [author["name"] for author in meta["author"]] == [author["name"] for author in PROJECT["authors"]]
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
        # Python 3.11 has the filter from 3.11.4 on, and 3.12 warns where there is none.
        opened.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
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
    assert str(described.version) == mr.__version__
    assert described.requires_python == SpecifierSet(PROJECT["requires-python"])
    assert set(described.provides_extra or ()) == set(PROJECT["optional-dependencies"])
    needed = {
        canonicalize_name(one.name): one.specifier for one in described.requires_dist or () if not one.marker
    }
    stated = map(Requirement, PROJECT["dependencies"])
    assert needed == {canonicalize_name(one.name): one.specifier for one in stated}
    assert points.split("\n")[:2] == ["[console_scripts]", "mergerisk = mergerisk.cli.main:main"]


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: instruction and what follows it."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


def test_the_image_is_pinned_runs_the_starter_study_and_is_not_root() -> None:
    found = instructions()
    bases = [rest.split(" AS ")[0] for word, rest in found if word == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1  # what is built in one runs in the other
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])
    minor = int(bases[0].split(".")[1])
    assert f"Programming Language :: Python :: 3.{minor}" in PROJECT["classifiers"]
    last = dict(found[max(place for place, (word, _) in enumerate(found) if word == "FROM") :])
    assert last["USER"] not in {"", "0", "root"}
    assert (json.loads(last["ENTRYPOINT"]), json.loads(last["CMD"])) == (["mergerisk"], ["run", "starter"])
    installs = [rest for word, rest in found if word == "RUN" and "pip install" in rest]
    assert installs
    assert all("--no-cache-dir" in rest and "-c constraints.txt" in rest for rest in installs)
    (pinned,) = re.findall(r"torch==([\d.]+)\+cpu", " ".join(installs))
    assert f"torch=={pinned}" in (ROOT / "constraints.txt").read_text().splitlines()


def test_what_the_image_copies_is_let_through_and_makes_the_wheel(packed: Path, tmp_path: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert "*" in ignored
    assert {f"!{source}" for source in copied} == {line for line in ignored if line.startswith("!")}
    for source in copied:
        place = packed / source
        (shutil.copytree if place.is_dir() else shutil.copy)(place, tmp_path / source)
    build = [sys.executable, "-m", "hatchling", "build", "-d", "dist", "-t", "wheel"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.read_bytes() == (packed / "dist" / wheel.name).read_bytes()


CONDA = {"matplotlib": "matplotlib-base", "torch": "pytorch", "huggingface-hub": "huggingface_hub"}
"""What conda-forge calls by another name."""


def test_the_conda_recipe_asks_for_what_the_package_asks_for_and_tries_commands_that_exist() -> None:
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["context"]["version"] == mr.__version__
    assert f">={recipe['context']['python_min']}" == PROJECT["requires-python"]
    python, *rest = recipe["requirements"]["run"]
    assert python == "python >=${{ python_min }}"
    asked = {name: SpecifierSet(bounds) for name, _, bounds in (one.partition(" ") for one in rest)}
    needed = map(Requirement, PROJECT["dependencies"])
    names = {canonicalize_name(one.name): one.specifier for one in needed}
    assert asked == {CONDA.get(name, name): bounds for name, bounds in names.items()}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {one.replace(">=", " >=") for one in build} < set(recipe["requirements"]["host"])
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["about"]["license"] == PROJECT["license"]
    (name, place), *_ = PROJECT["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [f"{name} = {place}"]
    tried = [shlex.split(line) for test in recipe["tests"] for line in test.get("script", ())]
    assert ["mergerisk", "--version"] in tried
    for program, command, *words in tried:
        assert program == "mergerisk"
        if not command.startswith("-"):
            cli.commands[command].make_context(command, words)
    for test in recipe["tests"]:
        for module in test.get("python", {}).get("imports", ()):
            assert find_spec(module) is not None
