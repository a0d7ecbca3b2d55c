"""Naive structure invariant transformation, and MI-FGSM with it (SIA, Wang et al. 2023, arXiv 2309.14700), by the
authors' code; noise is a share of ε."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.naive.attacks.inputs import cosine_matrix, resize
from tests.naive.attacks.loop import ForEachImage, Task, Trace, iterate, with_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.naive.attacks.loop import Transform

ALL = (
    "resize", "shift_rows", "shift_columns", "flip_rows", "flip_columns", "turn", "scale", "noise", "low_pass", "drop",
)  # fmt: skip


def boxed(pixels: Tensor) -> Tensor:
    """Put into [0, 1]; what lies on its edge is free to move."""
    pixels = torch.where(pixels < 0, torch.zeros_like(pixels), pixels)
    return torch.where(pixels > 1, torch.ones_like(pixels), pixels)


def cut(numbers: Sequence[float], blocks: int) -> list[int]:
    """Where a side is cut: after the pixels with the smallest numbers; with both its ends."""
    smallest = sorted(range(len(numbers)), key=lambda i: numbers[i])[: blocks - 1]
    return [0, *sorted(i + 1 for i in smallest), len(numbers) + 1]


def changed(block: Tensor, operation: str, amount: float, noise: Tensor, drops: Sequence[bool]) -> Tensor:
    """C×h×w after the operation, pixel by pixel where it only moves them."""
    _, height, width = block.shape

    def moved(row: dict[int, int], column: dict[int, int]) -> Tensor:
        lines = [torch.stack([block[:, row[y], column[x]] for x in range(width)]) for y in range(height)]
        return torch.stack(lines).permute(2, 0, 1)

    rows, columns = {y: y for y in range(height)}, {x: x for x in range(width)}
    upside_down, mirrored = {y: height - 1 - y for y in rows}, {x: width - 1 - x for x in columns}
    if operation == "shift_rows":
        return moved({(y + math.floor(amount * height)) % height: y for y in rows}, columns)
    if operation == "shift_columns":
        return moved(rows, {(x + math.floor(amount * width)) % width: x for x in columns})
    if operation == "flip_rows":
        return moved(upside_down, columns)
    if operation == "flip_columns":
        return moved(rows, mirrored)
    if operation == "turn":
        return moved(upside_down, mirrored)
    if operation == "resize":
        smaller = resize(block, (math.floor(0.8 * height) + 1, math.floor(0.8 * width) + 1))
        return boxed(resize(smaller, (height, width)))
    if operation == "low_pass":
        down, across = cosine_matrix(height), cosine_matrix(width)
        frequencies = down @ block @ across.T
        heard = torch.ones(height, width, dtype=torch.float64)
        heard[height - math.floor(0.4 * height) :, :] = 0.0
        heard[:, width - math.floor(0.4 * width) :] = 0.0
        return down.T @ (frequencies * heard) @ across
    if operation == "scale":
        return amount * block
    if operation == "noise":
        return boxed(block + noise)
    if operation == "drop":
        return torch.stack([0.0 * c if gone else c / 0.9 for c, gone in zip(block, drops, strict=True)])
    raise ValueError(operation)


def patched(patchworks: int = 20, blocks: int = 3, noise: float = 1.0, leave_out: Sequence[str] = ()) -> Transform:
    """Blocks between random cuts, each changed by an operation drawn for it."""
    operations = [name for name in ALL if name not in leave_out]

    def transform(task: Task, image: Tensor) -> Iterator[Tensor]:
        def draw(*shape: int) -> list[float]:
            return task.draws.uniform(*shape, like=torch.zeros(1, dtype=torch.float64)).flatten().tolist()

        channels, height, width = image.shape
        for _ in range(patchworks):
            rows, columns = cut(draw(height - 1), blocks), cut(draw(width - 1), blocks)
            chosen, amounts = draw(blocks, blocks), draw(blocks, blocks)
            drops = draw(blocks, blocks, channels, 1, 1)
            added = noise * task.per_pixel(task.epsilon) * (2 * task.draws.noise(like=image[None])[0] - 1)
            strips = []
            for i in range(len(rows) - 1):
                strip = []
                for j in range(len(columns) - 1):
                    here = (slice(None), slice(rows[i], rows[i + 1]), slice(columns[j], columns[j + 1]))
                    number = i * blocks + j
                    operation = operations[math.floor(chosen[number] * len(operations))]
                    gone = [p < 0.1 for p in drops[number * channels : (number + 1) * channels]]
                    strip.append(changed(image[here], operation, amounts[number], added[here], gone))
                strips.append(torch.cat(strip, dim=2))
            yield torch.cat(strips, dim=1)

    return transform


@ForEachImage
def sia(
    task: Task, patchworks: int = 20, blocks: int = 3, noise: float = 1.0, leave_out: Sequence[str] = ()
) -> Trace:
    task = with_parts(task, inputs=[patched(patchworks, blocks, noise, leave_out)])
    return iterate(task, lambda point, _: task.ascent(point))
