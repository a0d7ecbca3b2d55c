"""Pretrain the small vision transformer that ships with the starter suite.

What it has seen: rendered pictures of about 130 generic classes and their labels, nothing else (no
downloaded data or weights): printed letters, doodles, plain coloured shapes, textures made by random recipes
and simple layouts; see `mergerisk.tasks.starter.pretraining`. No picture, class or scan of the seven tasks is
among them, but the tasks share the drawing helpers (photo patches, light, blur, noise) and partly the
typefaces.

How: cross-entropy over all classes through one linear layer on the last layer's class token, AdamW, one
cosine of the learning rate after a short warm-up, with small shifts and noise as augmentation. The layer is
thrown away. Small batches matter: with 8×8 patches the encoder learns little in few steps.

The shipped weights were made with the defaults, from the repository's root:

    python scripts/pretrain_starter_vit.py

The same seed, library versions, processor and number of threads give the same weights; otherwise sums are
rounded differently and the weights differ a little. The last line printed is the SHA-256 of the weights' file.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel

from mergerisk.tasks.starter import render_pretraining

if TYPE_CHECKING:
    import numpy.typing as npt

DEFAULT_OUT = Path(__file__).resolve().parents[1] / "src" / "mergerisk" / "models" / "starter"


def starter_config() -> ViTConfig:
    """0.62 million parameters, 17 tokens for 32×32 pixels."""
    return ViTConfig(
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=512,
        image_size=32,
        patch_size=8,
    )


def _piece(first: int, count: int, seed: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    drawn = render_pretraining(count, seed, first)
    return np.asarray(drawn.images), drawn.labels


def draw_all(count: int, seed: int, workers: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """`count` pictures (uint8 N×3×32×32), their labels (int64 N) and the number of classes."""
    size = 2000
    firsts = range(0, count, size)
    with ProcessPoolExecutor(workers) as pool:
        pieces = list(pool.map(partial(_piece, seed=seed), firsts, [min(size, count - f) for f in firsts]))
    images = torch.from_numpy(np.concatenate([images for images, _ in pieces])).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(np.concatenate([labels for _, labels in pieces]))
    return images, labels, int(labels.max()) + 1


def augmented(
    images: torch.Tensor, generator: torch.Generator, shift: int = 1, noise: float = 0.03
) -> torch.Tensor:
    """uint8 B×3×32×32 to float in [0, 1], moved by up to `shift` pixels, with noise of up to `noise`."""
    batch, _, height, width = images.shape
    padded = F.pad(images.float() / 255, (shift,) * 4, mode="replicate")
    down, right = torch.randint(0, 2 * shift + 1, (2, batch, 1), generator=generator)
    rows = (down + torch.arange(height)).view(batch, 1, height, 1)
    columns = (right + torch.arange(width)).view(batch, 1, 1, width)
    every, channels = torch.arange(batch).view(-1, 1, 1, 1), torch.arange(3).view(1, 3, 1, 1)
    moved = padded[every, channels, rows, columns]
    strength = noise * torch.rand(batch, 1, 1, 1, generator=generator)
    return (moved + strength * torch.randn(moved.shape, generator=generator)).clamp(0, 1)


def pretrain(
    images: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> ViTModel:
    """Train from random weights and return the encoder in evaluation mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    encoder = ViTModel(starter_config(), add_pooling_layer=False)
    layer = nn.Linear(encoder.config.hidden_size, classes)
    parameters = [*encoder.parameters(), *layer.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.99))
    per_epoch = len(images) // batch
    total, warm_up = epochs * per_epoch, min(200, epochs * per_epoch // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / (warm_up + 1), 0.5 + 0.5 * math.cos(math.pi * step / total)),
    )
    encoder.train()
    start = time.monotonic()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)[: per_epoch * batch].view(per_epoch, batch)
        losses, correct = 0.0, 0
        for chosen in order:
            pixels = augmented(images[chosen], generator)
            scores = layer(encoder((pixels - 0.5) / 0.5).last_hidden_state[:, 0])
            loss = F.cross_entropy(scores, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            losses += loss.item()
            correct += int((scores.argmax(1) == labels[chosen]).sum())
        share = correct / (per_epoch * batch)
        passed = time.monotonic() - start
        print(
            f"epoch {epoch + 1}/{epochs}: loss {losses / per_epoch:.3f}, correct {share:.3f}, {passed:.0f} s",
            flush=True,
        )
    encoder.train(False)
    return encoder


def save(encoder: ViTModel, folder: Path) -> str:
    """Write config.json and model.safetensors (fp16) and return the SHA-256 of the latter."""
    # save_pretrained writes the names every version of transformers reads.
    encoder.half().save_pretrained(folder)
    path = folder / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain the starter suite's vision transformer.")
    parser.add_argument("--images", type=int, default=48_000, help="pictures to draw (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, help="folder to write to (default: the package's)"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.monotonic()
    images, labels, classes = draw_all(options.images, options.seed, options.threads)
    print(f"drew {len(images)} pictures of {classes} classes in {time.monotonic() - start:.0f} s", flush=True)
    encoder = pretrain(
        images,
        labels,
        classes,
        epochs=options.epochs,
        batch=options.batch,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        seed=options.seed,
    )
    digest = save(encoder, options.out)
    print(f"wrote {options.out / 'model.safetensors'} after {time.monotonic() - start:.0f} s")
    print(f"sha256 {digest}")


if __name__ == "__main__":
    main()
