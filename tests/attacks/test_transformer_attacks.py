"""ATT and FPR against naive float64 transcriptions; and that what they change is reached."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mergerisk import attacks
from mergerisk.errors import UserError
from mergerisk.models.inside.attention import AttentionMaps
from tests.attacks.test_hooks import classifier as made
from tests.attacks.test_hooks import hooks
from tests.attacks.test_hooks import images as some_images
from tests.attacks.test_model_attacks import (
    BUDGETS,
    SURROGATES,
    TRANSFORMERS,
    compare,
    craft,
    pictures,
    resnet,
    transcribe,
    vit,
)
from tests.naive import attacks as shared
from tests.naive import transformer_attacks as naive

KNOWN: dict[str, dict[str, Any]] = {
    "vit": {"att": {"patch": 4, "grid": 4}, "fpr": {"blocks": [0, 1, 2, 3]}},
    "clip": {"att": {"patch": 8, "grid": 2}, "fpr": {"blocks": [0, 1, 2]}},
}
"""What the transcriptions need to be told about a surrogate."""
NAMES = ["att", "fpr"]


def check(attack: str, surrogate: str, norm: str, **parameters: Any) -> None:
    """The attack is its transcription, and is not MI-FGSM."""
    made = SURROGATES[surrogate]()
    targets = parameters.pop("targets", None)
    transcribed = {key: value for key, value in parameters.items() if key != "inputs"}
    if "inputs" in parameters:
        transcribed["inputs"] = [shared.scaled(2)]
    problem = (*pictures(), BUDGETS[norm])
    crafted = craft(attack, made.classifier, *problem, targets=targets, targeted=targets is not None, **parameters)
    own = KNOWN[surrogate][attack] | transcribed
    expected = transcribe(getattr(naive, attack), made.network, *problem, targets=targets, **own)
    compare(crafted, expected, made.classifier, *problem)


@pytest.mark.parametrize("surrogate", TRANSFORMERS)
@pytest.mark.parametrize(
    ("norm", "parameters"),
    [
        ("linf", {}),
        ("l2", {}),
        ("l2", {"maps": "weights", "tokens": "inputs"}),
        ("l2", {"attended": 1.0, "taming": 0.9, "adaptation": 0.3, "qkv": 1.0}),
        ("l2", {"least": 0.1, "span": 0.9, "attended": 0.3, "inputs": [{"input": "si", "scales": 2}]}),
    ],
)
def test_att(surrogate: str, norm: str, parameters: dict[str, Any]) -> None:
    check("att", surrogate, norm, **parameters)


@pytest.mark.parametrize("surrogate", TRANSFORMERS)
@pytest.mark.parametrize(
    ("norm", "parameters"),
    [
        ("linf", {}),
        ("l2", {}),
        ("l2", {"blocks": [1], "spread": 3.0, "memory": 0.9, "scale": 0.5}),
        ("l2", {"memory": 0.0, "inputs": [{"input": "si", "scales": 2}]}),
    ],
)
def test_fpr(surrogate: str, norm: str, parameters: dict[str, Any]) -> None:
    check("fpr", surrogate, norm, **parameters)


@pytest.mark.parametrize("name", NAMES)
def test_targeted_by_another_loss(name: str) -> None:
    targets = (pictures()[1] + torch.tensor([1, 3])) % 5
    check(name, "vit", "l2", targets=targets, loss="margin")


def test_the_blocks_of_twelve_are_the_authors() -> None:
    assert attacks.FPR()._chosen(12) == {0, 1, 4, 9, 11}
    assert attacks.FPR()._chosen(24) == {0, 2, 8, 19, 23}


@pytest.mark.parametrize(
    ("name", "kind"), [("att", "vit"), ("att", "dinov2"), ("fpr", "multihead"), ("fpr", "clip")]
)
def test_results_are_an_image_s_own_and_nothing_stays_hooked(name: str, kind: str) -> None:
    """Nor do they depend on what was crafted before."""
    model, (pixels, labels) = made(kind), some_images()
    parameters = {"patch_size": 4} if name == "att" else {}
    attack = attacks.create(name, steps=3, **parameters)
    whole = attack(model, pixels, labels, epsilon=8 / 255)
    torch.testing.assert_close(attack(model, pixels, labels, epsilon=8 / 255, batch_size=1), whole)
    assert torch.equal(attack(model, pixels, labels, epsilon=8 / 255), whole)
    one = attack(model, pixels[[2]], labels[[2]], epsilon=8 / 255, indices=[2])
    torch.testing.assert_close(one, whole[[2]])
    assert hooks(model) == 0


@pytest.mark.parametrize("kind", ["vit", "multihead", "weights"])
def test_fpr_changes_every_chosen_map_fused_or_not(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[Tensor] = []
    plain = attacks.FPR._diverse

    def watched(self: attacks.FPR, maps: Tensor, problem: attacks.Problem) -> Tensor:
        changed.append(plain(self, maps, problem))
        assert float((changed[-1] - maps).detach().abs().max()) > 0.02
        return changed[-1]

    monkeypatch.setattr(attacks.FPR, "_diverse", watched)
    attacks.FPR(steps=2, blocks=(0, 2))(made(kind), *some_images(), epsilon=8 / 255)
    assert len(changed) == 2 * 2


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_att_reaches_every_map_and_token(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mergerisk.attacks import token_tuning

    met: dict[str, int] = {"_tamed_map": 0, "_tamed_tokens": 0}
    for name in met:
        plain = getattr(token_tuning, name)

        def counted(*arguments: Any, name: str = name, plain: Any = plain) -> Tensor:
            met[name] += 1
            return plain(*arguments)

        monkeypatch.setattr(token_tuning, name, counted)
    attacks.ATT(steps=2)(made(kind), *some_images(), epsilon=8 / 255)
    assert met == {"_tamed_map": 2 * 3, "_tamed_tokens": 2 * 3 * 4}, "three blocks: a map; q, k, v and MLP"


def test_blocks_of_an_ensemble_are_those_of_its_members() -> None:
    """Crafting on a model and its copy is crafting on it: variances do not run on from one to the other."""
    problem = (*pictures(), BUDGETS["l2"])
    twice = attacks.Ensemble([vit().classifier, copy.deepcopy(vit().classifier)])
    settings: dict[str, dict[str, Any]] = {"att": {}, "fpr": {"spread": 0.0, "memory": 0.0}}
    for name, parameters in settings.items():
        alone = craft(name, vit().classifier, *problem, **parameters)
        torch.testing.assert_close(craft(name, twice, *problem, **parameters), alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_surrogates_without_what_they_need_are_refused(name: str) -> None:
    images, labels = pictures()
    for surrogate in (
        resnet("basic").classifier,
        attacks.Ensemble([vit().classifier, resnet("basic").classifier]),
    ):
        with pytest.raises(UserError) as caught:
            attacks.create(name)(surrogate, images, labels, epsilon=0.1)
        assert "\n" not in str(caught.value)


def test_a_block_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="blocks 0 to 3, no 4"):
        attacks.create("fpr", blocks=[1, 4])(vit().classifier, *pictures(), epsilon=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_budget_cost_and_precision(name: str) -> None:
    model, (pixels, labels) = made("vit").float(), some_images()
    attack = attacks.create(name, steps=2, precision="bfloat16", inputs=["di", "si"], gradient=["ti"])
    assert attack.gradients_per_image == 10 + (name == "att")
    for norm, epsilon in (("linf", 8 / 255), ("l2", 0.5)):
        crafted = attack.craft(model, pixels.float(), labels, epsilon=epsilon, norm=norm)
        change = (crafted.adversarial.double() - pixels.float().double()).flatten(1)
        sizes = change.abs().amax(dim=1) if norm == "linf" else change.norm(dim=1)
        assert bool((sizes <= epsilon).all())
        assert bool((sizes > epsilon / 4).all())
        assert int(crafted.zero_gradients.sum()) == 0


def test_no_map_is_met_outside() -> None:
    """What is changed within an attack is plain again after it."""
    model, (pixels, labels) = vit().classifier, pictures()
    before = model(pixels)
    for name in NAMES:
        craft(name, model, pixels, labels, BUDGETS["linf"])
    with AttentionMaps(lambda maps: maps) as attention:
        after = model(pixels)
    assert attention.met == 4
    torch.testing.assert_close(after, before)


class Darkness(attacks.Watched):
    """A classifier beside which somebody watches for bright images, and cares for nothing else."""

    def __init__(self, classifier: torch.nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def heard(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier(images), 1e6 * images.mean(dim=(1, 2, 3))


@pytest.mark.parametrize("name", ["pna_patchout", "tgr", *NAMES])
def test_an_attack_that_reaches_attention_hears_the_alarm(name: str) -> None:
    """All that the alarm leaves to do is to darken the image."""
    images, labels = pictures()
    # TGR and ATT change gradients inside the classifier alone, which the alarm does not pass.
    found = craft(name, Darkness(SURROGATES["vit"]().classifier), images, labels, BUDGETS["linf"])
    assert bool((found <= images.to(found)).all())
    assert bool((found < images.to(found)).any())
