"""Gates: how they are written, and what they refuse."""

from __future__ import annotations

import pytest

from mergerisk.audit import parse_gate
from mergerisk.errors import UserError


def test_a_gate_names_a_measure_a_limit_and_where() -> None:
    gate = parse_gate("relative_asr > 0.9 at 4/255 from expert/cars on merged")
    assert (gate.measure, gate.comparison, gate.limit) == ("relative_asr", ">", 0.9)
    assert (gate.epsilon, gate.surrogate, gate.model) == (4 / 255, "expert/cars", "merged")
    assert parse_gate("epsilon50<2/255").limit == 2 / 255
    assert parse_gate("clean_accuracy < 80 %").limit == 0.8
    assert parse_gate("asr >= 50%").limit == 0.5
    assert parse_gate("  asr>5%at 8/255\n from  a%b ").text == "asr>5%at 8/255 from a%b"
    spaced = parse_gate("asr>5%at   8/255 from a%b")
    assert (spaced.limit, spaced.epsilon, spaced.surrogate) == (0.05, 8 / 255, "a%b")


def test_a_gate_holds_as_its_comparison_says() -> None:
    assert parse_gate("asr > 0.5").holds(0.6)
    assert not parse_gate("asr > 0.5").holds(0.5)
    assert parse_gate("asr >= 0.5").holds(0.5)
    assert parse_gate("epsilon50 < 2/255").holds(1 / 255)
    assert not parse_gate("asr > 0.5").holds(float("nan"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write MEASURE > NUMBER"),
        ("relative_asr", "write MEASURE > NUMBER"),
        ("relative_asr = 0.9", "write MEASURE > NUMBER"),
        ("relative_ars > 0.9", "did you mean 'relative_asr'?"),
        ("asr > 90", "asr is a share, from 0 to 1; write 0.9 or 90%"),
        ("clean_accuracy < 101%", "clean_accuracy is a share"),
        ("relative_asr > much", "must be a number or a fraction"),
        ("relative_asr > 0.9 at four", "must be a number or a fraction"),
        ("epsilon50 < 1/255 at 4/255", "belongs to no single budget"),
        ("clean_accuracy < 0.5 from expert", "belongs to no surrogate"),
    ],
)
def test_a_gate_that_cannot_be_understood_says_how_to_write_it(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_gate(text)
    assert message in str(caught.value)
    assert repr(text) in str(caught.value)
