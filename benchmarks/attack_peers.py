"""The same attacks by other libraries, on one model and the same images, in turns: seconds per gradient.

    python benchmarks/attack_peers.py --install     # fetches the libraries into a folder of its own
    python benchmarks/attack_peers.py               # those that are there

Peers are torchattacks, foolbox, adv-lib and the loop that public transfer code repeats, written out naively;
one that cannot be imported is left out, and said to be. ViT-Ti/16 at 224 px with random weights, one thread,
processor time. Every number is the least of several rounds, in which all take turns; the ratio is over the same
gradients in plain PyTorch. Peers check less of what they are given, and none keeps what the tables are made of.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

import mergerisk as mr
from attacks import CLASSES, Clock, gradient, vit

if TYPE_CHECKING:
    from collections.abc import Callable

    Craft = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

EPSILON, STEP, STEPS = 8 / 255, 2 / 255, 5
NAMES = ("i_fgsm", "pgd", "mi_fgsm", "ni_fgsm", "ti_fgsm", "di_fgsm")
PEERS = ("torchattacks", "foolbox", "adv_lib")


def published_loop(classifier: Any, name: str) -> Craft | None:
    """The loop of public code, a gradient a step and nothing saved: parameters take part in the graph."""
    decay = 0.0 if name in {"i_fgsm", "pgd"} else 1.0
    if name not in {"i_fgsm", "mi_fgsm", "ni_fgsm"}:
        return None

    def craft(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        classifier.requires_grad_(True)
        change, momentum = torch.zeros_like(images), torch.zeros_like(images)
        for _ in range(STEPS):
            change = change.detach().requires_grad_()
            ahead = STEP * decay * momentum if name == "ni_fgsm" else 0.0
            loss = F.cross_entropy(classifier(images + change + ahead), labels)
            (found,) = torch.autograd.grad(loss, change)
            momentum = momentum * decay + found / found.abs().mean(dim=(1, 2, 3), keepdim=True)
            change = (change + STEP * momentum.sign()).clamp(-EPSILON, EPSILON)
            change = (images + change).clamp(0, 1) - images
        classifier.requires_grad_(False)
        return (images + change).detach()

    return craft


def of_torchattacks(library: Any, classifier: Any, name: str) -> Craft | None:
    """torchattacks' attack of the same name."""
    sizes = {"eps": EPSILON, "alpha": STEP, "steps": STEPS}
    known = {
        "i_fgsm": ("BIM", {}),
        "pgd": ("PGD", {}),
        "mi_fgsm": ("MIFGSM", {}),
        "ni_fgsm": ("NIFGSM", {}),
        "ti_fgsm": ("TIFGSM", {"diversity_prob": 0.0}),
        "di_fgsm": ("DIFGSM", {}),
    }
    kind, further = known[name]
    made: Craft = getattr(library, kind)(classifier, **sizes, **further)
    return made


def of_foolbox(library: Any, classifier: Any, name: str) -> Craft | None:
    """foolbox's, crafting alone: its own measure of success is left out."""
    kinds = {
        "i_fgsm": library.attacks.LinfBasicIterativeAttack,
        "pgd": library.attacks.LinfProjectedGradientDescentAttack,
        "mi_fgsm": library.attacks.LinfMomentumIterativeFastGradientMethod,
    }
    if name not in kinds:
        return None
    attack = kinds[name](abs_stepsize=STEP, steps=STEPS)
    model = library.PyTorchModel(classifier, bounds=(0, 1))

    def craft(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = attack.run(model, images, library.criteria.Misclassification(labels), epsilon=EPSILON)
        return made

    return craft


def of_adv_lib(library: Any, classifier: Any, name: str) -> Craft | None:
    """adv-lib's PGD, of the cross-entropy."""
    if name != "pgd":
        return None

    def craft(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = library.attacks.pgd_linf(
            classifier, images, labels, ε=EPSILON, steps=STEPS, absolute_step_size=STEP, loss_function="ce"
        )
        return made

    return craft


def imported(names: tuple[str, ...]) -> dict[str, Any]:
    """The libraries that are there; of the others a line says why not."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.import_module(name)
            importlib.import_module(f"{name}.attacks")
        except ImportError as error:
            found.pop(name, None)
            print(f"{name} is left out: {error}")
    return found


def install() -> None:
    """Fetch the libraries, and nothing that they depend on, into a new folder that is imported from."""
    folder = tempfile.mkdtemp(prefix="attack-peers-")
    wanted = ["torchattacks", "foolbox", "eagerpy", "adv-lib"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, *wanted], check=True
    )
    sys.path.append(folder)


def main() -> None:
    """Measure in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"attacks, of {', '.join(NAMES)}")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.install:
        install()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    there = imported(PEERS)
    makers = {"torchattacks": of_torchattacks, "foolbox": of_foolbox, "adv_lib": of_adv_lib}
    classifier, clock = vit().eval(), Clock("cpu")
    images = torch.rand(options.batch, 3, 224, 224)
    labels = torch.arange(options.batch) % CLASSES
    columns = ["mergerisk", "published loop", *there]
    print("".join([f"{'attack':10}{'plain PyTorch':>16}", *(f"{column:>22}" for column in columns)]))
    for name in options.names or NAMES:
        attack = mr.attacks.create(name, steps=STEPS, step_size=STEP)
        crafts: dict[str, Craft | None] = {
            "mergerisk": partial(attack, classifier, epsilon=EPSILON),
            "published loop": published_loop(classifier, name),
            **{peer: makers[peer](library, classifier, name) for peer, library in there.items()},
        }
        best = dict.fromkeys(["limit", *crafts], float("inf"))
        gradient(classifier, images, labels)
        for _ in range(options.rounds):
            best["limit"] = min(best["limit"], clock.time(partial(gradient, classifier, images, labels)))
            for who, craft in crafts.items():
                if craft is not None:
                    spent = clock.time(partial(craft, images, labels))
                    best[who] = min(best[who], spent / STEPS)
        cells = (
            "–" if crafts[column] is None else f"{best[column]:.2f} ({best[column] / best['limit']:.2f})"
            for column in columns
        )
        print("".join([f"{name:10}{best['limit']:16.2f}", *(f"{cell:>22}" for cell in cells)]), flush=True)


if __name__ == "__main__":
    main()
