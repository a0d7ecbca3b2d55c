"""Files and options that no run could do anything with: one line each, at once, and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from mergerisk.cli.main import main
from mergerisk.crafting.settings import parse_epsilon, parse_preprocessing, parse_settings
from mergerisk.errors import UserError
from mergerisk.plain_data import check_plain
from mergerisk.statistics.claims.reading import parse_claims
from mergerisk.study import parse_study
from mergerisk.validation import parse_fraction
from tests.cli.bad_files import ADVICE, BAD, FILES, Bad
from tests.tiny import MINIMAL

if TYPE_CHECKING:
    from pathlib import Path


def validated(bad: Bad, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of ``mergerisk validate``, and all that it says."""
    for name in ("base", "a", "b"):
        (folder / name).mkdir()
    (folder / "bad.yaml").write_text(bad.text, encoding="utf-8")
    try:
        main(["validate", str(folder / "bad.yaml"), "--offline"])
    except SystemExit as error:
        return int(error.code or 0), "".join(capsys.readouterr())
    return 0, "".join(capsys.readouterr())


def test_no_case_is_there_twice() -> None:
    assert [name for name, count in Counter(bad.name for bad in BAD).items() if count > 1] == []
    assert len(BAD) > 200


@pytest.mark.parametrize("kind", ["study", "recipe", "claims"])
def test_nothing_else_is_wrong_with_the_files(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert FILES.keys() >= {kind}
    code, said = validated(Bad("good", kind, {}, ""), tmp_path, capsys)
    assert code == 0, said


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_a_bad_file_is_one_line(bad: Bad, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = validated(bad, tmp_path, capsys)
    assert code == 2
    assert said.endswith("\n")
    assert len(said.splitlines()) == 1
    assert bad.said in said
    assert any(re.search(words, said) for words in ADVICE.values()), "advice of no kind that is known, or none"
    assert len(said.replace(str(tmp_path), "")) < 500
    said.encode()  # what is no Unicode is not repeated


HUGE, TINY = "1e999999999", "1e-999999999"


@pytest.mark.parametrize(
    "text", [HUGE, TINY, f"1/{HUGE}", f"{HUGE}/{HUGE}", "1e400", "1e-400", "1e30", "1e-320", "nan", "inf", "", "0", "-1"]
)  # fmt: skip
def test_a_bad_epsilon_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^--epsilon: must be ") as caught:
        parse_epsilon(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8/255", 8 / 255),
        (" 1.5 / 255 ", 1.5 / 255),
        ("0.03", 0.03),
        ("1e-3", 0.001),
        ("1E+2", 100.0),
        ("-1/4", -0.25),
    ],
)
def test_numbers_are_read_exactly(text: str, number: float) -> None:
    assert parse_fraction(text) == number


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (f"steps={'1' * 5000}", "5000 digits for a number"),
        (f"steps=0x{'f' * 500}", "502 digits for a number"),
        ("steps=1000000000000000000000000000000", "64 bits"),
        ("decay=.inf", "must be a finite number"),
        ('name="a\\0"', "U+0000"),
        ('name="\\ud800"', "U+D800"),
        (f"name={'n' * 300}", "300 bytes"),
        ("x={1: 2}", "key 1 must be text"),
        ("x=&a [*a]", "holds itself"),
        (f"x={{a: &a [{'1, ' * 80}], b: &b [{'*a, ' * 80}], c: [{'*b, ' * 80}]}}", "aliases"),
        ("x=" + "[" * 5000, "nested more than 40 deep"),
        ("x=[1", "expected"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_refused(setting: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_settings([setting])
    assert str(caught.value).startswith("--set ")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300
    with pytest.raises(UserError, match=r"^--preprocessing"):
        parse_preprocessing([f"{{mean: {setting.partition('=')[2]}"])


def test_fractions_in_settings_that_are_too_large_stay_text() -> None:
    assert parse_settings([f"scale=1/{HUGE}", "step=1/4"]) == {"scale": f"1/{HUGE}", "step": 0.25}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a\0"}, "name: holds a character that cannot be printed, U+0000"),
        ({"attacks": [{"attack": "fgsm", "label": "\ud800"}]}, "attacks[0].label: holds half of a character, U+D800"),
        ({"heads": {1: "x"}}, "heads: key 1 must be text, as '1'"),
        ({"seeds": [2**70]}, "seeds[0]: is beyond what a whole number may be (64 bits)"),
        ({"budgets": {"epsilon": [float("inf")]}}, "budgets.epsilon[0]: must be a finite number, got inf"),
        ({"description": "x" * 10_001}, "description: 10001 characters; at most 10,000"),
        ({"heads": {"files": {"a": {"b": ["x" * 256]}}}}, "heads.files.a.b[0]: holds a name of 256 bytes"),
    ],
)  # fmt: skip
def test_mappings_from_a_notebook_are_held_to_the_same(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_study({**MINIMAL, **changes})
    assert str(caught.value).startswith(said)


def test_what_holds_itself_is_refused() -> None:
    content: dict[str, object] = {}
    content["claims"] = content
    with pytest.raises(UserError, match="nested more than 40 deep"):
        parse_claims(content)
    shared: list[object] = [1]
    for _ in range(30):
        shared = [shared, shared]
    with pytest.raises(UserError, match="more than 200,000 values"):
        check_plain(shared)


def test_prose_may_be_long_and_holds_no_names() -> None:
    text = "説明" * 1000
    assert parse_study({**MINIMAL, "description": text}).description == text
