"""Every fenced block of README.md and docs/ runs as pasted, says that it is a part, or is plain text.

What a block is, says its first line: ``python`` runs by itself, or after the one above it where its first line is
``# continues the snippet above``; ``yaml`` is a whole study, audit, recipe or file of claims, or begins with
``# part of study.yaml``; a block without a language holds commands, which run where that is cheap and are parsed where
it is not; ``console`` holds commands after ``$`` and what they print; ``text`` and ``markdown`` are shown.

Models, images and runs under the names that the pages use are small ones. Pages whose blocks need more are run by a test
of their own.
"""

from __future__ import annotations

import dataclasses
import http.server
import json
import re
import shlex
import shutil
import sys
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import yaml
from safetensors.torch import save_file

import mergerisk as mr
from mergerisk.attacks import ATTACKS, ENSEMBLE_ALGORITHMS, FILTERS, INPUTS
from mergerisk.causes import CAUSES
from mergerisk.cli.main import cli
from mergerisk.defenses import DEFENSES
from mergerisk.listeners import LISTENERS
from mergerisk.merging import CORRECTIONS, METHODS
from mergerisk.recipe import load_recipe
from mergerisk.statistics import load_claims
from mergerisk.study import parse_study
from mergerisk.study.further import TABLES
from mergerisk.tasks import TASK_KINDS
from mergerisk.transfer import SEARCHES, HttpTarget, Queries
from tests.attacks.test_adapter import stand_in_for_torchattacks
from tests.cli.test_cli import call
from tests.models.material import CLASSES, save_classifier, save_clip
from tests.tasks.material import write_folder
from tests.tiny import STUDY, write_tiny_study

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.registry import Registry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

ELSEWHERE = {
    "docs/audit.md": "tests/audit/test_example.py",
    "docs/index.md": "tests/site/test_first_page.py",
    "docs/when_figures_look_wrong.md": "tests/checking/test_documented.py",
}
"""Page → the test that runs its blocks."""

PARTS = {"docs/models_and_tasks.md": "tests/study/test_documented.py"}
"""Page → the test that completes the parts of study files on it and checks them as studies."""

REGISTRIES: tuple[Registry[Any], ...] = (
    ATTACKS, ENSEMBLE_ALGORITHMS, INPUTS, FILTERS, CAUSES, METHODS, CORRECTIONS, DEFENSES, LISTENERS, SEARCHES, TABLES,
    TASK_KINDS,
)  # fmt: skip
"""What pages add to, and installed packages."""

CONTINUES, PART = "# continues the snippet above", "# part of study.yaml"

CHEAP = {"claims", "compare", "list", "plan", "report", "validate"}
"""Commands that run; the others, which train or attack, are parsed."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: from the repository's root.
        line: of the page.
        kind: its language; empty for commands.
        text: what is in it.
    """

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    content = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(.*)\n((?s:.*?))^```$", content, re.M)
    name = str(page.relative_to(ROOT))
    return [Block(name, content.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
OWN = [block for block in BLOCKS if block.page not in ELSEWHERE]


def of_kind(*kinds: str) -> Any:
    chosen = [block for block in OWN if block.kind in kinds]
    return pytest.mark.parametrize("block", chosen, ids=str)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models, images and finished runs, under the names of the pages."""
    folder = tmp_path_factory.mktemp("pages")
    for number, name in enumerate(("", "_stanford-cars")):
        save_clip(folder / f"clip-vit-base-patch32{name}", seed=number, context=77)
    (folder / "openai").mkdir()
    (folder / "tanganke").mkdir()
    (folder / "clip-vit-base-patch32").rename(folder / "openai" / "clip-vit-base-patch32")
    (folder / "clip-vit-base-patch32_stanford-cars").rename(
        folder / "tanganke" / "clip-vit-base-patch32_stanford-cars"
    )
    write_folder(folder / "photos", {"": 6}, names=("cat", "dog"))
    tower = mr.load_encoder(str(folder / "openai" / "clip-vit-base-patch32")).state()
    save_file({name: tensor.contiguous() for name, tensor in tower.items()}, folder / "my_expert.safetensors")
    for name in ("our-expert", "merged"):
        save_clip(folder / name, seed=2, context=77)
    for name in (
        "google/vit-base-patch16-224-in21k",
        "experts/cars",
        "org/vit-eurosat@v1.0",
        "experts/mnist-lora",
    ):
        save_classifier(folder / name, "vit")
    methods = [{"method": "adamerging", "steps": 2, "batch_size": 4}, "ties", "ties+surgery"]
    methods[2] = {"method": "ties+surgery", "surgery": {"steps": 2}}
    save_classifier(folder / "base", "vit")
    example = folder / "examples" / "audit" / "material"
    write_folder(example / "photos", {"": 6}, names=CLASSES)
    for seed, name in enumerate(("base", "experts/traffic_signs", "experts/street_numbers")):
        save_classifier(example / name, "vit", seed=seed)
    study = write_tiny_study(
        folder,
        Path("base"),
        name="study",
        merging=methods,
        attacks=["fgsm"],
        experts={"fine_tune": {"epochs": 1, "batch_size": 16}},
        budgets={"epsilon": ["2/255", "4/255"], "steps": 2},
    )
    result = mr.run(study, folder / "runs" / "study", progress=False)
    for name in ("starter", "a", "b", "first", "second", "real-small-two-cores"):
        shutil.copytree(result.folder, folder / "runs" / name, ignore=shutil.ignore_patterns("store"))
    shutil.copy(result.folder / "results.csv", folder / "rates.csv")
    study.unlink()
    shutil.copy(folder / "stripes.npz", folder / "my_task.npz")
    (folder / "my_package").mkdir()
    (folder / "my_package" / "models.py").write_text("def predict(images):\n    return [0] * len(images)\n")
    for block in OWN:
        if block.kind == "yaml" and (name := re.match(r"# (\w+\.yaml)\n", block.text)):
            # The hub's are named; another test serves them.
            (folder / name[1]).write_text(block.text.replace("tasks: [mnist, ", "tasks: ["))
    claims = next(block for block in OWN if block.page == "docs/claims.md" and block.kind == "yaml")
    (folder / "mine.yaml").write_text(claims.text)
    return folder


@pytest.fixture
def place(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the material, as the current folder."""
    shutil.copytree(material, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MY_TOKEN", "secret")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "my_package":
            del sys.modules[name]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One epoch of fine-tuning, a server that leaves the test running, and what the pages register taken back."""
    recipe = dataclasses.replace(mr.FineTuning(), epochs=1)
    monkeypatch.setattr(
        sys.modules[mr.fine_tune.__module__],
        "FineTuning",
        lambda **changes: dataclasses.replace(recipe, **changes),
    )
    stand_in_for_torchattacks(monkeypatch)
    servers: list[http.server.HTTPServer] = []

    class Server(http.server.HTTPServer):
        def __init__(self, address: Any, handler: Any) -> None:
            handler.log_message = lambda *_: None
            super().__init__((address[0], 0), handler)
            servers.append(self)

        def serve_forever(self, poll_interval: float = 0.05) -> None:
            serve = super().serve_forever
            threading.Thread(target=serve, args=(poll_interval,), daemon=True).start()

    monkeypatch.setattr(http.server, "HTTPServer", Server)
    before = [(registry, set(registry.names())) for registry in REGISTRIES]
    yield
    for registry, known in before:
        for name in set(registry.names()) - known:
            registry.unregister(name)
    for server in servers:
        images = mr.load_task("digits").test.images[:4] * 0 + 0.9
        target = HttpTarget(f"http://127.0.0.1:{server.server_port}/", ["dark", "bright"], queries=Queries(4))
        assert target.predict(images).tolist() == [1] * 4
        server.shutdown()
        server.server_close()


def test_a_finished_run_is_read_and_judged_in_python(place: Path) -> None:
    run = place / "runs" / "study"
    before = {file: file.stat().st_mtime_ns for file in run.iterdir()}
    found = mr.load_run(run)
    pd.testing.assert_frame_equal(found.outcomes, pd.read_parquet(run / "outcomes.parquet"))
    assert len(found.rates) == len(pd.read_csv(run / "results.csv"))
    assert re.fullmatch(r"StudyResult\('.*study': \d+ settings, \d+ outcomes\)", repr(found))
    verdicts = mr.claims(run, "mine.yaml")
    assert [verdict.name for verdict in verdicts[-5:]] == ["surgery_safer", "half", "order", "accurate", "safest"]
    assert not len(mr.compare(run, place / "runs" / "a").only)
    assert {file: file.stat().st_mtime_ns for file in run.iterdir()} == before
    study = mr.load_study(run / "study.yaml")
    planned, _ = mr.plan(study)
    assert re.fullmatch(r"Plan\('study': \d+ stages, \d+ sweeps\)", repr(planned))
    assert len(mr.validate(study).stages) == len(planned.stages)


def test_every_benchmark_is_named_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    scripts = {script.name for script in (ROOT / "benchmarks").glob("*.py")} - {
        "idle_stages.py"
    }  # others import it
    assert {name for name in scripts if f"benchmarks/{name}" not in text} == set()


def snippets(page: str) -> list[tuple[Block, bool]]:
    """The Python of a page, and whether each goes on from the one before."""
    chosen = [block for block in OWN if block.kind == "python" and block.page == page]
    return [(block, block.text.startswith(CONTINUES)) for block in chosen]


def test_every_block_is_accounted_for() -> None:
    assert len(BLOCKS) > 60
    for block in OWN:
        assert block.kind in {"", "console", "json", "markdown", "python", "text", "toml", "yaml"}, str(block)
    for test in (*ELSEWHERE.values(), *PARTS.values()):
        assert (ROOT / test).is_file()
    assert set(ELSEWHERE) | set(PARTS) <= {block.page for block in BLOCKS}
    for page in {block.page for block in OWN if block.kind == "python"}:
        assert not snippets(page)[0][1], f"{page}: its first snippet has nothing to continue"


@pytest.mark.parametrize("page", sorted({block.page for block in OWN if block.kind == "python"}))
@pytest.mark.usefixtures("quick")
def test_python_runs_as_pasted(page: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    names: dict[str, Any] = {}
    for block, continues in snippets(page):
        names = names if continues else {"__name__": "__main__"}
        exec(compile("\n" * block.line + block.text, block.page, "exec", dont_inherit=True), names)
    if page == "README.md":
        assert re.search(r"4/255 .*\[.*\] of \d+", capsys.readouterr().out)


@of_kind("yaml")
def test_yaml_is_what_it_says(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load(block.text)
    if block.text.startswith(PART):
        if block.page not in PARTS:
            rest = {"tasks": ["digits", "letters"], "merging": ["weight_averaging"], "attacks": ["fgsm"]}
            rest |= {"backbone": "starter-vit", "budgets": STUDY["budgets"]}
            (place / "perturbation.npy").touch()
            parse_study(rest | content, place)
    elif "merged" in content or "candidates" in content:
        (place / "audit.yaml").write_text(block.text)
        mr.load_audit(place / "audit.yaml").to_study()
    elif "claims" in content:
        (place / "claimed.yaml").write_text(block.text)
        assert load_claims(place / "claimed.yaml")
    elif "method" in content:
        (place / "here").mkdir()
        monkeypatch.chdir(place / "here")
        for name in ("google", "org"):
            Path(name).symlink_to(place / name)
        (place / "here" / "recipe.yaml").write_text(block.text)
        assert load_recipe(Path("recipe.yaml")).method == "ties"
    else:
        (place / "whole.yaml").write_text(block.text)
        assert mr.load_study(place / "whole.yaml").task_names


@of_kind("json")
def test_json_is_json(block: Block) -> None:
    assert isinstance(json.loads(block.text), dict)


@of_kind("toml")
def test_entry_points_are_of_groups_that_are_read(block: Block) -> None:
    groups = {registry.group for registry in REGISTRIES}
    points = tomllib.loads(block.text)["project"]["entry-points"]
    assert set(points) <= groups
    # What is installed is what the page writes, under the name that it registers.
    source = "\n".join(snippet.text for snippet, _ in snippets(block.page))
    for names in points.values():
        for name, place in names.items():
            assert f'.register("{name}"' in source
            assert re.search(rf"class {place.partition(':')[2]}[(:]", source)


def commands(block: Block) -> list[str]:
    lines = block.text.splitlines()
    if block.kind == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    parts = [part for line in lines for part in line.partition(" #")[0].split("&&")]
    return [re.sub(r" > \S+$", "", part.strip()) for part in parts if part.strip()]


@of_kind("", "console")
def test_commands_run_or_are_understood(block: Block, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands(block)
    for command in commands(block):
        program, *words = shlex.split(command)
        if program == "docker":
            assert words[0] in {"build", "run"}, command
            assert (ROOT / "Dockerfile").is_file()
            words = words[words.index("mergerisk") + 1 :] if words[0] == "run" else []
            if words:
                cli.commands[words[0]].make_context(words[0], words[1:])
        elif program == "mergerisk" and words[0] in CHEAP:
            code, out, err = call(capsys, *words)
            assert code == 0, (command, err)
            assert out, command
        elif program == "mergerisk":
            cli.commands[words[0]].make_context(words[0], words[1:])
        elif program == "python":
            source = (ROOT / words[0]) if (ROOT / words[0]).exists() else None
            text = source.read_text() if source else snippets(block.page)[0][0].text
            assert all(f'"{word}"' in text for word in words if word.startswith("--")), command
        elif program == "pytest":
            assert all((ROOT / word).exists() for word in words), command
        else:
            assert program == "pip" or command == "mkdocs build", command
            known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert set(re.findall(r"\[([\w-]+)\]", command)) <= set(known), command
    assert (place / "runs").is_dir()
