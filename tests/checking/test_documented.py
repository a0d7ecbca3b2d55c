"""Every command on docs/when_figures_look_wrong.md, on small models and pictures of the names that it uses."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from mergerisk.checking.compared_settings import NAMES
from tests.cli.test_cli import call
from tests.crafting.material import picture
from tests.models.material import CLASSES, save_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "when_figures_look_wrong.md").read_text(encoding="utf-8")
ATTACKING = (Path(__file__).parents[2] / "docs" / "attack_command.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.S | re.M)
COMMANDS = re.findall(
    r"^(?:\$ )?mergerisk (.*?)(?:\s+#(.*))?$", "\n".join(text for kind, text in BLOCKS if not kind), re.M
)

FACTORIES = """
import torch


class Net(torch.nn.Module):
    def __init__(self, count):
        super().__init__()
        self.layer = torch.nn.Linear(3, count)

    def forward(self, images):
        return self.layer(images.mean(dim=(2, 3)))


def net():
    made = Net(3)
    made.class_names = ("cat", "dog", "owl")
    return made


def features():
    return Net(5)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    save_classifier(tmp_path / "models" / "base", "vit")
    save_classifier(tmp_path / "models" / "photos", "vit", seed=1)
    for index, (split, count) in enumerate((("train", 6), ("test", 4))):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = picture(1000 * index + 100 * label + number, 24, 40)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "labels.csv").write_text("file,label\ncat/0.png,cat\nowl/1.png,owl\n")
    (tmp_path / "mine.py").write_text(FACTORIES)
    (letters,) = re.findall(r"```python\n(.*?)```", ATTACKING, re.S)
    (tmp_path / "letters.py").write_text(letters)
    (study,) = (text for kind, text in BLOCKS if kind == "yaml")
    (tmp_path / "study.yaml").write_text(study)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("mine", "letters"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_every_command(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(COMMANDS) == 12
    runpy.run_path("letters.py", run_name="__main__")  # saves the pictures
    for command, remark in COMMANDS:
        code, out, err = call(capsys, *shlex.split(command))
        # Models of random weights, enlarged pictures: whether they agree is nothing to the page but where it says so.
        expected = {3} if "exit code 3" in remark else {0, 3} if command.startswith("check models") else {0}
        assert code in expected, (command, out, err)
        assert out, command
        if command.startswith("check letters"):
            shown = PAGE.partition("$ mergerisk check letters")[2].partition("```")[0]
            lines = [
                line for line in shown.splitlines() if line.startswith(("picture", "pixels", "part", "likely"))
            ]
            assert len(lines) == 4
            assert set(lines) <= set(out.splitlines())
    for file in ("check.json", "adversarial/attack.csv", "runs/mine/report.html"):
        assert (place / file).is_file()


def test_the_python_on_it(place: Path) -> None:  # noqa: ARG001
    (expression,) = re.findall(r"`(mr\.check\(.*?\)\.images)`", PAGE)
    import mergerisk as mr

    assert len(eval(expression, {"mr": mr})) == 12


def test_its_words_are_those_of_the_output() -> None:
    rows = set(re.findall(r"(?:rows?|and) \*([^*]+)\*", PAGE.partition("## From the symptom")[2]))
    assert rows - {"test"} <= set(NAMES), rows
    assert {"picture it gets", "mean", "dtype"} <= rows
