"""What ``mergerisk causes`` says of what was changed on purpose."""

from __future__ import annotations

import math

from mergerisk.cli.causes_words import describe_moves
from mergerisk.statistics.explaining.moved import Dose, Moved, Moves


def test_changes_and_what_moved_with_them_stand_by_attacker() -> None:
    falls = (Dose("ties@0", 0.0, 1.0, 0.9, 0.0), Dose("ties@1", 1.0, 0.4, 0.5, 4 / 255))
    stays = (Dose("ties", 0.0, 0.4, 0.5, 4 / 255), Dose("ties@placebo", 1.0, 0.9, 0.5, math.inf))
    moves = Moves(
        (
            Moved("ties, path", "pretrained", "gradient_alignment", "moves with", 1, falls),
            Moved("ties@placebo", "pretrained", "gradient_alignment", "does not", 0, stays),
            Moved("ties, path", "pretrained", "cka", "moves with", -1, falls),
            Moved("ties@placebo", "pretrained", "cka", "moves with", 1, stays),
            Moved("ties, path", "pretrained", "diversity", "cannot be told", 0, falls),
            Moved("ties, path", "expert", "diversity", "cannot be told", 0, falls),
        ),
        (),
    )
    parts = [part.splitlines() for part in describe_moves(moves)]
    (title,), base, measures, rest, expert, untold = parts
    assert title == "What moves when one thing about a merge is changed"
    assert base[0].startswith("Attacks made on the pretrained base")
    assert base[3].split() == ["ties,", "path", "ties@0", "0", "90.0%", "below", "all", "budgets"]
    assert base[4].split() == ["ties@1", "1", "50.0%", "4/255"]
    assert base[6].split()[-3:] == ["above", "all", "budgets"]
    assert measures[2].split() == ["cka", "fooled", "less", "or", "fooled", "more", "2", "of", "2", "0"]
    assert measures[3].split() == ["gradient_alignment", "fooled", "more", "1", "of", "2", "1"]
    assert rest == ["Of the other one it cannot be told."]
    assert expert[0].startswith("Attacks made on the task’s own expert")
    assert untold == ["Of all measures it cannot be told."]
