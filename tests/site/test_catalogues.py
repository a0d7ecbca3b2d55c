"""Pages that are written from the code: every name has one, and what they say to write is right."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mergerisk.attacks import ATTACKS
from mergerisk.causes import CAUSES
from mergerisk.defenses import DEFENSES
from mergerisk.merging import METHODS
from mergerisk.study import parse_study
from tests.test_pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STUDY: dict[str, Any] = {
    "backbone": "starter-vit",
    "tasks": ["digits", "letters"],
    "merging": ["ties"],
    "attacks": ["fgsm"],
    "budgets": {"epsilon": ["2/255"]},
}


@pytest.fixture(scope="module")
def scripts() -> Iterator[None]:
    """The site's scripts can be imported, as MkDocs imports them."""
    folder = str(ROOT / "scripts" / "docs_site")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def pages(scripts: None) -> Mapping[str, str]:  # noqa: ARG001
    import catalogues

    return dict(catalogues.pages())


def test_every_name_has_a_page_with_its_hyper_parameters_and_source(pages: Mapping[str, str]) -> None:
    for folder, registry in {
        "methods": METHODS,
        "attacks": ATTACKS,
        "causes": CAUSES,
        "defenses": DEFENSES,
    }.items():
        for entry in registry.entries():
            assert entry.distribution or f"{folder}/{entry.name}.md" in pages
    ties = pages["methods/ties.md"]
    assert "[arXiv 2306.01708](https://arxiv.org/abs/2306.01708)" in ties
    assert re.search(r"^\| `density` \| `0.2` \| a number in \(0, 1\] \| share of entries kept", ties, re.M)
    assert re.search(r"^\| `variant` \| `mean` \| `mean`, `sum` \| ", ties, re.M)
    assert "| what it computes | trim, elect signs, mean of what agrees |" in ties
    assert "class Ties(StateMerging):" in ties
    assert "| `epsilon` | `8/255` | a budget: " in pages["defenses/pubdef.md"]
    assert "| `file` | *required* | a text |" in pages["attacks/universal.md"]
    assert "| equation | max over a of L(θ(a))" in pages["causes/loss_barrier.md"]


def test_what_they_say_to_write_is_taken(pages: Mapping[str, str], tmp_path: Any) -> None:
    (tmp_path / "perturbation.npy").touch()
    for address, text in pages.items():
        (study,) = re.findall(r"```yaml\n# part of study.yaml\n(.*?)```", text, re.S)
        parse_study(STUDY | yaml.safe_load(study), tmp_path)
        for snippet in re.findall(r"^```python\n(import mergerisk.*?)```", text, re.S | re.M):
            if address == "attacks/universal.md":
                continue  # reads its file, which a test of its own has
            names: dict[str, Any] = {}
            exec(compile(snippet, address, "exec"), names)
            assert names["made"] is not None


def test_links_lead_where_the_site_has_files(scripts: None) -> None:  # noqa: ARG001
    import links

    found = links.Elsewhere()
    text = "[a](attacks.md#x) [b](../tests/plugin_package) [c](../SECURITY.md) [d](https://e.org) [n](t/n.ipynb)"
    assert links.replaced(text, "docs/reliability.md", "reliability.md", found) == (
        "[a](attacks.md#x) [b](project/files/tests-plugin_package.md) [c](project/security.md) [d](https://e.org) "
        "[n](t/n.md)"
    )
    assert found.pages == {"tests/plugin_package": "project/files/tests-plugin_package.md"}
    text = "[a](docs/results/causes.md#both)"
    assert links.replaced(text, "SECURITY.md", "project/security.md", found) == "[a](../results/causes.md#both)"
    # A part of a page that is shown on another leads back to where its heading stands.
    assert links.replaced("[a](#both)", "docs/attacks.md", "attacks.md", found) == "[a](#both)"
    assert links.replaced("[a](#both)", "docs/attacks.md", "attacks/stm.md", found) == "[a](../attacks.md#both)"
    assert "## mergerisk_plugin" in links.shown("tests/plugin_package") or "## " in links.shown(
        "tests/plugin_package"
    )


def test_a_picture_gives_way_to_the_one_for_the_dark_beside_it(scripts: None) -> None:  # noqa: ARG001
    import links

    kept = "![b](../images/causes.png) [c](../images/report.png)\n```\n![a](../images/report.png)\n```\n"
    text = "![a](../images/report.png){ width=3 } " + kept
    light, dark = "![a](../images/report.png#only-light)", "![a](../images/report-dark.png#only-dark)"
    assert links.with_dark(text, "docs/start/compare.md") == f"{light}{{ width=3 }}{dark}{{ width=3 }} {kept}"


def test_ranges_are_said_in_words(scripts: None) -> None:  # noqa: ARG001
    from catalogues import values

    number = {"type": "number"}
    assert values(number | {"minimum": 0, "maximum": 1}) == "a number in [0, 1]"
    assert values(number | {"exclusiveMinimum": 0}) == "a number above 0"
    assert values({"type": "integer", "exclusiveMinimum": 0, "maximum": 10**9}) == "a whole number above 0"
    assert values({"anyOf": [number, {"type": "null"}]}) == "a number, or nothing"
    assert values({"type": "array", "items": number}) == "a list of: a number"
    assert values({"enum": ["a", 1]}) == "`a`, `1`"
