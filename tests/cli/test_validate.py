"""``mergerisk validate`` says everything that is wrong at once, a line each, of every kind of file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.tiny import save_tiny_models, write_tiny_study

from .test_cli import call

if TYPE_CHECKING:
    from pathlib import Path


def faults(capsys: pytest.CaptureFixture[str], path: Path) -> list[str]:
    """What is wrong with a file, without what every line begins with."""
    code, out, err = call(capsys, "validate", path)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert all(line.startswith("mergerisk: ") for line in lines)
    return [line.removeprefix("mergerisk: ").removeprefix(f"{path}: ") for line in lines]


STUDIES: list[tuple[dict[str, Any], list[str]]] = [
    # Fields.
    (
        {"images_per_task": 0, "attacks": ["fgsm", "fsgm"], "colour": 1, "budgets": {"epsilon": [2]}},
        ["images_per_task: ", "attacks[1]: unknown attack", "colour: unknown field", "budgets: epsilon: an L∞"],
    ),
    ({"seeds": [-1]}, ["seeds[0]: "]),
    # Hyper-parameters, and beside them what is wrong with the tasks.
    (
        {
            "tasks": ["stripes.npz", "broken.npz"],
            "merging": [{"method": "ties", "density": 7}, {"method": "weight_averaging", "scalling": 1}],
            "attacks": [{"attack": "mi_fgsm", "decay": "much"}, "fgsm"],
            "experts": {"fine_tune": {"epochs": -1, "learning_rates": 2}},
        },
        [
            "experts.fine_tune: epochs: ",
            "experts.fine_tune: learning_rates: unknown field",
            "attacks[0]: ",
            "merging[0]: ",
            "merging[1]: ",
            "broken.npz",
        ],
    ),
    ({"merging": [{"method": "ties", "density": 7}]}, ["merging[0]: "]),
    # Files: two tasks, two experts.
    (
        {
            "tasks": ["stripes.npz", "blobs.npz", "broken.npz", "empty.npz"],
            "experts": {"files": {"stripes": "broken.safetensors", "blobs": "missing.safetensors"}},
        },
        ["broken.npz", "empty.npz", "experts.files.stripes: ", "experts.files.blobs: "],
    ),
    ({"tasks": ["stripes.npz", "broken.npz"]}, ["broken.npz"]),
    ({"backbone": "nowhere"}, ["nowhere"]),
]


@pytest.mark.parametrize(("changes", "said"), STUDIES)
def test_every_fault_of_a_study_is_said_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_vit: Path, changes: dict[str, Any], said: list[str]
) -> None:
    for name in ("broken.npz", "empty.npz", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"nothing" if "broken" in name else b"")
    backbone = tmp_path / changes.pop("backbone") if "backbone" in (changes := {**changes}) else tiny_vit
    found = faults(capsys, write_tiny_study(tmp_path, backbone, **changes))
    assert len(found) == len(said), found
    for part in said:
        assert any(part in line for line in found), (part, found)


def test_every_fault_of_an_audit_is_said_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_vit: Path
) -> None:
    write_tiny_study(tmp_path, tiny_vit)
    save_tiny_models(tmp_path, tiny_vit)
    sound: dict[str, Any] = {
        "base": str(tiny_vit),
        "ingredients": {"blobs": "public.safetensors", "foreign": "released.safetensors"},
        "merged": "released.safetensors",
        "images": "blobs.npz",
        "heads": {"from": "linear_probe"},
        "attacks": ["fgsm"],
        "budgets": {"epsilon": ["8/255"]},
    }
    path = tmp_path / "audit.yaml"
    path.write_text(yaml.safe_dump(sound))
    code, out, err = call(capsys, "validate", path)
    assert code == 0, err
    assert out.startswith(f"{path}: valid; 1 setting in ")
    path.write_text(yaml.safe_dump(sound | {"attacks": [], "scenarios": ["nobody"]}))
    assert [line.partition(":")[0] for line in faults(capsys, path)] == ["scenarios[0]", "attacks"]
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    changed = {"merged": "broken.safetensors", "fail_if": ["asr > 50% on nobody", "asr > 50% at 3/255"]}
    path.write_text(yaml.safe_dump(sound | changed))
    gate, budget, merged = faults(capsys, path)
    assert "no model 'nobody'" in gate
    assert "no such budget" in budget
    assert merged.startswith("merged: ")


def test_every_fault_of_a_recipe_is_said_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    sound: dict[str, Any] = {"base": "a", "experts": {"one": "b", "two": "c"}, "method": "ties"}
    path.write_text(yaml.safe_dump(sound))
    assert call(capsys, "validate", path)[:2] == (
        0, f"{path}: valid; 1 merge of checkpoints, which are checked when they are merged\n"
    )  # fmt: skip
    path.write_text(yaml.safe_dump(sound | {"base": "", "dtype": "int8", "seed": -1}))
    assert [line.partition(":")[0] for line in faults(capsys, path)] == ["base", "dtype", "seed"]
    path.write_text(yaml.safe_dump(sound | {"densty": 1, "scale": 2}))
    assert [line.partition(":")[0] for line in faults(capsys, path)] == ["densty", "scale"]
    path.write_text(yaml.safe_dump(sound | {"layers": {"a*": {"density": 9}, "b*": {"colour": 1}, "c*": {}}}))
    assert [line[:10] for line in faults(capsys, path)] == ["layers: a*", "layers: b*"]


def test_every_fault_of_a_file_of_claims_is_said_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"include": ["all"]}))
    assert call(capsys, "validate", path)[0] == 0
    path.write_text(yaml.safe_dump({"include": ["none_such"], "claims": [{"kind": "means"}, 5, {"name": "x"}]}))
    found = faults(capsys, path)
    assert found[0].startswith("include: unknown claim 'none_such'")
    assert {line.partition(":")[0].partition(".")[0] for line in found[1:]} == {
        "claims[0]",
        "claims[1]",
        "claims[2]",
    }


def test_an_option_of_studies_is_refused_where_it_says_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text("include: [all]")
    code, _, err = call(capsys, "validate", path, "--data", tmp_path)
    assert code == 2
    assert "--data is of a study" in err
