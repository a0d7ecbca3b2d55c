"""What a message advises is followed, once each: what it was about is then no longer wrong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cli.bad_files import ADVICE, Bad
from tests.cli.test_bad_files import validated

if TYPE_CHECKING:
    from pathlib import Path


class Advice(NamedTuple):
    """A file with a fault, and the same as its message says.

    Attributes:
        kind: of the file.
        wrong: field → what is written there, in YAML.
        advised: what the message says to do about it.
        right: the fields when that is done.
    """

    kind: str
    wrong: dict[str, str]
    advised: str
    right: dict[str, str]


CASES = (
    Advice("study", {"merging": "[tiez]"}, "did you mean 'ties'", {"merging": "[ties]"}),
    Advice("study", {"attacks": "[mi_fgms]"}, "did you mean 'mi_fgsm'", {"attacks": "[mi_fgsm]"}),
    Advice("study", {"tasks": "[digit, letters]"}, "did you mean 'digits'", {"tasks": "[digits, letters]"}),
    Advice("study", {"backbone": "starter-vits"}, "did you mean 'starter-vit'", {"backbone": "starter-vit"}),
    Advice("study", {"image_per_task": "5"}, "did you mean 'images_per_task'", {"images_per_task": "5"}),
    Advice("study", {"causes": "[smoothnes]"}, "did you mean 'smoothness'", {"causes": "[smoothness]"}),
    Advice("study", {"defenses": "[{defense: jpg, of: [ties]}]"}, "did you mean 'jpeg'", {"defenses": "[{defense: jpeg, of: [ties]}]"}),
    Advice("study", {"merging": "[{method: ties, scalin: 0.3}]"}, "did you mean 'scaling'", {"merging": "[{method: ties, scaling: 0.3}]"}),
    Advice("study", {"surrogates": "[experts]"}, "did you mean 'expert'", {"surrogates": "[expert]"}),
    Advice("recipe", {"experts": "{1: a, b: b}"}, "as '1'", {"experts": "{'1': a, b: b}"}),
    Advice("recipe", {"method": "tie"}, "did you mean 'ties'", {"method": "ties"}),
    Advice("claims", {"claims": "[{kind: rates, name: n, sentence: s, measure: asr, expect: higher, against: 0.5}]"}, "rate", {"claims": "[{kind: rate, name: n, sentence: s, measure: asr, expect: higher, against: 0.5}]"}),
    Advice("claims", {"claims": "[{kind: rate, name: n, sentence: s, measure: asrr, expect: higher, against: 0.5}]"}, "asr", {"claims": "[{kind: rate, name: n, sentence: s, measure: asr, expect: higher, against: 0.5}]"}),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.advised for case in CASES])
def test_advice_helps(case: Advice, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for name, fields in (("wrong", case.wrong), ("right", case.right)):
        (tmp_path / name).mkdir()
        said[name] = validated(Bad("", case.kind, fields, ""), tmp_path / name, capsys)
    code, line = said["wrong"]
    assert (code, len(line.splitlines())) == (2, 1), line
    assert case.advised in line
    assert said["right"][0] == 0, said["right"]


def _claim(kind: str) -> dict[str, str]:
    return {"claims": f"[{{kind: {kind}, name: n, sentence: s, measure: asr, expect: higher, against: 0.5}}]"}


def _budget(epsilon: str, norm: str = "linf") -> dict[str, str]:
    return {"budgets": f"{{epsilon: [{epsilon}], norm: {norm}}}"}


def _aliases(levels: int) -> str:
    """A list that stands for 9 to the power of so many values."""
    lists = [f"&x{level} [{', '.join([f'*x{level - 1}' if level else '1'] * 9)}]" for level in range(levels)]
    return f"[{', '.join(lists)}]"


FOLLOWED: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "a key is text": ("recipe", {"experts": "{1: a, b: b}"}, {"experts": "{'1': a, b: b}"}),
    "what is known": ("claims", _claim("[[x]]"), _claim("rate")),
    "no alias holds itself": ("study", {"merging": "&m [ties, *m]"}, {"merging": "&m [ties]"}),
    "fewer values": ("study", {"seeds": _aliases(6)}, {"seeds": "[0, 1, 2]"}),
    "less deep": ("study", {"heads": "{a: " + "[" * 150 + "]" * 150 + "}"}, {"heads": "{regularization: 2}"}),
    "characters": ("study", {"name": r'"a\0b"'}, {"name": "ab"}),
    "names of files": ("study", {"merging": f"[{{method: ties, label: {'n' * 256}}}]"}, {"merging": f"[{{method: ties, label: {'n' * 255}}}]"}),
    "names of folders": ("study", {"name": "猫" * 67}, {"name": "猫" * 66}),
    "texts": ("study", {"description": "x" * 10_001}, {"description": "x" * 10_000}),
    "numbers": ("study", _budget("1e400"), _budget("8/255")),
    "digits": ("study", {"images_per_task": "1" * 5000}, {"images_per_task": "100"}),
    "finite numbers": ("study", {"experts": "{fine_tune: {learning_rate: .inf}}"}, {"experts": "{fine_tune: {learning_rate: 0.1}}"}),
    "whole numbers": ("study", {"seeds": f"[{2**64}]"}, {"seeds": f"[{2**32 - 1}]"}),
    "from and to": ("study", _budget("1e30", "l2"), _budget("10000", "l2")),
    "more than nothing": ("study", _budget("0"), _budget("1e-9")),
    "at least": ("study", {"preprocessing": "{mean: [0, 0, 0], std: [1.0e-7, 1, 1]}"}, {"preprocessing": "{mean: [0, 0, 0], std: [0.000001, 1, 1]}"}),
    "at most": ("study", {"heads": "{regularization: 1000000001}"}, {"heads": "{regularization: 1000000000}"}),
    "how many": ("study", _budget(", ".join(f"{i}/2000" for i in range(1, 1002))), _budget(", ".join(f"{i}/2000" for i in range(1, 1001)))),
    "lower": ("study", {"merging": "[{method: task_arithmetic, scaling: 1.0e+300}]"}, {"merging": "[{method: task_arithmetic, scaling: 1.0e+30}]"}),
}  # fmt: skip
"""Kind of advice → a file that is given it, and the same as the advice says: at the limit, where it names one."""


def test_every_kind_of_advice_in_the_table_is_followed() -> None:
    assert FOLLOWED.keys() == ADVICE.keys()


@pytest.mark.parametrize("kind", FOLLOWED)
def test_following_it_leaves_nothing_wrong(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, wrong, right = FOLLOWED[kind]
    for name, fields, expected in (("wrong", wrong, 2), ("right", right, 0)):
        (tmp_path / name).mkdir()
        code, said = validated(Bad("", file, fields, ""), tmp_path / name, capsys)
        assert code == expected, said
        assert bool(re.search(ADVICE[kind], said)) == (name == "wrong"), said
