"""Images as people have them: how classes and splits are called, and what is left out."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import mergerisk as mr
from mergerisk import api
from mergerisk.crafting import Crafting, craft_folder
from mergerisk.models import zero_shot
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.sources.classifiers import load_classifier
from mergerisk.study.heads import fitting_head, prompt_names
from mergerisk.study.reading import load_study
from mergerisk.tasks import load_task
from tests.cli.test_cli import call
from tests.crafting.material import picture, save_classifier
from tests.models.material import save_clip
from tests.situations.situation import Situation, refusal
from tests.tasks.material import NAMES, encoded, table, write_folder, write_parquet
from tests.tiny import save_tiny_vit

DIGITS = tuple(map(str, range(12)))


def sizes(task: mr.Task) -> tuple[tuple[str, ...], int, int, int]:
    """Classes; training, calibration and test images."""
    return task.class_names, len(task.train), len(task.calibration), len(task.test)


def splits(*names: str, classes: tuple[str, ...] = NAMES, **options: Any) -> Any:
    """A folder of these splits, with 4, 8, 12, … images per class, as a task."""

    def measure(folder: Path) -> Any:
        write_folder(folder / "photos", {name: 4 * (place + 1) for place, name in enumerate(names)}, classes)
        return sizes(load_task(str(folder / "photos"), **options))

    return measure


def refused(*names: str, **options: Any) -> Any:
    return lambda folder: refusal(lambda: splits(*names, **options)(folder))


def parquet(*files: str, names: tuple[str, ...] | None = NAMES, **options: Any) -> Any:
    """Parquet files of these paths, with 12, 24, … rows, as a task."""

    def measure(folder: Path) -> Any:
        for place, file in enumerate(files):
            write_parquet(folder / "photos" / file, table([0, 1, 2] * 4 * (place + 1), names=names))
        task = load_task(str(folder / "photos"), **options)
        return (*sizes(task)[1:], task.remarks)

    return measure


def said_by_itself(folder: Path, names: tuple[str, ...] | None, called: Any, count: int = 3) -> tuple[Path, Path]:
    """A classifier, and pictures in folders called by what it says itself of them."""
    model = save_classifier(folder / "model", names=names or tuple(f"LABEL_{i}" for i in range(count)))
    module = load_classifier(str(model)).module
    for seed in range(150):
        image = picture(seed)
        with torch.no_grad():
            row = int(module(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255).argmax())
        place = folder / "photos" / called(row)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{seed}.png")
    return model, folder / "photos"


def attack(folder: Path, names: tuple[str, ...] | None, called: Any, count: int = 3) -> Any:
    """The clean accuracy that `mergerisk attack` finds, where every label is the model's own answer."""
    model, photos = said_by_itself(folder, names, called, count)
    made = craft_folder(str(model), photos, folder / "out", Crafting(attack="fgsm", epsilon=1 / 255), limit=40)
    return made.summary["rates"][0]["clean_accuracy"]


def head_rows(folder: Path, theirs: tuple[str, ...] | None, ours: tuple[str, ...]) -> Any:
    """The rows of a classifier's head that studies and audits take for a task's classes."""
    names = theirs or tuple(f"LABEL_{i}" for i in range(len(ours)))
    spec = str(save_classifier(folder / "model", names=names))
    own = Checkpoint(Path(spec))["classifier.weight"]
    return [int((own == row).all(dim=1).nonzero()) for row in fitting_head(spec, "photos", ours).weight]


def npz(folder: Path, labels: list[int], **more: Any) -> mr.Task:
    images = np.zeros((len(labels), 8, 8, 3), np.uint8)
    split = np.arange(len(labels)) % 2
    np.savez(folder / "a.npz", images=images, labels=labels, split=split, **more)
    return load_task(str(folder / "a.npz"))


def forms(folder: Path) -> Any:
    for split, form in (("train", "NFC"), ("test", "NFD")):
        write_folder(folder, {split: 4}, (unicodedata.normalize(form, "café"), "dog"))
    return sizes(load_task(str(folder), classes=[unicodedata.normalize("NFD", "café"), "dog"]))


def composed_table(folder: Path) -> Any:
    """A table that composes an accent otherwise than the file system does."""
    model = save_classifier(folder / "model")
    (folder / "photos").mkdir()
    Image.fromarray(picture(1)).save(folder / "photos" / unicodedata.normalize("NFD", "café.png"))
    (folder / "labels.csv").write_text(f"file,label\n{unicodedata.normalize('NFC', 'café.png')},cat\n", "utf-8")
    crafting = Crafting(attack="fgsm", epsilon=8 / 255)
    return len(
        craft_folder(
            str(model), folder / "photos", folder / "out", crafting, labels=folder / "labels.csv"
        ).outcomes
    )


def prompts(folder: Path) -> Any:
    clip = str(save_clip(folder / "clip"))
    heads = [
        zero_shot(clip, [name, "cat"], ["a photo of a {}."]) for name in ("golden_retriever", "golden retriever")
    ]
    return prompt_names("photos", ("golden_retriever", "cat"), None), torch.equal(heads[0].weight, heads[1].weight)


def study(folder: Path, photos: dict[str, int], **changes: Any) -> Path:
    """A study over a folder of these splits."""
    write_folder(folder / "photos", photos)
    vit = save_tiny_vit(folder / "vit")
    content = {
        "backbone": str(vit), "tasks": [{"task": "photos", "size": 16}], "merging": ["weight_averaging"],
        "attacks": ["fgsm"], "budgets": {"epsilon": ["8/255"]}, "images_per_task": 6,
        "experts": {"from": "files", "files": {"photos": str(vit)}},
    }  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(content | changes))
    return folder / "study.yaml"


def noted(**changes: Any) -> Any:
    return lambda folder: "; ".join(api.validate(study(folder, {"train": 8}, **changes)).notes)


def left_out(folder: Path) -> Any:
    """Images that cannot be read, are of another class, or beyond the limit, have other sizes than those kept."""
    write_folder(folder, {"train": 4, "test": 4})
    wide = encoded(7, 32, 64)
    (folder / "test" / "apple" / "cut.png").write_bytes(wide[: len(wide) // 2])
    (folder / "test" / "cloud" / "000.png").write_bytes(wide)
    return tuple(load_task(str(folder), classes=["apple", "bear"]).test.images.shape)


class Fixed(nn.Module):
    """A model that takes images of 16 × 16 pixels only."""

    class_names = ("cat", "dog")

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.flatten(1))


def left_out_of_an_attack(folder: Path) -> Any:
    """A picture that a model could not take lies beside those that the table names."""
    (folder / "photos").mkdir()
    Image.fromarray(picture(0, 8, 8)).save(folder / "photos" / "a.png")
    Image.fromarray(picture(1)).save(folder / "photos" / "b.png")
    (folder / "labels.csv").write_text("file,label\nb.png,cat\n", "utf-8")
    crafting, asked = Crafting(attack="fgsm", epsilon=8 / 255), folder / "labels.csv"
    made = craft_folder(f"{__name__}:Fixed", folder / "photos", folder / "out", crafting, labels=asked)
    return list(made.outcomes["file"])


THREE = ("crane", "dog", "crane")

SITUATIONS = (
    # Classes
    Situation("folders called by number are classes in the order of numbers",
              lambda p: sizes(load_task(str(write_folder(p, {"": 4}, DIGITS))))[0], DIGITS),
    Situation("labels that are texts of numbers, too",
              lambda p: load_task(str(write_parquet(p / "a.parquet", table([0] * 24, names=None).set_column(
                  1, "label", [[*DIGITS] * 2])))).class_names, DIGITS),
    Situation("attack: folders called by number, a model without names", lambda p: attack(p, None, str, 12), 1.0),
    Situation("audit: folders called by number, a model without names",
              lambda p: head_rows(p, None, load_task(str(write_folder(p / "f", {"": 2}, DIGITS))).class_names),
              [*range(12)]),
    Situation("attack: two classes of one name, called by name",
              lambda p: refusal(lambda: attack(p, THREE, lambda row: THREE[row])),
              re.compile(r"^folder 'crane': the model has 2 classes called 'crane', 0 and 2; write the number")),
    Situation("attack: two classes of one name, called by number as advised", lambda p: attack(p, THREE, str), 1.0),
    Situation("audit: data with the same two classes of one name", lambda p: head_rows(p, THREE, THREE), [0, 1, 2]),
    Situation("audit: two classes of one name in another order",
              lambda p: refusal(lambda: head_rows(p, THREE, ("crane", "crane", "dog"))),
              re.compile("rows 0 and 2 are called 'crane', and .* call the task's classes by the numbers of their")),
    Situation("audit: a folder for one of two classes of one name",
              lambda p: refusal(lambda: head_rows(p, THREE, ("crane", "dog"))),
              re.compile("3 classes, rows 0 and 2 are called 'crane'; task 'photos' has 2: .* called by the numbers")),
    Situation("audit: two classes of one name, called by number as advised",
              lambda p: head_rows(p, THREE, ("2", "0", "1")), [2, 0, 1]),
    Situation("audit: names as attack reads them",
              lambda p: head_rows(p, ("red fox, Vulpes vulpes", "Cat", "3d_printer"), ("cat", "3d printer", "red_fox")),
              [1, 2, 0]),
    Situation("audit: two folders for one class",
              lambda p: refusal(lambda: head_rows(p, ("cat", "dog"), ("cat", "Cat"))),
              re.compile("classes 'cat' and 'Cat' of task 'photos' are both its row 0, 'cat'; make them one class")),
    Situation("numbers that the model counts otherwise are no rows",
              lambda p: refusal(lambda: attack(p, ("1", "2", "3"), str)),
              re.compile("^folder '0': the model has no class '0'")),
    Situation("zero-shot prompts from a folder's name", prompts, (("golden retriever", "cat"), True)),
    Situation("zero-shot prompts for two classes of one name", lambda _: refusal(lambda: prompt_names("t", THREE, None)),
              re.compile("prompts cannot tell classes 0 and 2 apart, both 'crane'; .* heads.class_names.t")),
    Situation("zero-shot prompts for them, as advised",
              lambda _: prompt_names("t", THREE, ("crane bird", "dog", "crane machine")),
              ("crane bird", "dog", "crane machine")),
    Situation("labels that count from 1", lambda p: (npz(p, [1, 2, 3, 3, 2, 1]).class_names, npz(p, [1, 2, 2, 1]).remarks),
              (("1", "2", "3"),
               ("labels are 1 to 2, none is 0: they were taken to count 2 classes from 1",))),
    Situation("labels that count from 1, one image each", lambda p: npz(p, [1, 2]).test.labels.tolist(), [1]),
    Situation("labels in Parquet that count from 1",
              lambda p: sizes(load_task(str(write_parquet(p / "a.parquet", table([1, 2, 3] * 4, names=None)))))[0],
              ("1", "2", "3")),
    Situation("a class that no image shows",
              lambda p: npz(p, [0, 0, 2, 2], class_names=np.array(["cat", "dog", "owl"])).remarks,
              ("1 of 3 classes has no image: 'dog'",)),
    Situation("a class that no test image shows",
              lambda p: npz(p, [0, 0, 1, 1, 2, 0], class_names=np.array(["cat", "dog", "owl"])).remarks,
              ("1 of 3 classes has no test image: 'owl'",)),
    Situation("attack: folders that count from 1, a model without names",
              lambda p: refusal(lambda: attack(p, None, lambda row: str(row + 1), 12)),
              re.compile("^folder '12': class 12 is out of range; the model has classes 0 to 11; if yours count from 1")),
    Situation("train/ from one machine, test/ from a Mac", forms, (("café", "dog"), 6, 2, 8)),
    Situation("attack: a table that composes accents otherwise", composed_table, 1),
    # Splits
    *(Situation(f"a folder with {train}/ and {test}/", splits(train, test), (NAMES, 9, 3, 24))
      for train, test in (("train", "valid"), ("train", "dev"), ("train", "eval"), ("Training", "Testing"),
                          ("seg_train", "seg_test"), ("imagenet_train", "imagenet_val"), ("train2017", "val2017"),
                          ("trainset", "testset"), ("TrainImages", "ValImages"))),
    Situation("a folder with train/, val/ and test/", splits("train", "val", "test"), (NAMES, 12, 24, 36)),
    Situation("a folder with train/, eval/ and val/", splits("train", "eval", "val"), (NAMES, 12, 36, 24)),
    Situation("a folder with val/ only", splits("val"), (NAMES, 0, 0, 12)),
    Situation("a folder with train/ only", splits("train"), (NAMES, 5, 1, 6)),
    Situation("vehicles, of which one is a train",
              splits("", classes=("bullet_train", "car", "train", "test_car")),
              (("bullet_train", "car", "test_car", "train"), 6, 2, 8)),
    Situation("folders of splits with names of their own", refused("day", "night"),
              re.compile("day, night all hold folders 'apple' and 'bear': they seem to be splits or configurations, "
                         "not classes; say test_split and train_split, or give one of them, as .*day")),
    Situation("one of them said, as advised", splits("day", "night", train_split="day", test_split="night"),
              (NAMES, 9, 3, 24)),
    Situation("one of them given, as advised",
              lambda p: sizes(load_task(str(write_folder(p, {"day": 4, "night": 8}) / "day"))), (NAMES, 5, 1, 6)),
    Situation("named under classes, as advised", splits("day", "night", classes=("left", "right")) and (
        lambda p: load_task(str(write_folder(p, {"cat": 4, "dog": 4}, ("left", "right"))),
                            classes=["cat", "dog"]).class_names), ("cat", "dog")),
    Situation("splits within the classes", lambda p: refusal(
        lambda: load_task(str(write_folder(p, {"cat": 4, "dog": 4}, ("train", "test"))))),
              re.compile("they seem to be the splits of each class; put the splits outermost")),
    Situation("train/ beside a split of another name", refused("train", "fog"),
              re.compile("fog, train all hold folders .*; say test_split and train_split")),
    Situation("two folders for one split", refused("train_a", "train_b", "test"),
              re.compile("several splits could be meant: train_a, train_b; say train_split")),
    Situation("two folders for one split, one said as advised", splits("train_a", "train_b", "test",
              train_split="train_b"), (NAMES, 18, 6, 36)),
    *(Situation(f"Parquet files {train} and {test}", parquet(f"{train}.parquet", f"{test}.parquet"),
                (9, 3, 24, remarks))
      for train, test, remarks in (
          ("data/train-00000-of-00001", "data/validation-00000-of-00001",
           ("there is no split called test: 'validation' is tested on",)),
          ("train", "dev", ("there is no split called test: 'dev' is tested on",)),
          ("my-dataset-train-00000", "my-dataset-test-00000", ()),
          ("train_v2", "test_v2", ()), ("Training", "Testing", ()),
          ("train/part-0", "test/part-0", ()), ("train-tracks-train", "train-tracks-test", ()),
          ("default/train/0000", "default/test/0000", ()))),
    Situation("Parquet files train, test, validation",
              parquet("train.parquet", "test.parquet", "validation.parquet"), (9, 3, 24, ())),
    Situation("FusionBench's further splits",
              parquet(*(f"data/{name}-00000-of-00001.parquet" for name in
                        ("train", "test", "contrast", "gaussian_noise", "jpeg_compression", "motion_blur"))),
              (9, 3, 24, ())),
    Situation("Parquet files train and contrast",
              lambda p: refusal(lambda: parquet("train.parquet", "contrast.parquet")(p)),
              re.compile("no split 'test' among contrast, train; say test_split")),
    Situation("a Parquet file train only", parquet("train.parquet"),
              (5, 1, 6, ("there is no test split: test images are drawn from 'train'",))),
    Situation("two configurations in a folder of Parquet files",
              lambda p: refusal(lambda: parquet("fog/train.parquet", "fog/test.parquet", "rain/test.parquet")(p)),
              re.compile("several configurations; say config, one of: fog, rain")),
    Situation("one of them said, as advised",
              parquet("fog/train.parquet", "fog/test.parquet", "rain/test.parquet", config="fog"), (9, 3, 24, ())),
    Situation("a label for images that nobody labelled",
              lambda p: refusal(lambda: load_task(str(write_parquet(p / "a.parquet", table([0, -1, 1, 2]))))),
              re.compile("row 1: label -1 is out of range; .* say another test_split")),
    Situation("attack: a folder of splits", lambda p: refusal(lambda: attack(p, THREE, lambda row: f"test/{row}")),
              re.compile("^folder 'test': a split by its name, and no class; give that folder instead")),
    # Who was trained on what
    Situation("an expert from a file, and train/ only", noted(),
              re.compile("task 'photos': there is no test split: test images are drawn from 'train'; task "
                         "'photos': test images come from 'train': a model made elsewhere, such as the expert of "
                         "'photos', may have been trained on them")),
    Situation("the same, with the folder train/ itself for a task",
              noted(tasks=[{"task": "photos/train", "name": "photos", "size": 16}]),
              re.compile("test images come from 'train': a model made elsewhere, such as the expert")),
    Situation("experts fine-tuned in the run, and train/ only", noted(experts={}),
              re.compile("^task 'photos': there is no test split: test images are drawn from 'train'$")),
    # What is left out
    Situation("the size of files that are left out", left_out, (8, 3, 8, 8)),
    Situation("attack: files that are left out", left_out_of_an_attack, ["b.png"]),
)  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_images_as_people_have_them(situation: Situation, tmp_path: Path) -> None:
    situation.check(tmp_path)


def test_what_must_be_said_is_said_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = study(tmp_path, {"train": 8})
    note = "test images come from 'train': a model made elsewhere, such as the expert of 'photos', may have been"
    for command in ("validate", "plan"):
        code, out, _ = call(capsys, command, path)
        assert code == 0
        assert f"note: task 'photos': {note}" in out
    code, out, err = call(capsys, "run", path, "--out", tmp_path / "run", "--workers", "1")
    assert code == 0, err
    assert f"note: Task 'photos': {note}" in out
    assert any(note in text for text in json.loads((tmp_path / "run" / "run.json").read_text())["notes"])
    assert note.replace("'", "&#39;") in (tmp_path / "run" / "report.html").read_text()
    assert any(
        note in text for text in json.loads((tmp_path / "run" / "summary.json").read_text())["run"]["notes"]
    )
    assert load_study(path).task_names == ("photos",)
