"""A detector: where alarms begin, what counts as fooled, and attackers on models where the right answer is known."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import mergerisk as mr
from mergerisk.attacks import REJECTED, answers
from mergerisk.defenses import disagreement, gather
from mergerisk.errors import UserError
from mergerisk.transfer import predict, rates, what_happened

STEEP = 20.0


class OneChannel(nn.Module):
    """Whether the mean of one channel exceeds ½: class 1, or else 0."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel
        self.steep = nn.Parameter(torch.tensor(STEEP))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        score = self.steep * (images[:, self.channel].mean(dim=(1, 2)) - 0.5)
        return torch.stack([-score / 2, score / 2], dim=1)


def pictures(count: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Channels that both say the class, at ½ ± 0.1, each with a little noise of its own."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    level = 0.4 + 0.2 * labels[:, None, None, None]
    images = level.expand(count, 3, 4, 4) + 0.02 * torch.randn(count, 3, 1, 1, generator=draws)
    return images.clamp(0, 1), labels


MERGE, BESIDE = OneChannel(0), OneChannel(1)
IMAGES, LABELS = pictures()
CALIBRATION = pictures(200, seed=1)[0]


def detector(false_alarms: float = 0.05) -> mr.attacks.Watched:
    made = mr.defenses.create("detector", false_alarms=false_alarms)
    return made.defend(MERGE, BESIDE, made.threshold(MERGE, BESIDE, CALIBRATION))


def fooled(model: nn.Module, adversarial: torch.Tensor) -> float:
    said = predict(model, adversarial)
    return float(((said != LABELS) & (said != REJECTED)).float().mean())


def test_disagreement_is_half_of_jeffreys_divergence() -> None:
    draws = np.random.default_rng(0)
    one, other = draws.normal(size=(2, 6, 5)) * 3
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (one, other))
    expected = (p * np.log(p / q) + q * np.log(q / p)).sum(axis=1) / 2
    found = disagreement(torch.from_numpy(one), torch.from_numpy(other))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    # Of logits that no exponential holds.
    far = disagreement(torch.tensor([[2000.0, 0.0]]), torch.tensor([[0.0, 2000.0]]))
    assert float(far) == 2000.0


@pytest.mark.parametrize(("alpha", "count"), [(0.05, 200), (0.05, 19), (0.1, 37), (0.25, 3)])
def test_the_threshold_is_the_order_statistic_that_keeps_the_promise(alpha: float, count: int) -> None:
    """Rank ⌈(n + 1)(1 − α)⌉: of n + 1 exchangeable images the new one is above it in α of cases at most."""
    made, images = mr.defenses.create("detector", false_alarms=alpha), CALIBRATION[:count]
    scores = sorted(disagreement(MERGE(images), BESIDE(images)).tolist())
    expected = next(
        score for score in scores if (sum(other > score for other in scores) + 1) / (count + 1) <= alpha + 1e-12
    )
    assert math.isclose(made.threshold(MERGE, BESIDE, images, batch_size=7), expected, rel_tol=1e-6)


def test_fewer_images_than_any_threshold_needs_are_refused() -> None:
    with pytest.raises(UserError, match=re.escape("0.05 false alarms needs 19 calibration images, got 18")):
        mr.defenses.create("detector").threshold(MERGE, BESIDE, CALIBRATION[:18])
    for share in (0, 1, -0.1):
        with pytest.raises(UserError, match="false_alarms"):
            mr.defenses.create("detector", false_alarms=share)


def test_false_alarms_are_as_rare_as_promised() -> None:
    clean = pictures(4000, seed=2)[0]
    share = float((answers(detector(0.2), clean) == REJECTED).float().mean())
    # 200 images set the threshold: its own standard deviation is √(0.2 · 0.8 / 200) = 0.028.
    assert abs(share - 0.2) < 0.1


def test_who_does_not_know_is_caught_and_who_knows_changes_what_both_models_see() -> None:
    """One model sees a channel that the other does not: an attacker of the merge alone leaves the other as it is."""
    model, epsilon = detector(), 0.25
    assert float((predict(model, IMAGES) == LABELS).float().mean()) > 0.85
    for name, given in {
        "pgd": {"steps": 40, "step_size": 0.02},
        "apgd_ce": {"steps": 40},
        "square": {"queries": 300},
    }.items():
        attack = mr.attacks.create(name, **given)
        unaware, knowing = (attack(one, IMAGES, LABELS, epsilon=epsilon) for one in (MERGE, model))
        assert fooled(MERGE, unaware) == 1.0, name
        # Random squares change all channels, so that some get through by chance.
        assert fooled(model, unaware) < (0.5 if name == "square" else 0.05), name
        assert fooled(model, knowing) == 1.0, name
        assert float((knowing - IMAGES).abs().max()) <= epsilon
    change = (mr.attacks.create("pgd", steps=20)(model, IMAGES, LABELS, epsilon=epsilon) - IMAGES).abs()
    assert float(change[:, 1].mean()) > 0.1  # the channel that only the other model sees


def test_beside_itself_it_never_rejects() -> None:
    made = mr.defenses.create("detector")
    model = made.defend(MERGE, MERGE, made.threshold(MERGE, MERGE, CALIBRATION))
    noise = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(answers(model, noise), MERGE(noise).argmax(dim=1))


def test_checks_hear_alarms() -> None:
    model = detector()
    transferred = mr.attacks.create("pgd", steps=10)(MERGE, IMAGES, LABELS, epsilon=0.25)
    found = gather(
        model, model, IMAGES, LABELS, epsilon=0.25, transferred={"unaware": transferred}, steps=10, queries=300
    )
    assert found.white_box is not None
    assert found.queried is not None
    assert found.white_box.all()
    assert found.transferred["unaware"].mean() < 0.05
    assert found.by_epsilon[1.0].all()
    # Who looks at the merge alone would find that it can say nothing at a tenth of the budget, and be right.
    assert len(found.white_box) == int((predict(model, IMAGES) == LABELS).sum()) < len(IMAGES)


def test_a_rejected_image_is_neither_named_rightly_nor_fooled() -> None:
    said = {
        "label": [1, 1, 1, 1],
        "surrogate_clean": [1, 1, 1, 1],
        "surrogate_adversarial": [0, 0, 0, REJECTED],
        "target_clean": [1, 1, REJECTED, 1],
        "target_adversarial": [0, REJECTED, 0, 1],
    }
    names = {"task": "t", "attack": "a", "surrogate": "s", "target": "d", "epsilon": 0.1, "seed": 0, "steps": 1}
    outcomes = pd.DataFrame({**said, "image": range(4), "aimed_at": -1, "l2": 0.0, "zero_gradients": 0}).assign(
        **names
    )
    happened = what_happened(outcomes)
    assert happened.counts.tolist() == [True, True, False, True]
    assert happened.fooled.tolist() == [True, False, False, False]
    assert happened.surrogate_fooled.tolist() == [True, True, False, False]
    (row,) = rates(outcomes).to_dict("records")
    assert (row["asr"], row["clean_accuracy_target"], row["asr_all"]) == (1 / 3, 3 / 4, 2 / 4)
