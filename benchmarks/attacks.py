"""Time of the attacks against their limit: forward and backward to the input, in plain PyTorch, and nothing else.

    python benchmarks/attacks.py                        # every attack, one thread of a CPU, ViT-Ti/16 at 224 px
    python benchmarks/attacks.py mi_fgsm --precision bfloat16       # and how far its images agree with float32's
    python benchmarks/attacks.py --device cuda --compile            # on a GPU: share of its measured matrix peak

*Over* is an attack's time above that of the gradients in it, each a forward and a backward pass and nothing else,
timed inside the same run: so that a shared machine's ups and downs fall on both. *Passes* is what of it are
forward passes without a gradient: of one image before the work begins, and those that an attack's definition asks
for. The limit, the same gradient in plain PyTorch without mergerisk, stands beside it. Processor time on a CPU
(other programs share it), wall-clock time on a GPU. Attacks of many gradients run with fewer of them: what a call
costs by itself weighs the more in these figures. Weights are random; they change no time.
"""

from __future__ import annotations

import argparse
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

import mergerisk as mr
from mergerisk.attacks import GradientAttack
from mergerisk.attacks.weight_tuning import AWT
from mergerisk.models import Classifier, Encoder, Head
from mergerisk.models.sources.vit import class_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

CLASSES = 10
SHORT: dict[str, dict[str, int]] = {
    "fgsm": {},
    "vmi_fgsm": {"steps": 2, "neighbours": 2},
    "vni_fgsm": {"steps": 2, "neighbours": 2},
    "admix": {"steps": 1, "mixes": 1, "scales": 3},
    "ssa": {"steps": 1},
    "pgn": {"steps": 1, "neighbours": 2},
    "gra": {"steps": 1, "neighbours": 3},
    "bsr": {"steps": 1, "shuffles": 8},
    "emi_fgsm": {"steps": 2, "samples": 2},
    "mef": {"steps": 2, "neighbours": 2},
    "sia": {"steps": 1, "patchworks": 8},
    "decowa": {"steps": 1, "warps": 4},
    "l2t": {"steps": 1, "chains": 8},
    "awt": {"steps": 1, "neighbours": 2},
    "si_fgsm": {"steps": 1, "scales": 3},
    "si_ni_fgsm": {"steps": 1, "scales": 3},
    "fia": {"steps": 2, "ensemble": 6},
    "naa": {"steps": 2, "integration": 6},
}
"""Hyper-parameters of fewer gradients; the others take five steps."""


def vit() -> Classifier:
    """ViT-Ti/16 with random weights and a random head."""
    config = ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, image_size=224
    )
    backbone = ViTModel(config, add_pooling_layer=False)
    return _with_head(backbone, 192, class_token)


def resnet() -> Classifier:
    """ResNet-18, for the attacks on residual networks."""
    config = ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
    )
    return _with_head(ResNetModel(config), 512, lambda backbone, pixels: backbone(pixels).pooler_output.flatten(1))


def _with_head(
    backbone: nn.Module, width: int, features: Callable[[nn.Module, torch.Tensor], torch.Tensor]
) -> Classifier:
    encoder = Encoder(
        backbone, width=width, image_size=224, mean=(0.5,) * 3, std=(0.5,) * 3, features=features
    ).requires_grad_(False)
    return Classifier(encoder.eval(), Head(torch.randn(CLASSES, width), torch.zeros(CLASSES)))


class Clock:
    """Processor time of this process, or wall-clock time of a GPU whose queue is empty."""

    def __init__(self, device: str) -> None:
        self.device = device

    def time(self, work: Callable[[], object]) -> float:
        start = self.now()
        work()
        return self.now() - start

    def now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def gradient(classifier: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The limit: one forward and one backward pass to the input."""
    leaf = images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(classifier(leaf), labels, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


@dataclass
class Spent:
    """What goes into passes through the classifier.

    Attributes:
        gradients: seconds.
        taken: how many, of one image.
        passes: seconds of forward passes without a gradient.
    """

    gradients: float = 0.0
    taken: int = 0
    passes: float = 0.0


@contextmanager
def timed_passes(clock: Clock) -> Iterator[Spent]:
    """Within it, what attacks of mergerisk spend in passes through classifiers is added up."""
    spent = Spent()
    inside = False
    gradient_of, slope, call = GradientAttack.gradient_of, AWT._slope, Classifier.__call__

    def timed(work: Callable[[], Any], images: int) -> Any:
        nonlocal inside
        found: list[Any] = []
        inside = True
        spent.gradients += clock.time(lambda: found.append(work()))
        inside = False
        spent.taken += images
        return found[0]

    def timed_gradient_of(self: GradientAttack, *arguments: Any) -> Any:
        oracle = gradient_of(self, *arguments)
        return lambda images: timed(lambda: oracle(images), len(images))

    def timed_slope(self: AWT, run: Any, tuned: Any) -> Any:
        return timed(lambda: slope(self, run, tuned), 2 * len(run.adversarial))

    def timed_call(self: Classifier, *arguments: Any) -> Any:
        if inside:
            return call(self, *arguments)
        start = clock.now()
        try:
            return call(self, *arguments)
        finally:  # a layer that was reached ends the pass as an exception
            spent.passes += clock.now() - start

    GradientAttack.gradient_of = timed_gradient_of  # type: ignore[method-assign,assignment]
    AWT._slope = timed_slope  # type: ignore[method-assign]
    Classifier.__call__ = timed_call  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        GradientAttack.gradient_of, AWT._slope = gradient_of, slope  # type: ignore[method-assign]
        del Classifier.__call__


def matrix_peak(device: str, precision: str) -> float:
    """FLOP/s of a large matrix product in the precision asked for."""
    size = 8192 if device == "cuda" else 2048
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    one = torch.randn(size, size, device=device, dtype=kind)
    clock = Clock(device)
    one @ one
    return 2 * size**3 / min(clock.time(lambda: one @ one) for _ in range(5))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="attacks; all by default")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the classifier (CUDA graphs on a GPU)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = options.names or [
        name for name in mr.attacks.ATTACKS.names() if name not in {"universal", "stm", "square"}
    ]
    images = torch.rand(options.batch, 3, 224, 224, device=options.device)
    labels = torch.arange(options.batch, device=options.device) % CLASSES
    clock = Clock(options.device)
    peak = matrix_peak(options.device, options.precision)
    print(
        f"torch {torch.__version__}, {options.device}, batch {options.batch}, "
        f"matrix product {peak / 1e9:.0f} GFLOP/s"
    )
    print(f"{'attack':14} {'gradients':>9} {'s/gradient':>10} {'limit':>8} {'over':>7} {'passes':>7}")
    for name in names:
        classifier: Any = (resnet() if name == "sgm" else vit()).to(options.device)
        if options.compile:
            classifier = torch.compile(
                classifier, mode="reduce-overhead" if options.device == "cuda" else "default"
            )
        chosen = SHORT.get(name, {"steps": 5})
        plain = mr.attacks.create(name, **chosen)
        attack = mr.attacks.create(name, **chosen, precision=options.precision)
        count = attack.gradients_per_image

        def limit(classifier: Any = classifier) -> torch.Tensor:
            return gradient(classifier, images, labels)

        def craft(attack: Any = attack, classifier: Any = classifier) -> torch.Tensor:
            made: torch.Tensor = attack(classifier, images, labels, epsilon=8 / 255)
            return made

        limit()
        rounds = []
        for _ in range(options.repeats):
            with timed_passes(clock) as spent:
                whole = clock.time(craft)
            assert spent.taken == count * len(images)
            own = spent.gradients
            rounds.append((whole / own - 1, spent.passes / own, whole / count, clock.time(limit)))
        over, passes, ours, least = (min(column) for column in zip(*rounds, strict=True))
        line = f"{name:14} {count:9} {ours:10.3f} {least:8.3f} {over:7.1%} {passes:7.1%}"
        if options.precision == "bfloat16":
            pair = craft(), craft(plain)
            pixels = (pair[0] == pair[1]).float().mean()
            said = [classifier(made).argmax(1) for made in pair]
            predictions = (said[0] == said[1]).float().mean()
            line += f"   {float(pixels):.1%} of pixels and {float(predictions):.1%} of predictions equal"
        if options.device == "cuda":
            leaf = images.clone().requires_grad_()
            with FlopCounterMode(display=False) as counter:  # it cannot count autograd.grad
                torch.nn.functional.cross_entropy(classifier(leaf), labels, reduction="sum").backward()
            share = counter.get_total_flops() / ours / peak
            line += f"   {options.batch / ours:.0f} gradients/s, {share:.1%} of the matrix peak"
        print(line, flush=True)


if __name__ == "__main__":
    main()
