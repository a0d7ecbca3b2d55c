"""Whole audits, as a release pipeline runs them."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from PIL import Image

import mergerisk as mr
from mergerisk import api
from mergerisk.audit import audit, load_audit
from mergerisk.audit.writing import to_text
from mergerisk.errors import UserError
from mergerisk.progress.study_progress import CHECKING
from mergerisk.study.kinds.classifier_head import ClassifierHead
from mergerisk.study.kinds.probe import Probe
from mergerisk.study.planning import make_plan
from tests.cli.test_cli import call
from tests.tiny import arrays, save_tiny_models

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study import FinishedRun

AUDIT: dict[str, Any] = {
    "name": "tiny",
    "ingredients": {"blobs": "public.safetensors", "foreign": "released.safetensors"},
    "merged": "released.safetensors",
    "candidates": ["weight_averaging"],
    "images": "blobs.npz",
    "heads": {"from": "linear_probe"},
    "scenarios": ["ingredients", "pretrained", "merged"],
    "attacks": ["fgsm"],
    "budgets": {"epsilon": ["8/255", "32/255"]},
    "images_per_task": 9,
}


@pytest.fixture(scope="module")
def material(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_models(tmp_path_factory.mktemp("audit"), tiny_vit)
    np.savez(folder / "blobs.npz", **arrays("blobs"))
    pictures = arrays("blobs")
    for number, label in enumerate(pictures["labels"]):
        (folder / "photos" / f"class {label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures["images"][number]).save(folder / f"photos/class {label}/{number}.png")
    (folder / "audit.yaml").write_text(yaml.safe_dump(AUDIT | {"base": str(tiny_vit)}))
    return folder


@pytest.fixture(scope="module")
def finished(material: Path) -> Path:
    """Its paths are relative in the file, and absolute once placed."""
    audit(material / "audit.yaml", material / "out")
    return material / "out"


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_an_audit_leaves_a_page_a_card_and_json(finished: Path) -> None:
    found = json.loads((finished / "audit.json").read_text())
    assert found["schema_version"] == 2
    assert [model["name"] for model in found["models"]] == ["merged", "weight_averaging"]
    assert found["released"] == "merged"
    assert found["surrogates"] == ["expert/blobs", "foreign", "pretrained", "merged", "weight_averaging"]
    assert found["failed"] is False
    readings = found["models"][0]["readings"]
    assert len(readings) == 4 * 2, "the candidate is nobody's surrogate but its own"
    assert [r["surrogate"] for r in readings if r["white_box"]] == ["merged"] * 2
    card = (finished / "audit.md").read_text()
    assert card.startswith("## Adversarial transfer risk")
    assert "<svg" in (finished / "audit.html").read_text()
    assert (finished / "report.html").is_file()


def test_an_audit_says_what_would_lower_the_risk(material: Path, tiny_vit: Path, tmp_path: Path) -> None:
    content = AUDIT | {
        "base": str(tiny_vit),
        "defenses": [{"defense": "median", "of": "merged"}],
        "candidates": [],
    }
    (material / "defended.yaml").write_text(yaml.safe_dump(content | {"scenarios": ["ingredients", "pretrained"]}))
    found = audit(material / "defended.yaml", tmp_path / "out").verdict
    assert found.prices is not None
    (offer,) = found.prices.offers
    assert [(one.surrogate, one.kind) for one in offer.priced.attackers] == [
        ("expert/blobs", "unaware"), ("foreign", "unaware"), ("pretrained", "unaware"),
        ("aware/merged+median", "aware"),
    ]  # fmt: skip
    assert [model.name for model in found.models] == ["merged"]
    for text in (to_text(found), *((tmp_path / "out" / name).read_text() for name in ("audit.md", "audit.html"))):
        assert "What would lower it" in text
        assert "not shown to defend" in text  # a task of nine attacked images
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert [offer["priced"]["target"] for offer in written["prices"]["offers"]] == ["merged+median"]


def test_an_attacker_who_knows_a_defense_holds_the_tasks_own_ingredient(material: Path, tiny_vit: Path) -> None:
    content = AUDIT | {"base": str(tiny_vit), "defenses": [{"defense": "median", "of": "merged"}]}
    content |= {"ingredients": {"foreign": "released.safetensors"}}
    (material / "unnamed.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="no ingredient is called 'blobs', as the images are"):
        load_audit(material / "unnamed.yaml")


def test_the_same_figures_as_the_study_behind_it(finished: Path) -> None:
    found = json.loads((finished / "audit.json").read_text())
    results = mr.write_report(finished).rates
    for reading in found["models"][0]["readings"]:
        row = results[
            (results["surrogate"] == reading["surrogate"])
            & (results["target"] == "merged")
            & np.isclose(results["epsilon"], reading["epsilon"])
        ].iloc[0]
        for name in ("asr", "asr_low", "asr_high", "asr_all", "images_both_correct"):
            assert reading[name] == pytest.approx(row[name])


def test_an_audit_needs_no_store_once_its_run_is_collected(
    material: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage that nobody can make again any more must not matter: here everything is gone."""
    write = api._write

    def lose_the_store_first(run: FinishedRun, folder: Path, **options: Any) -> api.StudyResult:
        shutil.rmtree(folder / "store")
        return write(run, folder, **options)

    monkeypatch.setattr(api, "_write", lose_the_store_first)
    shutil.copytree(finished / "store", tmp_path / "out" / "store")
    audit(material / "audit.yaml", tmp_path / "out")
    kept = [json.loads((out / "audit.json").read_text())["audited"] for out in (tmp_path / "out", finished)]
    assert kept[0] == kept[1], "nothing was computed anew"


def test_a_failed_gate_exits_with_3_and_a_passed_one_with_0(
    capsys: pytest.CaptureFixture[str], material: Path, finished: Path
) -> None:
    file = material / "audit.yaml"
    code, out, err = call(capsys, "audit", file, "--out", finished, "--fail-if", "clean_accuracy < 0")
    assert code == 0, err
    assert "gate passed on merged: clean accuracy must be at least 0%; it is" in out
    assert "audit.html" in out
    code, out, err = call(capsys, "audit", file, "--out", finished, "--fail-if", "clean_accuracy >= 0")
    assert code == 3, err
    assert "gate FAILED on merged: clean accuracy must be below 0%; it is" in out
    assert json.loads((finished / "audit.json").read_text())["failed"] is True
    gates = ["--fail-if", "asr < 0", "--fail-if", "asr >= 0 on weight_averaging"]
    code, out, err = call(capsys, "audit", file, "--out", finished, *gates)
    assert code == 0, err
    assert "The merged model passes every gate; candidates that fail: weight_averaging" in out


def test_an_audit_says_what_was_audited_and_other_gates_change_none_of_it(
    capsys: pytest.CaptureFixture[str], material: Path, tiny_vit: Path, finished: Path
) -> None:
    audited = json.loads((finished / "audit.json").read_text())["audited"]
    found = {(item["role"], item["name"]): item for item in audited["items"]}
    released = found["merged", "merged"]
    assert released["path"] == "released.safetensors"
    assert released["sha256"] == {"model.safetensors": sha256(material / "released.safetensors")}
    assert found["ingredient", "blobs"]["sha256"] == {"model.safetensors": sha256(material / "public.safetensors")}
    assert found["base", ""]["sha256"]["model.safetensors"] == sha256(tiny_vit / "model.safetensors")
    assert found["images", "blobs"]["sha256"] == {"sha256": sha256(material / "blobs.npz")}
    assert 0 <= (datetime.now(UTC) - datetime.fromisoformat(audited["date"])).total_seconds() < 3600
    assert (audited["device"], audited["seed"], audited["images_per_task"]) == ("cpu", 0, 9)
    assert audited["attacks"]["fgsm"]["steps"] == 1
    code, _, err = call(capsys, "audit", material / "audit.yaml", "--out", finished, "--fail-if", "asr > 0.99")
    assert code in {0, 3}, err
    assert json.loads((finished / "audit.json").read_text())["audited"] == audited
    for name in ("audit.md", "audit.html"):
        said = (finished / name).read_text()
        assert sha256(material / "released.safetensors") in said
        assert audited["date"][:10] in said
    for name in ("audit.json", "audit.md", "audit.html", "report.html", "summary.json"):
        assert str(material) not in (finished / name).read_text(), name
        assert str(tiny_vit.parent) not in (finished / name).read_text(), name


def test_files_are_checked_against_an_audit(
    capsys: pytest.CaptureFixture[str], material: Path, finished: Path, tmp_path: Path
) -> None:
    code, out, err = call(capsys, "audit", "--verify", finished)
    assert code == 0, err
    assert "all of it is what was audited on " in out
    for name in ("public.safetensors", "released.safetensors", "blobs.npz", "audit.yaml"):
        (tmp_path / name).write_bytes((material / name).read_bytes())
    elsewhere = tmp_path / "audit.yaml"
    assert call(capsys, "audit", elsewhere, "--verify", finished)[0] == 0
    flipped = bytearray((material / "released.safetensors").read_bytes())
    flipped[-1] ^= 1
    (tmp_path / "released.safetensors").write_bytes(flipped)
    pictures = arrays("blobs")
    np.savez(tmp_path / "blobs.npz", **pictures | {"images": pictures["images"] // 2})
    code, out, err = call(capsys, "audit", elsewhere, "--verify", finished)
    assert code == 3, err
    states = {tuple(line.split()[:2]): line.split()[-1] for line in out.splitlines()}
    assert states["ingredient", "blobs"] == "same"
    assert states["merged", "released.safetensors"] == "DIFFERS"
    # The same file under another role: it differs there, too.
    assert states["ingredient", "foreign"] == "DIFFERS"
    assert states["images", "blobs"] == "DIFFERS"
    assert "3 of " in out.splitlines()[-1]
    (material / "public.safetensors").rename(tmp_path / "away")
    try:
        code, out, err = call(capsys, "audit", "--verify", finished)
    finally:
        (tmp_path / "away").rename(material / "public.safetensors")
    assert code == 3, err
    assert "MISSING" in out
    assert "1 of " in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit"], "give the audit's file: mergerisk audit FILE"),
        (["audit", "--verify", "nowhere"], "nowhere/audit.json: cannot be read"),
        (["audit", "--verify", "nowhere", "--limit", "3"], "--verify runs nothing: leave out --limit"),
    ],
)
def test_what_cannot_be_checked_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"merged": None, "candidates": []}, "merged, candidates: give the model to be released"),
        ({"ingredients": {}}, "ingredients: "),
        ({"images": "nowhere.npz"}, "nowhere.npz"),
        ({"scenarios": ["insider"]}, "scenarios[0]: input should be"),
        ({"outsider": {"seed": 1}}, "outsider: not among the scenarios; add it there"),
        ({"fail_if": "asr > 2/0"}, "gate 'asr > 2/0'"),
        ({"fail_if": "asr > 0.1 at 5/255"}, "no such budget is measured"),
        ({"candidates": ["adamerging"]}, "adamerging reads images of every ingredient's task"),
        ({"candidates": ["tie"]}, "unknown merging method 'tie' (did you mean 'ties'?)"),
        ({"budgets": {"epsilon": ["8/255"], "step": 3}}, "budgets.step: unknown field\n"),
        ({"fail_if": {"asr": 0.5}}, "fail_if[0]: must be a text"),
        ({"name": "../x"}, "name: the audit's folder is called so"),
        ({"ingredients": {"pretrained": "public.safetensors"}}, "ingredients: 'pretrained' is what results call"),
        ({"scenarios": "other_merges", "candidates": []}, "scenarios: other_merges: give candidates"),
        ({"scenarios": "other_architecture"}, "scenarios: other_architecture: say which"),
        ({"candidates": [{"method": "ties", "densty": 1}]}, "candidates[0]: "),
        ({"ingredients": {"blobs": "nowhere.safetensors"}}, "ingredients.blobs: "),
        ({"heads": {"from": "checkpoint"}}, "or {from: linear_probe} and images with a training part"),
        ({"heads": {"from": "zero_shot"}}, "zero-shot heads need a whole CLIP"),
        (
            {"images": {"task": "photos", "test_share": 1.0}},
            "task 'photos' has no training images, and a linear probe needs some",
        ),
        ({"merge": "x"}, "merge: unknown field (did you mean 'merged'?)"),
        ({"merged": "nowhere.safetensors"}, "merged: "),
        ({"merged": {"release": "nowhere.safetensors"}}, "merged.release: "),
    ],
)
def test_mistakes_are_named_before_anything_runs(
    capsys: pytest.CaptureFixture[str], material: Path, tiny_vit: Path, changes: dict[str, Any], message: str
) -> None:
    content = {
        key: value for key, value in (AUDIT | {"base": str(tiny_vit)} | changes).items() if value is not None
    }
    file = material / "wrong.yaml"
    file.write_text(yaml.safe_dump(content))
    code, _, err = call(capsys, "audit", file, "--out", material / "wrong")
    assert code == 2, err
    assert message in err
    assert len(err.removeprefix(f"{CHECKING}\n").strip().splitlines()) == 1


def test_an_attacked_task_needs_no_expert_of_its_own(material: Path) -> None:
    asked = load_audit(material / "audit.yaml").model_copy(update={"ingredients": {"foreign": "x", "other": "y"}})
    study = asked.to_study()
    assert study.with_expert == ()
    assert study.merged_names == ("foreign", "other")
    with pytest.raises(UserError, match="has parts for single tasks"):
        asked.model_copy(
            update={
                "candidates": mr.Study.model_validate(
                    {
                        "backbone": "x",
                        "tasks": ["digits"],
                        "merging": ["emr"],
                        "attacks": ["fgsm"],
                        "budgets": {"epsilon": [0.1]},
                    }
                ).merging
            }
        ).to_study()


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"heads": {"from": "checkpoint"}}, 1.0),
        ({"heads": {"from": "zero_shot"}}, 1.0),
        ({"heads": {"from": "linear_probe"}}, None),
        ({"heads": {"from": "checkpoint"}, "candidates": ["fisher"], "ingredients": {"photos": "x"}}, None),
        ({"heads": {"from": "checkpoint"}, "scenarios": ["outsider"]}, None),
        ({"heads": {"from": "checkpoint"}, "scenarios": ["outsider"], "outsider": {"task": "digits"}}, 1.0),
        ({"heads": {"from": "checkpoint"}, "images": {"task": "photos", "test_share": 0.3}}, 0.3),
    ],
)
def test_all_images_are_attacked_unless_something_learns_from_them(
    material: Path, changes: dict[str, Any], share: float | None
) -> None:
    file = material / "shares.yaml"
    file.write_text(yaml.safe_dump(AUDIT | {"base": "starter-vit", "images": "photos"} | changes))
    (task,) = load_audit(file).to_study().tasks
    assert task.options.get("test_share") == share


def test_an_older_verdict_does_not_outlive_the_start_of_another(material: Path, finished: Path) -> None:
    """A pipeline that reads ``audit.json`` after a crash must not read somebody else's."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    folder = material / "twice"
    folder.mkdir()
    for name in ("audit.json", "audit.md", "audit.html"):
        (folder / name).write_bytes((finished / name).read_bytes())
    with pytest.raises(KeyboardInterrupt):
        audit(material / "audit.yaml", folder, limit=3, listeners=[stop])
    assert not list(folder.glob("audit.*"))


def test_an_outsiders_own_data_needs_no_checkpoint(material: Path, tiny_vit: Path) -> None:
    """Checkpoints bring heads for the audited classes only; the attacker's head is a linear probe."""
    file = material / "outsider.yaml"
    changes = {"heads": {"from": "checkpoint"}, "scenarios": ["outsider"], "outsider": {"task": "digits"}}
    file.write_text(yaml.safe_dump(AUDIT | {"base": str(tiny_vit)} | changes))
    stages = make_plan(load_audit(file).to_study()).stages.values()
    heads = {stage.label: type(stage) for stage in stages if stage.kind == "head"}
    assert heads["blobs"] is ClassifierHead
    assert heads["digits"] is Probe
