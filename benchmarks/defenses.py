"""Time of the defenses at the input against Pillow's, of attackers who know them against their own gradients, and
of training defenses against the same in plain PyTorch.

    python benchmarks/defenses.py                   # 64 pictures of 224 × 224, and of 32 × 32
    python benchmarks/defenses.py --side 224 --rounds 9
    python benchmarks/defenses.py --only training

*Ratio* is the time of a transform, images as float32 tensors in and out, over that of the same job as a plain
loop over Pillow's pictures, both in the same rounds, processor time of one thread; the median over rounds. *Over*
is the time of an attack on the classifier that an attacker crafts on, ViT-Ti/16 with random weights, above that of
the classifier's own gradients in it, timed inside the same run; so the transform's work counts as overhead, and
the line *none* is that of the attack itself. *Plain* is an epoch of a training defense as a script writes it: the
attack's steps and the step of the weights, no more; its ratio too is of the same rounds.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from transformers import ViTConfig, ViTModel

import mergerisk as mr
from mergerisk.defenses import InputDefense, TrainingData
from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.models import Classifier, Encoder, Head
from mergerisk.models.sources.vit import class_token

if TYPE_CHECKING:
    from collections.abc import Callable

CASES: dict[str, dict[str, Any]] = {
    "jpeg": {"quality": 75},
    "median": {},
    "resize_pad": {},
    "bit_depth": {"bits": 4},
}


def compressed(picture: Image.Image) -> Image.Image:
    """Through a JPEG file in memory."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=75)
    return Image.open(file)


def smaller(picture: Image.Image) -> Image.Image:
    """A little smaller, on black."""
    side = picture.size[0]
    canvas, size = Image.new("RGB", picture.size), round(0.95 * side)
    canvas.paste(picture.resize((size, size), Image.Resampling.NEAREST), (1, 1))
    return canvas


PILLOW: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": compressed,
    "median": lambda picture: picture.filter(ImageFilter.MedianFilter(3)),
    "resize_pad": smaller,
    "bit_depth": lambda picture: picture.point([round(round(v * 15 / 255) * 255 / 15) for v in range(256)] * 3),
}
"""The same jobs, picture by picture."""


def by_pillow(name: str, images: torch.Tensor) -> torch.Tensor:
    """What a plain script does: tensor to picture, Pillow, and back."""
    seen = []
    for image in images:
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        changed = np.array(PILLOW[name](Image.fromarray(pixels)))
        seen.append(torch.from_numpy(changed).permute(2, 0, 1).float() / 255)
    return torch.stack(seen)


def processor_time(work: Callable[[], object]) -> float:
    """Seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def transforms(side: int, count: int, rounds: int) -> None:
    """Ratios to Pillow."""
    smooth = torch.nn.functional.interpolate(torch.rand(count, 3, side // 8, side // 8), size=side, mode="bicubic")
    images = (smooth.clamp(0, 1) * 255).round() / 255
    print(f"{count} pictures of {side} × {side}")
    print(f"{'defense':12} {'ms/picture':>10} {'Pillow':>8} {'ratio':>6}")
    for name, parameters in CASES.items():
        defense = mr.defenses.create(name, **parameters)
        assert isinstance(defense, InputDefense)
        work = [partial(defense.transform, images), partial(by_pillow, name, images)]
        for one in work:
            one()
        pairs = [[processor_time(one) for one in work] for _ in range(rounds)]
        ours, pillows = (statistics.median(column) * 1000 / count for column in zip(*pairs, strict=True))
        ratio = statistics.median(own / theirs for own, theirs in pairs)
        print(f"{name:12} {ours:10.3f} {pillows:8.3f} {ratio:6.2f}", flush=True)


def vit() -> Classifier:
    """ViT-Ti/16 with random weights and a random head."""
    config = ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, image_size=224
    )
    backbone = ViTModel(config, add_pooling_layer=False)
    encoder = Encoder(backbone, width=192, image_size=224, mean=(0.5,) * 3, std=(0.5,) * 3, features=class_token)
    return Classifier(encoder.requires_grad_(False).eval(), Head(torch.randn(10, 192), torch.zeros(10)))


class Timed(torch.nn.Module):
    """A classifier that adds up the time of its forward and backward passes."""

    def __init__(self, classifier: torch.nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.seconds = 0.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels → logits, whose gradient is timed too: computed by itself, and then handed on."""
        found: torch.Tensor = _TimedCall.apply(images, self)  # type: ignore[no-untyped-call]
        return found


class _TimedCall(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, timed: Timed) -> torch.Tensor:
        start = time.process_time()
        with torch.enable_grad():
            ctx.leaf = images.detach().requires_grad_()
            ctx.logits = timed.classifier(ctx.leaf)
        ctx.timed = timed
        timed.seconds += time.process_time() - start
        logits: torch.Tensor = ctx.logits.detach()
        return logits

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        start = time.process_time()
        (found,) = torch.autograd.grad(ctx.logits, ctx.leaf, gradients[0])
        ctx.timed.seconds += time.process_time() - start
        return found, None


def attackers(rounds: int) -> None:
    """Time above the classifier's own gradients."""
    images, labels = torch.rand(8, 3, 224, 224), torch.arange(8)
    attack = mr.attacks.create("i_fgsm", steps=2)
    print(f"{'attacker of':12} {'gradients':>9} {'s':>7} {'over':>7}")
    for name, draws in {"none": 1, **dict.fromkeys(CASES, 1), "resize_pad": 4, "smoothing": 4}.items():
        classifier = Timed(vit())
        module: torch.nn.Module = classifier
        if name != "none":
            module = mr.defenses.create(name, **CASES.get(name, {})).adaptive(classifier, draws=draws)
        over = []
        for _ in range(rounds):
            classifier.seconds = 0.0
            whole = processor_time(partial(attack, module, images, labels, epsilon=8 / 255))
            over.append((whole / classifier.seconds - 1, whole))
        least, seconds = min(over)
        print(f"{name:12} {2 * draws:9} {seconds:7.2f} {least:7.1%}", flush=True)


STEPS, EPSILON = 5, 4 / 255


def climbed(images: torch.Tensor, gain: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """PGD as a script writes it."""
    found = (images + EPSILON * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(STEPS):
        leaf = found.detach().requires_grad_()
        (slope,) = torch.autograd.grad(gain(leaf), leaf)
        moved = found + EPSILON / 2 * slope.sign()
        found = torch.min(torch.max(moved, images - EPSILON), images + EPSILON).clamp(0, 1)
    return found.detach()


def plain_loss(
    name: str, model: Classifier, public: Classifier, images: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """A batch of a training defense as a script writes it."""
    if name == "tecoa":
        return F.cross_entropy(model(climbed(images, lambda x: F.cross_entropy(model(x), labels))), labels)
    if name == "fare":
        with torch.no_grad():
            kept = public.encoder(images)
        found = climbed(images, lambda x: (model.encoder(x) - kept).square().sum())
        lost: torch.Tensor = (model.encoder(found) - kept).square().sum(dim=1).mean()
        return lost
    if name == "pubdef":
        found = climbed(images, lambda x: F.cross_entropy(public(x), labels))
        return (F.cross_entropy(model(images), labels) + F.cross_entropy(model(found), labels)) / 2
    clean = model(images)
    before = clean.detach().softmax(dim=1)
    found = climbed(images, lambda x: F.kl_div(model(x).log_softmax(dim=1), before, reduction="sum"))
    apart = F.kl_div(model(found).log_softmax(dim=1), clean.softmax(dim=1), reduction="batchmean")
    return F.cross_entropy(clean, labels) + 6 * apart


def training(rounds: int) -> None:
    """Ratios to plain PyTorch, of four batches of each defense."""
    public, head = vit(), Head(torch.randn(10, 192), torch.zeros(10))
    images, labels = torch.rand(16, 3, 224, 224), torch.arange(16) % 10
    data = TrainingData(images, head, labels, [public.encoder])
    print(f"{'trained by':12} {'s':>8} {'plain':>7} {'ratio':>6}")
    for name in ("tecoa", "trades", "fare", "pubdef"):
        defense = DEFENSES.create(name, {"epsilon": EPSILON, "steps": STEPS, "batch_size": 4})
        model = Classifier(vit().encoder.requires_grad_(True), head)
        optimizer = torch.optim.AdamW(model.encoder.parameters(), lr=1e-4, foreach=True)

        def plain(name: str = name, model: Classifier = model, steps: torch.optim.Optimizer = optimizer) -> None:
            for rows in torch.randperm(16).split(4):
                steps.zero_grad()
                plain_loss(name, model, public, images[rows], labels[rows]).backward()
                steps.step()

        work: list[Callable[[], object]] = [partial(defense.train, public.encoder, {"one": data}), plain]
        for one in work:
            one()
        pairs = [[processor_time(one) for one in work] for _ in range(rounds)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(own / other for own, other in pairs)
        print(f"{name:12} {ours:8.2f} {theirs:7.2f} {ratio:6.3f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, action="append", help="of the pictures; 224 and 32 by default")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("transforms", "attackers", "training"), help="one part; all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for side in options.side or (224, 32):
        if options.only in {None, "transforms"}:
            transforms(side, options.pictures, options.rounds)
    if options.only in {None, "attackers"}:
        attackers(options.rounds)
    if options.only in {None, "training"}:
        training(options.rounds)


if __name__ == "__main__":
    main()
