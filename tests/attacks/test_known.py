"""Gradients that attacks share: what comes is the same to the byte, and fewer are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from mergerisk import attacks
from mergerisk.attacks.known import KnownGradients

if TYPE_CHECKING:
    from mergerisk.attacks import Crafted

ROOM = 2**20
BUDGETS = (2 / 255, 8 / 255)


class Counted(nn.Module):
    """A small smooth classifier that counts the batches which it is asked the gradient of.

    Args:
        draws: whether it adds noise from PyTorch's global generator.
    """

    def __init__(self, *, draws: bool = False) -> None:
        super().__init__()
        seeded = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 3 * 6 * 6, generator=seeded) / 5)
        self.draws = draws
        self.asked = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += images.requires_grad and len(images) > 1  # a single one is the first look
        noise = torch.randn_like(images) / 10 if self.draws else 0.0
        return torch.tanh(torch.sin(4 * images + noise).flatten(1) @ self.weight.T)


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    return torch.rand(5, 3, 6, 6, generator=draws), torch.randint(4, (5,), generator=draws)


def crafted(model: nn.Module, name: str, known: KnownGradients | None, **options: Any) -> list[Crafted]:
    """An attack at every budget, of three steps where it takes several."""
    images, labels = problem()
    size = options.pop("batch_size", None)
    made = attacks.create(name, **({} if name == "fgsm" else {"steps": 3}), **options)
    return [
        made.craft(model, images, labels, epsilon=epsilon, seed=3, batch_size=size, known=known)
        for epsilon in BUDGETS
    ]


def same(one: list[Crafted], other: list[Crafted]) -> bool:
    return all(
        torch.equal(a.adversarial, b.adversarial) and torch.equal(a.zero_gradients, b.zero_gradients)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(("batch_size", "batches"), [(None, 1), (3, 2)])
def test_attacks_share_what_they_begin_with(batch_size: int | None, batches: int) -> None:
    known, model = KnownGradients(ROOM), Counted()
    taken = {}
    for name in ("fgsm", "i_fgsm", "mi_fgsm", "ni_fgsm", "ti_fgsm", "pgd"):
        model.asked = 0
        plain = crafted(model, name, None, batch_size=batch_size)
        without, model.asked = model.asked, 0
        assert same(crafted(model, name, known, batch_size=batch_size), plain)
        assert without == batches * len(BUDGETS) * (1 if name == "fgsm" else 3)
        taken[name] = (without - model.asked) // batches
    # The clean images' at both budgets, of the first attack at the second; I-FGSM's second point is MI-FGSM's.
    assert taken == {"fgsm": 1, "i_fgsm": 2, "mi_fgsm": 4, "ni_fgsm": 2, "ti_fgsm": 2, "pgd": 0}


@pytest.mark.parametrize("options", [{"loss": "margin"}, {"float64_logits": True}, {"targeted": True}])
def test_what_is_another_gradient_is_taken_anew(options: dict[str, Any]) -> None:
    known, model = KnownGradients(ROOM), Counted()
    crafted(model, "mi_fgsm", known)
    plain = crafted(model, "mi_fgsm", None, **options)
    model.asked = 0
    assert same(crafted(model, "mi_fgsm", known, **options), plain)
    assert model.asked == 5  # of six, the clean images' at the second budget


def test_gradients_of_classifiers_that_draw_are_not_kept() -> None:
    known, model = KnownGradients(ROOM), Counted(draws=True)
    plain = crafted(model, "i_fgsm", None)
    model.asked = 0
    assert same(crafted(model, "i_fgsm", known), plain)
    assert model.asked == 2 * 3


def test_attacks_that_change_gradients_on_the_way_keep_theirs() -> None:
    class Reversed(type(attacks.create("i_fgsm"))):  # type: ignore[misc]
        """Its loss falls."""

        def heard(self, classifier: Any, images: torch.Tensor) -> Any:
            return -classifier(images), None

    known, (images, labels) = KnownGradients(ROOM), problem()
    crafted(Counted(), "i_fgsm", known)
    own = Reversed(steps=3)
    found = [own.craft(Counted(), images, labels, epsilon=BUDGETS[0], known=given) for given in (None, known)]
    assert same(found[:1], found[1:])


@pytest.mark.parametrize("where", ["estimate", "perturb"])
def test_attacks_that_change_the_classifier_meanwhile_neither_take_nor_leave_any(where: str) -> None:
    plain = type(attacks.create("i_fgsm"))
    model, (images, labels) = Counted(), problem()

    def changed(self: Any, *given: Any) -> Any:
        """The loss falls, by a hook."""
        hook = model.register_forward_hook(lambda _, __, logits: -logits)
        try:
            return getattr(plain, where)(self, *given)
        finally:
            hook.remove()

    own = type("Changing", (plain,), {where: changed})(steps=3)
    known = KnownGradients(ROOM)
    for _ in range(2):  # nothing is known yet; then all that the plain attack takes is
        found = [own.craft(model, images, labels, epsilon=BUDGETS[0], known=given) for given in (None, known)]
        assert same(found[:1], found[1:])
        assert same(crafted(model, "i_fgsm", known), crafted(model, "i_fgsm", None))


def test_no_more_is_kept_than_there_is_room_for() -> None:
    images, _ = problem()
    pair = 2 * images.nbytes
    known, model = KnownGradients(2 * pair), Counted()
    crafted(model, "i_fgsm", known)
    assert len(known._kept) == 2
    none = KnownGradients(pair - 1)
    crafted(model, "i_fgsm", none)
    assert not none._kept
