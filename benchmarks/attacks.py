"""Time of the attacks against their limit: forward and backward to the input, in plain PyTorch, and nothing else.

    python benchmarks/attacks.py                        # every attack, one thread of a CPU, ViT-Ti/16 at 224 px
    python benchmarks/attacks.py mi_fgsm --precision bfloat16       # and how far its images agree with float32's
    python benchmarks/attacks.py --device cuda --compile            # on a GPU: share of its measured matrix peak

*Over* is an attack's time above that of the gradients in it, each a forward and a backward pass to the input and
nothing else, timed inside the same run: so that a shared machine's ups and downs fall on both. The limit, the same
gradient in plain PyTorch without mergerisk, stands beside it. Processor time on a CPU (other programs share it),
wall-clock time on a GPU. Attacks of many gradients run with fewer of them: the overhead is per gradient. Weights
are random; they change no time.
"""

from __future__ import annotations

import argparse
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

import mergerisk as mr
from mergerisk.attacks import GradientAttack
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
    "ssa": {"steps": 1, "spectra": 3},
    "pgn": {"steps": 1, "neighbours": 2},
    "gra": {"steps": 1, "neighbours": 3},
    "bsr": {"steps": 1, "shuffles": 3},
    "emi_fgsm": {"steps": 2, "samples": 2},
    "mef": {"steps": 2, "neighbours": 2},
    "sia": {"steps": 1, "patchworks": 3},
    "decowa": {"steps": 1, "warps": 2},
    "l2t": {"steps": 1, "chains": 3},
    "awt": {"steps": 1, "neighbours": 2},
    "si_fgsm": {"steps": 1, "scales": 3},
    "si_ni_fgsm": {"steps": 1, "scales": 3},
    "fia": {"steps": 2, "ensemble": 2},
    "naa": {"steps": 2, "integration": 2},
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
        start = self._now()
        work()
        return self._now() - start

    def _now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def gradient(classifier: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The limit: one forward and one backward pass to the input."""
    leaf = images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(classifier(leaf), labels, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


@contextmanager
def timed_gradients(clock: Clock) -> Iterator[list[float]]:
    """Within it, the seconds of every gradient that an attack of mergerisk takes are added to the list."""
    taken: list[float] = []
    plain = GradientAttack.gradient_of

    def gradient_of(self: GradientAttack, *arguments: Any) -> Any:
        inside = plain(self, *arguments)

        def timed(images: torch.Tensor) -> torch.Tensor:
            found: list[torch.Tensor] = []
            taken.append(clock.time(lambda: found.append(inside(images))))
            return found[0]

        return timed

    GradientAttack.gradient_of = gradient_of  # type: ignore[method-assign,assignment]
    try:
        yield taken
    finally:
        GradientAttack.gradient_of = plain  # type: ignore[method-assign]


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
    print(f"{'attack':14} {'gradients':>9} {'s/gradient':>10} {'limit':>8} {'over':>7}")
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
            with timed_gradients(clock) as inside:
                whole = clock.time(craft)
            assert len(inside) == count
            rounds.append((whole / sum(inside) - 1, whole / count, clock.time(limit)))
        over, ours, least = (min(column) for column in zip(*rounds, strict=True))
        line = f"{name:14} {count:9} {ours:10.3f} {least:8.3f} {over:7.1%}"
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
