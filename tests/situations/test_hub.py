"""Repositories and checkpoints as people really have them: pickles on main, pickles on disk, advice on both."""

from __future__ import annotations

import io
import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
import torch
import yaml

from mergerisk.checking import check
from mergerisk.cli.main import main
from mergerisk.errors import UserError
from mergerisk.models.on_disk.checkpoints import Checkpoint, is_adapter
from mergerisk.models.sources.classifiers import load_classifier
from mergerisk.models.sources.heads import head_from_file
from mergerisk.models.sources.lora import LoraCheckpoint
from mergerisk.recipe import load_recipe, merge_checkpoints
from tests.models.hub_stand_in import PullRequest, hub
from tests.models.material import classifier, save_classifier
from tests.situations.situation import Situation, refusal
from tests.study.real_hub import CLIP, CONVERSION
from tests.tasks.material import encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STATE = {"vision_model.weight": torch.tensor([1.0, 2.0]), "vision_model.embeddings.position_ids": torch.arange(3)}
EXPERTS = {"one": [3.0, 2.0], "two": [5.0, 0.0]}
NOWHERE = "http://127.0.0.1:9"


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


MAIN = {"config.json": b"{}", "pytorch_model.bin": pickled(STATE)}


def safetensors(state: dict[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    return save(state)


PROPOSED = PullRequest(66, MAIN | {"model.safetensors": safetensors(STATE)}, commit=CONVERSION)


@contextmanager
def asked(address: str, cache: Path) -> Iterator[None]:
    """Whatever asks the hub asks this one, and keeps what it gets here."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    constants = {"ENDPOINT": address, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_CACHE": str(cache)}
    with patch.multiple("huggingface_hub.constants", **constants):
        yield


def recipe(folder: Path, base: str = CLIP) -> Path:
    for name, values in EXPERTS.items():
        path = folder / name / "model.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(safetensors(STATE | {"vision_model.weight": torch.tensor(values)}))
    content = {"base": base, "experts": {name: name for name in EXPERTS}, "method": "weight_averaging"}
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def merged(folder: Path, base: str = CLIP, *, offline: bool = False) -> tuple[list[float], str, str]:
    """The merged weights, the base that the merge's own recipe names, and its card."""
    out = merge_checkpoints(load_recipe(recipe(folder, base)), folder / "out", offline=offline, force=True)
    weights = Checkpoint(out)["vision_model.weight"].tolist()
    return weights, yaml.safe_load((out / "recipe.yaml").read_text())["base"], (out / "README.md").read_text()


def merge_on_the_hub(folder: Path) -> Any:
    with hub({CLIP: MAIN}, pull_requests={CLIP: [PROPOSED]}) as (address, _), asked(address, folder / "cache"):
        weights, base, card = merged(folder)
    return weights, base, "has no safetensors; taken from the hub's conversion, refs/pr/66" in card


def merge_offline_afterwards(folder: Path) -> Any:
    merge_on_the_hub(folder)
    with asked(NOWHERE, folder / "cache"):
        assert merged(folder)[:2] == merged(folder, offline=True)[:2]
        return merged(folder, offline=True)[1]


def merge_without_a_conversion(folder: Path) -> str:
    with hub({CLIP: MAIN}) as (address, _), asked(address, folder / "cache"):
        return refusal(lambda: merged(folder))


@contextmanager
def converted_classifier(folder: Path) -> Iterator[PullRequest]:
    """A hub with ``org/net``, a classifier that is pickled on main and converted in a pull request."""
    name = "org/net"
    made = save_classifier(folder / "net", "vit")
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    main_files = {"pytorch_model.bin": pickled(classifier(made, "vit").state_dict()), **files}
    del main_files["model.safetensors"]
    request = PullRequest(3, main_files | files)
    with (
        hub({name: main_files}, pull_requests={name: [request]}) as (address, _),
        asked(address, folder / "cache"),
    ):
        yield request


def attacked_classifier(folder: Path) -> Any:
    with converted_classifier(folder) as request:
        loaded = load_classifier("org/net")
    return loaded.commit == request.head, "taken from the hub's conversion, refs/pr/3" in loaded.remark


def checked_classifier(folder: Path) -> Any:
    for number in range(2):
        path = folder / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(number, 32, 32))
    with converted_classifier(folder):
        found = check("org/net", folder / "images")
    return len([text for text in found.remarks if "taken from the hub's conversion, refs/pr/3" in text])


class Payload:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "ran"

    def __reduce__(self) -> Any:
        return type(self.file).touch, (self.file,)


def hostile_pickle(folder: Path) -> str:
    (folder / "model.bin").write_bytes(pickled(STATE | {"more": Payload(folder)}))  # type: ignore[dict-item]
    said = refusal(lambda: run_command(["convert", str(folder / "model.bin"), "--out", str(folder / "out")]))
    assert not (folder / "ran").exists()
    assert not (folder / "out").exists()
    return said


def run_command(words: list[str]) -> None:
    """As in a terminal; a mistake comes back as its line."""
    try:
        with patch("click.echo"):
            main(words)
    except SystemExit as end:
        raise UserError(str(end.__context__)) from end


def followed(folder: Path, fails: Callable[[Path], Any], path: Path) -> Any:
    """What comes of a refusal whose advice is followed to the letter: the command it names, then the folder made."""
    said = refusal(lambda: fails(path))
    command = re.search(r"mergerisk convert (.+) --out DIR, then give DIR(/\S+)?$", said)
    assert command is not None, said
    out = folder / "DIR"
    with patch("mergerisk.recipe.converting._carry_out", here):  # the process of its own is tested elsewhere
        run_command(["convert", *shlex.split(command[1]), "--out", str(out)])
    return fails(out / (command[2] or "/")[1:])


def here(job: Any) -> None:
    from mergerisk.recipe.unpickling import convert_file

    for source, destination in job.files.items():
        convert_file(source, destination, job.key)


def names_in(path: Path) -> list[str]:
    return sorted(Checkpoint(path))


def a_file(folder: Path) -> Any:
    (folder / "my weights.pth").write_bytes(pickled({"state_dict": STATE, "epoch": 3}))
    return followed(folder, names_in, folder / "my weights.pth")


def a_folder(folder: Path) -> Any:
    (folder / "in").mkdir()
    for name, content in MAIN.items():
        (folder / "in" / name).write_bytes(content)
    return followed(folder, names_in, folder / "in")


def an_adapter(folder: Path) -> Any:
    (folder / "in").mkdir()
    factors = {f"base_model.model.layer.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    (folder / "in" / "adapter_model.bin").write_bytes(pickled(factors))
    (folder / "in" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    (folder / "base.safetensors").write_bytes(safetensors({"layer.weight": torch.zeros(2, 2)}))
    base = Checkpoint(folder / "base.safetensors")

    def adapted(path: Path) -> list[list[float]]:
        assert is_adapter(path)
        changed: list[list[float]] = LoraCheckpoint(base, path)["layer.weight"].tolist()
        return changed

    return followed(folder, adapted, folder / "in")


def a_head(folder: Path) -> Any:
    (folder / "head.pt").write_bytes(pickled(torch.nn.Linear(3, 2).state_dict()))
    return followed(folder, lambda path: tuple(head_from_file(path).weight.shape), folder / "head.pt")


def the_hub(folder: Path) -> Any:
    with hub({CLIP: MAIN}) as (address, _), asked(address, folder / "cache"):
        return followed(folder, lambda base: merged(folder, str(base))[0], CLIP)  # type: ignore[arg-type]


BOTH = sorted(STATE)

SITUATIONS = (
    Situation(
        "main holds pytorch_model.bin alone, the conversion is an open pull request: merge takes it and its card says so",
        merge_on_the_hub,
        ([4.0, 1.0], f"{CLIP}@{CONVERSION}", True),
    ),
    Situation(
        "the same, once more without a network and with --offline",
        merge_offline_afterwards,
        f"{CLIP}@{CONVERSION}",
    ),
    Situation(
        "main holds pytorch_model.bin alone, and nobody has converted it",
        merge_without_a_conversion,
        re.compile(
            f"base: {CLIP}: the repository has no safetensors; only pytorch_model.bin, .*; the hub's conversion bot has "
            f"proposed none; convert it: mergerisk convert {CLIP} --out DIR, then give DIR$"
        ),
    ),
    Situation(
        "a classifier to attack, pickled on main, converted in a pull request",
        attacked_classifier,
        (True, True),
    ),
    Situation(
        "the same, checked against transformers: said once, and no warning besides",
        checked_classifier,
        1,
    ),
    Situation(
        "a pickle that would run code when it is loaded",
        hostile_pickle,
        re.compile(r"it wants [\w.]+, which is more than tensors; it was refused and none of it was run"),
    ),
    Situation("a Lightning checkpoint with a space in its name: the advice, to the letter", a_file, BOTH),
    Situation("a head in a .pt file: the advice, to the letter", a_head, (2, 3)),
    Situation("a folder with pytorch_model.bin: the advice, to the letter", a_folder, BOTH),
    Situation(
        "an adapter with adapter_model.bin: the advice, to the letter", an_adapter, [[2.0, 2.0], [2.0, 2.0]]
    ),
    Situation("a repository with pytorch_model.bin: the advice, to the letter", the_hub, [4.0, 1.0]),
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_situation(situation: Situation, tmp_path: Path) -> None:
    situation.check(tmp_path)
