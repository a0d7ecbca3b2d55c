"""Attacks of TransferAttack and this package's, side by side: same models, images, budget, steps and numbers of
gradients; success white box and on two other models, as a Markdown table.

    python benchmarks/public_code.py DIR --transferattack CHECKOUT [names]
    python benchmarks/public_code.py DIR --transferattack CHECKOUT --exact    # nothing drawn: equal pixels

DIR holds vit-tiny-patch16-224/ (as transformers saves it), mobilenet-v2/ and tasks/eurosat.npz. CHECKOUT is a
clone of github.com/Trustworthy-AI-Group/TransferAttack, which imports timm, torchvision, scipy and pandas. Its
code runs unchanged, but for where it looks for models, and for ``.cuda()``, which does nothing here. The
surrogate is timm's ViT with those weights under a linear probe, unfused, so that TransferAttack's hooks on
attention fire; the others are that ViT fine-tuned on the task, and MobileNetV2 under a linear probe. Images are
the first of the test split that all three classify correctly; intervals are Wilson's, of 95 %.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import itertools
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import mergerisk as mr
from mergerisk.statistics import wilson_interval
from mergerisk.validation import parse_fraction

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.tasks.task import Task

SIDE = 96
FORMS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "mi_fgsm": ("gradient.mifgsm:MIFGSM", {}, "mi_fgsm", {}),
    "sia": ("input_transformation.sia:SIA", {"num_scale": 3}, "sia", {"patchworks": 3}),
    "emi_fgsm": ("gradient.emifgsm:EMIFGSM", {"num_sample": 3}, "emi_fgsm", {"samples": 3}),
    "mef": ("gradient.mef:MEF", {"num_neighbor": 3, "epoch": 10}, "mef", {"neighbours": 3}),
    "decowa": ("input_transformation.decowa:DeCowA", {"num_warping": 2}, "decowa", {"warps": 2}),
    "awt": ("model_related.awt:AWT", {"num_neighbor": 1}, "awt", {"neighbours": 1}),
    "fpr": ("model_related.fpr:FPR", {}, "fpr", {}),
    "l2t": (
        "input_transformation.l2t:L2T",
        {"num_scale": 1},
        "l2t",
        {"chains": 30, "leave_out": ["spectrum", "crop"]},
    ),
}
"""Name → TransferAttack's class and hyper-parameters, and this package's. Without operations of one size, a chain
of L2T's code costs 29.7 gradients on average."""
ONE_SIZE = {"ssm", "crop"}
"""Operations of L2T's code that take images of 224 pixels alone; left out on either side."""
EXACT: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mi_fgsm": ("gradient.mifgsm:MIFGSM", {}, {}),
    "emi_fgsm": ("gradient.emifgsm:EMIFGSM", {"num_sample": 3}, {"samples": 3}),
    "mef": ("gradient.mef:MEF", {"num_neighbor": 2, "gamma": 0.0}, {"neighbours": 2, "radius": 0.0}),
    "awt": (
        "model_related.awt:AWT",
        {"num_neighbor": 1, "beta": 0.0, "sam_lr": 1e-5},
        {"neighbours": 1, "radius": 0.0, "learning_rate": 1e-5},
    ),
    "fpr": ("model_related.fpr:FPR", {}, {"spread": 0.0}),
}
"""Those that are defined without draws: TransferAttack's class and hyper-parameters, and this package's."""
BATCH = 8
"""Images at a time; FPR's public code takes no other number."""


class Half(nn.Module):
    """Pixels in [0, 1] → [−1, 1], as the ViT wants them."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels - 0.5) / 0.5


def vision_transformer(folder: Path) -> nn.Module:
    """timm's ViT-Ti/16 at 96 px with the weights of the folder, unfused."""
    timm: Any = importlib.import_module("timm")
    saved = {name: part.float() for name, part in load_file(folder / "model.safetensors").items()}

    def part(*names: str) -> torch.Tensor:
        return torch.cat([saved[f"vit.{name}"] for name in names])

    places = part("embeddings.position_embeddings")
    grid = places[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    small = F.interpolate(grid, (SIDE // 16,) * 2, mode="bicubic", antialias=True)
    state = {
        "cls_token": part("embeddings.cls_token"),
        "pos_embed": torch.cat([places[:, :1], small.flatten(2).mT], dim=1),
    }
    for kind in ("weight", "bias"):
        state[f"patch_embed.proj.{kind}"] = part(f"embeddings.patch_embeddings.projection.{kind}")
        state[f"norm.{kind}"] = part(f"layernorm.{kind}")
        for block in range(12):
            old, new = f"encoder.layer.{block}", f"blocks.{block}"
            projections = [f"{old}.attention.attention.{which}.{kind}" for which in ("query", "key", "value")]
            state[f"{new}.attn.qkv.{kind}"] = part(*projections)
            state[f"{new}.attn.proj.{kind}"] = part(f"{old}.attention.output.dense.{kind}")
            state[f"{new}.mlp.fc1.{kind}"] = part(f"{old}.intermediate.dense.{kind}")
            state[f"{new}.mlp.fc2.{kind}"] = part(f"{old}.output.dense.{kind}")
            state[f"{new}.norm1.{kind}"] = part(f"{old}.layernorm_before.{kind}")
            state[f"{new}.norm2.{kind}"] = part(f"{old}.layernorm_after.{kind}")
    model: Any = timm.create_model("vit_tiny_patch16_224", img_size=SIDE, num_classes=0)
    model.load_state_dict(state)
    for block in model.blocks:
        block.attn.fused_attn = False
    evaluating: nn.Module = model.eval()
    return evaluating


def probed(features: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> nn.Linear:
    """A linear layer that names the classes of features, by logistic regression."""
    with torch.no_grad():
        seen = torch.cat([features(some) for some in images.split(100)])
    mean, std = seen.mean(dim=0), seen.std(dim=0) + 1e-6
    head = nn.Linear(seen.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head((seen - mean) / std), labels) + 5e-4 * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        head.weight.div_(std)
        head.bias.sub_(head.weight @ mean)
    return head


def tuned(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor) -> nn.Sequential:
    """The model after one epoch on the task."""
    optimizer = torch.optim.AdamW(model.parameters(), 5e-5)
    for some in torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).split(32):
        optimizer.zero_grad()
        F.cross_entropy(model(images[some]), labels[some]).backward()
        optimizer.step()
    return model


def sized(images: torch.Tensor) -> torch.Tensor:
    """Images as large as the ViT wants them."""
    return F.interpolate(images.float(), (SIDE, SIDE), mode="bilinear", antialias=True).clamp(0, 1)


def task_of(folder: Path) -> Task:
    """EuroSAT."""
    return mr.load_tasks(str(folder / "tasks" / "eurosat.npz"))["eurosat"]


def test_images(folder: Path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first images of the test split, and their labels."""
    split = task_of(folder).test
    return sized(split.images[:count]), split.labels[:count]


def settings(folder: Path, count: int) -> tuple[dict[str, nn.Sequential], torch.Tensor, torch.Tensor]:
    """The models, and images that all of them classify correctly, with labels."""
    sys.path.append(str(folder / "mobilenet-v2"))
    train = task_of(folder).train
    images, labels = sized(train.images[:800]), train.labels[:800]
    body = importlib.import_module("mobilenet_v2").encoder()
    body.load_state_dict(load_file(folder / "mobilenet-v2" / "mobilenet_v2.safetensors"))
    vit = folder / "vit-tiny-patch16-224"
    first, second = (nn.Sequential(Half(), vision_transformer(vit)) for _ in range(2))
    head = probed(first, images, labels)
    for model in (first, second):
        model[1].head = nn.Linear(head.in_features, head.out_features)
        model[1].head.load_state_dict(head.state_dict())
    models = {
        "ViT-Ti/16": first,
        "fine-tuned": tuned(second, images, labels),
        "MobileNetV2": nn.Sequential(body, probed(body, images, labels)),
    }
    test, truth = test_images(folder, 200)
    right = torch.ones(len(truth), dtype=torch.bool)
    for model in models.values():
        right &= mr.transfer.predict(model.requires_grad_(False).eval(), test) == truth
    return models, test[right][:count], truth[right][:count]


def public(target: str, model: nn.Module, parameters: dict[str, Any]) -> Callable[..., torch.Tensor]:
    """TransferAttack's attack on this model."""
    file, name = target.split(":")
    module: Any = importlib.import_module(f"transferattack.{file}")
    attack: Any = importlib.import_module("transferattack.attack").Attack
    attack.load_model = lambda *_: model
    if name == "L2T":
        module.op_list = [one for one in module.op_list if type(one).__name__ not in ONE_SIZE]
    module.wrap_model = lambda inner: nn.Sequential(Half(), inner)
    made: Callable[..., torch.Tensor] = getattr(module, name)(model_name="vit_base_patch16_224", **parameters)
    return made


def exact(folder: Path) -> None:
    """Print how many pixels of three images are the same after three steps in float64, each image by itself; the
    ViT has a random head.

    FPR's random factors are 1. AWT forgets a step's gradients, which its code adds to those of the next.
    """
    images, labels = test_images(folder, 3)
    torch.manual_seed(0)
    backbone: Any = vision_transformer(folder / "vit-tiny-patch16-224")
    backbone.head = nn.Linear(192, 10)
    torch.set_default_dtype(torch.float64)
    surrogate, epsilon = nn.Sequential(Half(), backbone).double().requires_grad_(False), 8 / 255
    np.random.uniform = lambda _, __, size: np.ones(size)  # type: ignore[assignment]  # as FPR calls it
    for name, (target, theirs, own) in EXACT.items():
        attack = mr.attacks.create(name, steps=3, step_size=epsilon / 10, **own)
        same = []
        for image, label in zip(images.double().split(1), labels.split(1), strict=True):
            copied = copy.deepcopy(surrogate).requires_grad_(name == "awt")
            other: Any = public(target, copied, {"epsilon": epsilon, "alpha": epsilon / 10, "epoch": 3} | theirs)
            if name == "awt":
                step = other.sam.step
                other.sam.step = lambda closure, step=step, sam=other.sam: (step(closure), sam.zero_grad())
            made = (image + other(image, label)).detach()
            same.append((made - attack(surrogate, image, label, epsilon=epsilon)).abs() < 1e-12)
        print(f"{name}: {100 * float(torch.cat(same).double().mean()):.2f} % of pixels", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(FORMS), metavar="name")
    parser.add_argument("--transferattack", type=Path, required=True)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--epsilon", type=parse_fraction, nargs="+", default=[1 / 255, 8 / 255])
    parser.add_argument("--exact", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.append(str(options.transferattack))
    for kind in (torch.Tensor, nn.Module):
        kind.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    if options.exact:
        exact(options.folder)
        return
    models, images, labels = settings(options.folder, options.images)
    print(f"{len(labels)} images\n\n| attack | ε | whose | {' | '.join(models)} |")
    print(f"|---|---|---|{'---|' * len(models)}", flush=True)
    for name, epsilon in itertools.product(options.names, options.epsilon):
        target, theirs, own, parameters = FORMS[name]
        surrogate, step = models["ViT-Ti/16"], epsilon / 10
        attack = mr.attacks.create(own, step_size=step, **parameters)
        ours = attack(surrogate, images, labels, epsilon=epsilon, batch_size=BATCH)
        # A copy, since hooks stay on it, and AWT changes its weights.
        copied = copy.deepcopy(surrogate).requires_grad_(name == "awt")
        other = public(target, copied, {"epsilon": epsilon, "alpha": step} | theirs)
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002  # what they draw from
        random.seed(0)
        batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
        made = torch.cat([(some + other(some, truth)).detach() for some, truth in batches])
        for whose, adversarial in (("TransferAttack", made), ("this package", ours)):
            cells = [rate(model, adversarial, labels) for model in models.values()]
            print(f"| `{name}` | {255 * epsilon:.0f}/255 | {whose} | {' | '.join(cells)} |", flush=True)


def rate(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> str:
    """How many of the images a model mistakes, in percent."""
    fooled = int((mr.transfer.predict(model, images) != labels).sum())
    low, high = wilson_interval(np.array([fooled]), np.array([len(labels)]))
    return f"{100 * fooled / len(labels):.0f} [{100 * low[0]:.0f}, {100 * high[0]:.0f}]"


if __name__ == "__main__":
    main()
