"""The Python of ``docs/attack_plugins.md``, as it stands there: it registers, runs and keeps its promises.

Where torchattacks is not installed, a stand-in with its manners takes its place.
"""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mergerisk as mr
from mergerisk.attacks import ATTACKS, FILTERS, INPUTS
from tests.naive.models import small_classifier
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "attack_plugins.md"
EPSILON = 8 / 255


class StandIn:
    """PGD with torchattacks' interface: draws from the global generator and switches the model's mode."""

    def __init__(self, model: nn.Module, eps: float, alpha: float, steps: int) -> None:
        self.model, self.eps, self.alpha, self.steps = model, eps, alpha, steps

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        training = self.model.training
        self.model.eval()
        adversarial = (images + torch.empty_like(images).uniform_(-self.eps, self.eps)).clamp(0, 1)
        for _ in range(self.steps):
            adversarial.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(self.model(adversarial), labels), adversarial)
            moved = adversarial.detach() + self.alpha * gradient.sign()
            adversarial = (images + (moved - images).clamp(-self.eps, self.eps)).clamp(0, 1).detach()
        if training:
            self.model.train()
        return adversarial


def stand_in_for_torchattacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something to import as torchattacks, where it is not installed."""
    if find_spec("torchattacks") is None:
        module = ModuleType("torchattacks")
        module.PGD = StandIn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchattacks", module)


@pytest.fixture(autouse=True)
def _page(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the page registers, for one test."""
    stand_in_for_torchattacks(monkeypatch)
    before = [(registry, set(registry.names())) for registry in (ATTACKS, INPUTS, FILTERS)]
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M))
    try:
        exec(compile(code, str(PAGE), "exec", dont_inherit=True), {"__name__": "__main__"})  # as in a script
        yield
    finally:
        for registry, known in before:
            for name in set(registry.names()) - known:
                registry.unregister(name)


@pytest.fixture
def attacked() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A classifier in training mode, images, and what it says of them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier, images = small_classifier(), torch.rand(6, 3, 16, 16)
    return classifier, images, classifier(images).argmax(dim=1)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("random_signs", {}),
        ("far_sighted", {}),
        ("mi_fgsm", {"inputs": ["mirror"]}),
        ("mi_fgsm", {"gradient": [{"filter": "sharpen", "strength": 0.5}]}),
        ("torchattacks_pgd", {}),
    ],
)
def test_each_example_runs_within_the_budget(
    name: str, parameters: dict[str, object], attacked: tuple[nn.Module, torch.Tensor, torch.Tensor]
) -> None:
    classifier, images, labels = attacked
    adversarial = mr.attacks.create(name, **parameters)(classifier, images, labels, epsilon=EPSILON)
    assert float((adversarial.double() - images.double()).abs().max()) <= EPSILON
    assert not adversarial.equal(mr.attacks.create("mi_fgsm")(classifier, images, labels, epsilon=EPSILON))
    assert all(module.training for module in classifier.modules())
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_the_adapter_is_repeatable_and_leaves_the_global_generator_alone(
    attacked: tuple[nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    classifier, images, labels = attacked
    attack = mr.attacks.create("torchattacks_pgd", steps=4)
    state = torch.random.get_rng_state()
    first = attack(classifier, images, labels, epsilon=EPSILON, seed=3)
    assert torch.random.get_rng_state().equal(state)
    torch.rand(5)
    assert attack(classifier, images, labels, epsilon=EPSILON, seed=3).equal(first)
    assert not attack(classifier, images, labels, epsilon=EPSILON, seed=4).equal(first)
    with torch.no_grad():
        loss = [float(F.cross_entropy(classifier(batch), labels)) for batch in (images, first)]
    assert loss[1] > loss[0]


def test_the_examples_run_in_a_study(tiny_vit: Path, tmp_path: Path) -> None:
    inputs = {"attack": "mi_fgsm", "inputs": ["mirror"], "gradient": ["sharpen"], "label": "mi_mirror_sharpen"}
    attacks = ["torchattacks_pgd", "pgd", "far_sighted", inputs]
    less = {"merging": ["weight_averaging"], "surrogates": ["expert"]}
    less["budgets"] = {"epsilon": ["8/255"], "steps": 3}
    study = write_tiny_study(tmp_path, tiny_vit, attacks=attacks, **less)
    results = mr.run(study, tmp_path / "run").rates
    assert set(results["attack"]) == {"torchattacks_pgd", "pgd", "far_sighted", "mi_mirror_sharpen"}
    # The same attack written twice, from other random starts.
    fooled = results.groupby("attack", observed=True)["surrogate_asr"].mean()
    assert fooled["torchattacks_pgd"] == pytest.approx(fooled["pgd"], abs=0.1)
    assert (results.loc[results["attack"] == "torchattacks_pgd", "images"] == 12).all()
