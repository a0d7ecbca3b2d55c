"""What a message advises is followed, once each: what it was about is then no longer wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cli.bad_files import Bad
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
