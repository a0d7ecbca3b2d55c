"""What is known of an installed version, as OSV's format says it: cases by hand, from its description of events."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).parents[1] / "scripts" / "audit_dependencies.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit_dependencies", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write(folder: Path, name: str, **affected: Any) -> None:
    about = {"package": {"name": name, "ecosystem": "PyPI"}, **affected}
    advisory = {"id": f"PYSEC-0-{name}", "published": "2024-01-01T00:00:00Z", "affected": [about]}
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(advisory))


def events(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"type": "ECOSYSTEM", "events": [{what: where} for what, where in pairs]}]


@pytest.mark.parametrize(
    ("affected", "applies", "does_not"),
    [
        ({"versions": ["1.0", "1.1.post1"]}, ["1.0", "1.1.post1"], ["1.1", "1.0.1"]),
        ({"ranges": events(("introduced", "0"), ("fixed", "2.10"))}, ["0.1", "2.9", "2.10rc1"], ["2.10", "3.0"]),
        ({"ranges": events(("introduced", "1.2"), ("last_affected", "1.4"))}, ["1.2", "1.4"], ["1.1", "1.4.1"]),
        (
            {"ranges": events(("introduced", "3"), ("fixed", "3.2"), ("introduced", "1"), ("fixed", "1.5"))},
            ["1.4", "3.1"],
            ["0.9", "1.5", "2.0", "3.2"],
        ),
        ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, [], ["1.0", "unknown"]),
        ({"versions": ["1.0"], "ranges": events(("introduced", "2"))}, ["1.0", "2.5"], ["1.5", "no version"]),
    ],
)
def test_a_version_is_affected_as_the_format_says(
    script: ModuleType, tmp_path: Path, affected: dict[str, Any], applies: list[str], does_not: list[str]
) -> None:
    write(tmp_path / "vulns", "Some_Package", **affected)
    write(tmp_path / "vulns", "other", versions=["1.0"])
    known = script.advisories(tmp_path)
    assert {*known} == {"some-package", "other"}
    found = {
        version
        for version in (*applies, *does_not)
        if script.applying(known["some-package"], "some-package", version)
    }
    assert found == {*applies}


def test_a_folder_without_advisories_is_said(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("a: 1")
    with pytest.raises(SystemExit, match="holds no advisories for PyPI"):
        script.main(tmp_path, [])
