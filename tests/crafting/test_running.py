"""A folder of images attacked from end to end: what is saved, what is counted, and what must not change it."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from mergerisk.crafting import Crafting, craft_folder, parse_epsilon, parse_settings
from mergerisk.errors import UserError
from mergerisk.models.sources.classifiers import load_classifier
from tests.crafting.material import picture, save_classifier, save_pictures

if TYPE_CHECKING:
    from pathlib import Path

QUICK = Crafting(parameters={"steps": 3})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_classifier(tmp_path_factory.mktemp("models") / "attacked"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_classifier(tmp_path_factory.mktemp("models") / "other", seed=1))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with images of two sizes, one in 16 bits, and one that is none."""
    folder = save_pictures(tmp_path_factory.mktemp("pictures"))
    Image.fromarray(picture(50, 24, 20)).save(folder / "cat" / "larger.bmp")
    grey = np.random.default_rng(0).integers(0, 65536, (16, 16)).astype(np.uint16)
    Image.fromarray(grey).save(folder / "2" / "deep.png")
    (folder / "cat" / "broken.png").write_bytes(b"nothing")
    (folder / "1").mkdir()
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "attack.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_what_is_counted_is_what_was_saved(model: str, other: str, pictures: Path, tmp_path: Path) -> None:
    made = craft_folder(model, pictures, tmp_path / "out", QUICK, targets=[other])
    found = rows(made.folder)
    assert [row["file"] for row in found] == sorted(
        path.relative_to(pictures).as_posix() for path in pictures.rglob("*.*") if path.name != "broken.png"
    )
    module, target = load_classifier(model).module, load_classifier(other).module
    for row in found:
        saved = np.asarray(Image.open(made.folder / row["saved"]))
        clean = Image.open(pictures / row["file"])
        exact = np.asarray(clean, dtype=np.float64) / (65535 if clean.mode == "I;16" else 255)
        change = saved / 255 - (exact[..., None] if exact.ndim == 2 else exact)
        assert np.abs(change).max() <= 8 / 255 + 1e-12
        assert float(row["linf"]) == pytest.approx(np.abs(change).max())
        assert float(row["l2"]) == pytest.approx(np.sqrt((change**2).sum()))
        pixels = torch.from_numpy(saved.copy()).permute(2, 0, 1)[None].float() / 255
        assert int(row["adversarial_prediction"]) == module(pixels).argmax()
        assert int(row[f"adversarial_prediction: {other}"]) == target(pixels).argmax()
        assert int(row["label"]) == {"cat": 0, "Red_Fox": 1, "2": 2}[row["file"].split("/")[0]]
    summary = json.loads((made.folder / "attack.json").read_text())
    assert summary == made.summary
    assert summary["skipped"] == [{"file": "cat/broken.png", "reason": summary["skipped"][0]["reason"]}]
    assert summary["attack"]["steps"] == 3
    own, transferred = summary["rates"]
    right = [row for row in found if row["clean_prediction"] == row["label"]]
    both = [row for row in right if row[f"clean_prediction: {other}"] == row["label"]]
    assert own["clean_accuracy"] == pytest.approx(len(right) / len(found))
    assert own["asr"] == pytest.approx(np.mean([row["adversarial_prediction"] != row["label"] for row in right]))
    assert transferred["images_both_correct"] == len(both) > 0
    wrong = [row[f"adversarial_prediction: {other}"] != row["label"] for row in found]
    assert transferred["asr_all"] == pytest.approx(np.mean(wrong))
    assert own["asr_low"] < own["asr"] <= own["asr_high"]


@pytest.mark.parametrize(
    "parameters", [{"steps": 2}, {"steps": 2, "inputs": ["di", "admix"]}], ids=["plain", "mixed"]
)
def test_batches_change_nothing(model: str, other: str, pictures: Path, tmp_path: Path, parameters: Any) -> None:
    crafting = Crafting(parameters=parameters, seed=3)
    first = craft_folder(model, pictures, tmp_path / "a", crafting, targets=[other], batch_size=32)
    second = craft_folder(model, pictures, tmp_path / "b", crafting, targets=[other], batch_size=3)
    assert digests(first.folder) == digests(second.folder)


def test_an_image_is_attacked_alike_whatever_else_is_in_the_folder(
    model: str, pictures: Path, tmp_path: Path
) -> None:
    crafting = Crafting(attack="di_fgsm", parameters={"steps": 2})
    everything = digests(craft_folder(model, pictures, tmp_path / "all", crafting).folder)
    limited = craft_folder(model, pictures, tmp_path / "some", crafting, limit=6)
    assert [row["label"] for row in rows(limited.folder)].count("1") == 2
    some = {name: digest for name, digest in digests(limited.folder).items() if name.endswith(".png")}
    assert len(some) == 6
    assert some.items() <= everything.items()


@pytest.mark.parametrize(
    ("norm", "epsilon", "levels"), [("linf", "1.5/255", 1), ("linf", "0.9/255", 0), ("l2", "0.5", None)]
)
def test_the_budget_holds_after_saving(
    model: str, tmp_path: Path, norm: Any, epsilon: str, levels: int | None
) -> None:
    pictures = save_pictures(tmp_path / "pictures", per_class=2)
    crafting = Crafting(parameters={"steps": 6}, norm=norm, epsilon=parse_epsilon(epsilon))
    made = craft_folder(model, pictures, tmp_path / "out", crafting)
    for row in rows(made.folder):
        saved, clean = (
            np.asarray(Image.open(path)).astype(int)
            for path in (made.folder / row["saved"], pictures / row["file"])
        )
        if levels is not None:
            assert np.abs(saved - clean).max() == levels
        else:
            length = np.sqrt(((saved - clean) ** 2).sum()) / 255
            assert 0.45 < length <= 0.5


def test_a_single_file_of_images_and_a_table(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    for index, ending in enumerate(("png", "bmp", "tiff")):
        Image.fromarray(picture(index)).save(folder / f"a.{ending}")
    (folder / "labels.csv").write_text("file,label\na.png,cat\na.bmp,1\n")
    made = craft_folder(model, folder, tmp_path / "out", QUICK, labels=folder / "labels.csv")
    assert {row["file"]: row["label"] for row in rows(made.folder)} == {"a.png": "0", "a.bmp": "1"}
    assert {path.name for path in made.folder.glob("*.png")} == {"a.png.png", "a.bmp.png"}
    assert made.summary["skipped"] == [{"file": "a.tiff", "reason": "not in labels.csv"}]


def test_without_labels_the_clean_predictions_are_attacked(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    for index in range(4):
        Image.fromarray(picture(index)).save(folder / f"{index}.png")
    made = craft_folder(model, folder, tmp_path / "out", QUICK)
    assert made.summary["labels"] == "clean predictions"
    assert all(row["label"] == row["clean_prediction"] for row in rows(made.folder))


def test_targeted(model: str, pictures: Path, tmp_path: Path) -> None:
    aimed = replace(QUICK, targeted=True, target_label="cat", epsilon=64 / 255)
    made = craft_folder(model, pictures, tmp_path / "aimed", aimed)
    found = rows(made.folder)
    assert {row["target_label"] for row in found} == {"0"}
    assert all(row["label"] != "0" for row in found)
    assert {item["reason"] for item in made.summary["skipped"] if "shows" in item["reason"]}
    right = [row for row in found if row["clean_prediction"] == row["label"]]
    reached = np.mean([row["adversarial_prediction"] == "0" for row in right])
    own = made.summary["rates"][0]
    assert reached > 0
    assert own["targeted_success"] == pytest.approx(reached)
    assert own["targeted_success_low"] < reached <= own["targeted_success_high"]
    drawn = craft_folder(model, pictures, tmp_path / "drawn", replace(QUICK, targeted=True))
    assert all(row["target_label"] != row["label"] for row in rows(drawn.folder))


def test_aiming_without_labels_leaves_out_what_is_there_already(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(picture(index, 16, 16 + index % 2)).save(folder / f"{index}.png")
    predictions = {
        row["clean_prediction"] for row in rows(craft_folder(model, folder, tmp_path / "plain", QUICK).folder)
    }
    assert len(predictions) > 1
    aim = replace(QUICK, targeted=True, target_label=min(predictions))
    made = craft_folder(model, folder, tmp_path / "out", aim)
    assert {row["clean_prediction"] for row in rows(made.folder)} == predictions - {min(predictions)}
    assert len(made.summary["skipped"]) == 6 - made.summary["attacked"]


def test_progress_ends_at_what_it_announced(model: str, other: str, pictures: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    craft_folder(
        model,
        pictures,
        tmp_path / "out",
        QUICK,
        targets=[other],
        listener=lambda *it: heard.append(it),
        batch_size=4,
    )
    assert heard == sorted(heard)
    assert len({total for _, total in heard}) == 1
    assert heard[-1][0] == heard[-1][1] == 14 * (3 + 3 + 2)
    assert len(heard) > 10


def test_saturated_confidence_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.crafting import material

    monkeypatch.setattr(
        material.Brightness, "forward", lambda _, x: 1e6 * torch.stack([-x.sum((1, 2, 3)), x.sum((1, 2, 3))], 1)
    )
    (tmp_path / "flat").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "flat" / "a.png")
    made = craft_folder("tests.crafting.material:unnamed", tmp_path / "flat", tmp_path / "out", QUICK)
    assert made.summary["zero_gradient_images"] == 1


def mistakes(tmp_path: Path, model: str, pictures: Path) -> dict[str, tuple[dict[str, Any], str]]:
    two = "tests.crafting.material:named"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("no image")
    (tmp_path / "dogs" / "dog").mkdir(parents=True)
    Image.fromarray(picture(0)).save(tmp_path / "dogs" / "dog" / "a.png")
    (tmp_path / "seen" / "cat").mkdir(parents=True)
    Image.fromarray(picture(0)).save(tmp_path / "seen" / "cat" / "a.png")
    renamed = str(save_classifier(tmp_path / "renamed", names=("cat", "red wolf", "3d printer")))
    return {
        "no folder": ({"images": tmp_path / "nowhere"}, "no such folder"),
        "empty folder": ({"images": tmp_path / "empty"}, "holds no files"),
        "no images": ({"images": tmp_path / "text"}, "no image can be read; notes.txt: not one of"),
        "unknown class": ({"images": tmp_path / "dogs"}, "folder 'dog': the model has no class 'dog'"),
        "limit": ({"limit": 0}, "--limit must be 1 or more, got 0"),
        "batch size": ({"batch_size": 0}, "--batch-size must be 1 or more"),
        "seed": ({"crafting": Crafting(seed=-1)}, "--seed must be 0 or more"),
        "attack": ({"crafting": Crafting(attack="mi_fgms")}, "did you mean 'mi_fgsm'"),
        "hyper-parameter": ({"crafting": Crafting(parameters={"step": 3})}, "step: unknown field"),
        "epsilon": ({"crafting": Crafting(epsilon=8.0)}, "epsilon must lie in [0, 1]"),
        "aim": ({"crafting": Crafting(target_label="cat")}, "add --targeted"),
        "unknown aim": ({"crafting": Crafting(targeted=True, target_label="dog")}, "--target-label: the model has no"),
        "only the aim": (
            {"crafting": Crafting(targeted=True, target_label="cat"), "images": tmp_path / "seen"},
            "no image to attack; cat/a.png: shows the class that is aimed at",
        ),
        "same model": ({"targets": [model]}, "given twice, or the attacked model itself"),
        "other classes": ({"targets": [two]}, "has 2 classes"),
        "other names": ({"targets": [renamed]}, "calls class 1 'red wolf'"),
        "fixed size": ({"model": "torch.nn:Identity"}, "must return logits"),
        "within images": ({"out": pictures / "out"}, "lies within the images"),
        "over images": ({"out": pictures.parent, "force": True}, "which is read"),
    }  # fmt: skip


NAMES = [
    "no folder",
    "empty folder",
    "no images",
    "unknown class",
    "limit",
    "batch size",
    "seed",
    "attack",
    "hyper-parameter",
    "epsilon",
    "aim",
    "unknown aim",
    "only the aim",
    "same model",
    "other classes",
    "other names",
    "fixed size",
    "within images",
    "over images",
]


@pytest.mark.parametrize("name", NAMES)
def test_mistakes_are_one_line_and_leave_nothing(model: str, pictures: Path, tmp_path: Path, name: str) -> None:
    cases = mistakes(tmp_path, model, pictures)
    assert set(cases) == set(NAMES)
    changes, message = cases[name]
    given: dict[str, Any] = {
        "model": model,
        "images": pictures,
        "out": tmp_path / "out",
        "crafting": QUICK,
    } | changes
    with pytest.raises(UserError) as caught:
        craft_folder(**given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.unfinished").exists()


def test_only_an_earlier_attack_is_replaced(model: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    craft_folder(model, pictures, out, QUICK)
    with pytest.raises(UserError, match="--force"):
        craft_folder(model, pictures, out, QUICK)
    again = craft_folder(model, pictures, out, QUICK, limit=3, force=True)
    assert len(list(again.folder.rglob("*.png"))) == 3
    (out / "cat" / "mine.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"cat/mine\.png: left by no earlier attack"):
        craft_folder(model, pictures, out, QUICK, force=True)


def test_an_error_midway_leaves_what_was_there(
    model: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mergerisk.crafting import running

    out = tmp_path / "out"
    before = digests(craft_folder(model, pictures, out, QUICK, limit=3).folder)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "model_rates", fail)
    with pytest.raises(KeyboardInterrupt):
        craft_folder(model, pictures, out, QUICK, force=True)
    assert digests(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_settings_are_read_as_yaml() -> None:
    given = [
        "steps=20",
        "inputs=[di, {input: si, scales: 3}]",
        "step_size=2/255",
        "float64_logits=true",
        "file=a/b",
    ]
    assert parse_settings(given) == {
        "steps": 20,
        "inputs": ["di", {"input": "si", "scales": 3}],
        "step_size": 2 / 255,
        "float64_logits": True,
        "file": "a/b",
    }
    for wrong, message in (
        (["steps"], "write key=value"),
        (["=3"], "write key=value"),
        (["steps=1", "steps=2"], "given twice"),
        (["inputs=[di"], "not valid YAML"),
    ):
        with pytest.raises(UserError, match=message):
            parse_settings(wrong)


def test_epsilon_is_a_number_or_a_fraction() -> None:
    assert parse_epsilon("8/255") == 8 / 255
    assert parse_epsilon("1.5/255") == 1.5 / 255
    assert parse_epsilon("0.03") == 0.03
    for wrong in ("much", "1/0", "0", "-1/255", "nan", "inf"):
        with pytest.raises(UserError, match="--epsilon"):
            parse_epsilon(wrong)
