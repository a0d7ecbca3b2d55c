"""Naive input transformations, and the attacks that MI- and NI-FGSM become with them.

Sources: DI, Xie et al. 2019 (arXiv 1803.06978); SI, Lin et al. 2020 (1908.06281); Admix, Wang et al. 2021
(2102.00436); SSA, Long et al. 2022 (2207.05382); BSR, Wang et al. 2024 (2308.10299); DeCowA, Lin et al. 2024
(2402.03951), by the authors' code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.naive.attacks.loop import ForEachImage, Task, Trace, iterate, with_parts
from tests.naive.attacks.sign import nesterov

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.naive.attacks.loop import Transform


# --- input diversity -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """What input diversity draws for one image at one step.

    ``size`` is the height and width after resizing; ``top`` and ``left`` say where that picture lies on the
    zero canvas, whose height and width are the image's own unless ``canvas`` names others (then the padded
    picture is resized back to the image's size).
    """

    apply: bool
    size: tuple[int, int] = (1, 1)
    top: int = 0
    left: int = 0
    canvas: tuple[int, int] | None = None


def bilinear_matrix(old: int, new: int) -> Tensor:
    """new×old weights of bilinear interpolation between half-pixel centres, without antialiasing."""
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        centre = max((i + 0.5) * old / new - 0.5, 0.0)
        low = min(math.floor(centre), old - 1)
        high = min(low + 1, old - 1)
        weights[i, low] += 1.0 - (centre - low)
        weights[i, high] += centre - low
    return weights


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of C×H×W."""
    vertical = bilinear_matrix(image.shape[-2], size[0])
    horizontal = bilinear_matrix(image.shape[-1], size[1])
    return vertical @ image @ horizontal.T


def diversify(image: Tensor, choice: Choice) -> Tensor:
    """Resize, place on a zero canvas, and come back to the image's own size."""
    if not choice.apply:
        return image
    own = (int(image.shape[-2]), int(image.shape[-1]))
    height, width = own if choice.canvas is None else choice.canvas
    small = resize(image, choice.size)
    bottom = height - choice.top - choice.size[0]
    right = width - choice.left - choice.size[1]
    if min(choice.top, choice.left, bottom, right) < 0:
        raise ValueError(f"{choice} does not fit on a canvas of {height}×{width}")
    padded = torch.nn.functional.pad(small, (choice.left, right, choice.top, bottom))
    return padded if (height, width) == own else resize(padded, own)


def diversified(choices: Sequence[Sequence[Choice]]) -> Transform:
    """One view, transformed as ``choices[image][step]`` says."""

    def transform(task: Task, image: Tensor) -> Iterator[Tensor]:
        yield diversify(image, choices[task.place][task.step])

    return transform


@ForEachImage
def di_fgsm(task: Task, choices: Sequence[Sequence[Choice]]) -> Trace:
    task = with_parts(task, inputs=[diversified(choices)])
    return iterate(task, lambda point, _: task.ascent(point))


# --- scales ----------------------------------------------------------------------------------------------


def scaled(scales: int = 5) -> Transform:
    """``x / 2^i`` for i = 0, 1, …"""

    def transform(_: Task, image: Tensor) -> Iterator[Tensor]:
        for i in range(scales):
            yield image / 2**i

    return transform


@ForEachImage
def si_fgsm(task: Task, scales: int = 5) -> Trace:
    task = with_parts(task, inputs=[scaled(scales)])
    return iterate(task, lambda point, _: task.ascent(point))


@ForEachImage
def si_ni_fgsm(task: Task, scales: int = 5) -> Trace:
    return nesterov(with_parts(task, inputs=[scaled(scales)]))


# --- Admix -----------------------------------------------------------------------------------------------


def admixed(mixes: int = 3, share: float = 0.2, scales: int = 5) -> Transform:
    """A share of images with other labels is added, then scales are taken."""

    def transform(task: Task, image: Tensor) -> Iterator[Tensor]:
        images, labels = task.pool
        others = [images[i] for i in range(len(labels)) if labels[i] != task.label]
        for _ in range(mixes):
            drawn = float(task.draws.uniform(1, like=torch.zeros(1, dtype=torch.float64)))
            mixed = image + share * others[math.floor(drawn * len(others))] if others else image
            for i in range(scales):
                yield mixed / 2**i

    return transform


@ForEachImage
def admix(task: Task, mixes: int = 3, share: float = 0.2, scales: int = 5) -> Trace:
    task = with_parts(task, inputs=[admixed(mixes, share, scales)])
    return iterate(task, lambda point, _: task.ascent(point))


# --- spectrum simulation ---------------------------------------------------------------------------------


def cosine_matrix(size: int) -> Tensor:
    """The orthonormal DCT-II: row k holds ``c_k cos(pi (n + 1/2) k / size)``, c_0² = 1/size, else 2/size."""
    rows = [
        [math.sqrt((2 if k else 1) / size) * math.cos(math.pi * (n + 0.5) * k / size) for n in range(size)]
        for k in range(size)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def spectral(spectra: int = 20, spread: float = 0.5, noise: float = 1.0) -> Transform:
    """Gaussian noise is added to the pixels, then every coefficient is multiplied by a number around 1."""

    def transform(task: Task, image: Tensor) -> Iterator[Tensor]:
        down, across = cosine_matrix(image.shape[-2]), cosine_matrix(image.shape[-1])
        for _ in range(spectra):
            normal = task.draws.normal(like=image[None])[0]
            uniform = task.draws.noise(like=image[None])[0]
            noisy = image + noise * task.per_pixel(task.epsilon) * normal
            coefficients = (down @ noisy @ across.T) * (1 + spread * (2 * uniform - 1))
            yield down.T @ coefficients @ across  # the inverse of an orthonormal matrix is its transpose

    return transform


@ForEachImage
def ssa(
    task: Task, spectra: int = 20, spread: float = 0.5, noise: float = 1.0, gradient_at: str = "image"
) -> Trace:
    """With the gradient at the ``view``, it is not brought back through noise and transform."""
    views = spectral(spectra, spread, noise)
    if gradient_at == "view":
        return iterate(task, lambda point, _: sum(map(task.ascent, views(task, point))) / spectra)
    task = with_parts(task, inputs=[views])
    return iterate(task, lambda point, _: task.ascent(point))


# --- block shuffle and rotation --------------------------------------------------------------------------


def borders(numbers: list[float], side: int) -> list[int]:
    """0 and the rounded ends of parts of ``side`` whose lengths are as ``numbers``; Python rounds half to even."""
    ends, total = [0], 0.0
    for number in numbers:
        total += number
        ends.append(round(total / sum(numbers) * side))
    return ends


def order(numbers: list[float]) -> list[int]:
    return sorted(range(len(numbers)), key=lambda i: numbers[i])


def rotation(height: int, width: int, degrees: float) -> list[tuple[int, int, int, int, float]]:
    """What every pixel of a turned block reads: (row, column, source row, source column, weight)."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle, centre = (height - 1) / 2, (width - 1) / 2
    entries = []
    for row in range(height):
        for column in range(width):
            down, right = row - middle, column - centre
            y, x = middle + cosine * down - sine * right, centre + sine * down + cosine * right
            if not (-0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5):
                continue
            y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
            top, left = math.floor(y), math.floor(x)
            for source_row, row_weight in ((top, 1 - (y - top)), (top + 1, y - top)):
                for source_column, column_weight in ((left, 1 - (x - left)), (left + 1, x - left)):
                    if row_weight > 0 and column_weight > 0:
                        entries.append((row, column, source_row, source_column, row_weight * column_weight))
    return entries


def block_shuffled(shuffles: int = 20, blocks: int = 3, degrees: float = 24.0, smallest: float = 0.0) -> Transform:
    """The image is cut into strips and these into blocks; both are shuffled, and every block is turned.

    Sides are as numbers between ``smallest`` and 1.
    """

    def transform(task: Task, image: Tensor) -> Iterator[Tensor]:
        def draw(*shape: int) -> list[float]:
            return task.draws.uniform(*shape, like=torch.zeros(1, dtype=torch.float64)).flatten().tolist()

        def sides() -> list[float]:
            return [number * (1 - smallest) + smallest for number in draw(blocks)]

        channels, height, width = image.shape
        for _ in range(shuffles):
            rows, columns = borders(sides(), height), borders(sides(), width)
            strips = order(draw(blocks))
            orders, angles = draw(blocks, blocks), draw(blocks, blocks)
            weights = torch.zeros(height * width, height * width, dtype=torch.float64)
            down = 0
            for j, strip in enumerate(strips):
                tall = rows[strip + 1] - rows[strip]
                right = 0
                for k, block in enumerate(order(orders[j * blocks : (j + 1) * blocks])):
                    wide = columns[block + 1] - columns[block]
                    angle = (2 * angles[j * blocks + k] - 1) * degrees
                    for row, column, source_row, source_column, weight in rotation(tall, wide, angle):
                        to = (down + row) * width + right + column
                        source = (rows[strip] + source_row) * width + columns[block] + source_column
                        weights[to, source] += weight
                    right += wide
                down += tall
            yield (image.reshape(channels, -1) @ weights.T).reshape(image.shape)

    return transform


@ForEachImage
def bsr(task: Task, shuffles: int = 20, blocks: int = 3, degrees: float = 24.0, smallest: float = 0.0) -> Trace:
    task = with_parts(task, inputs=[block_shuffled(shuffles, blocks, degrees, smallest)])
    return iterate(task, lambda point, _: task.ascent(point))


# --- warping ---------------------------------------------------------------------------------------------


def plate(distance: Tensor) -> Tensor:
    """``r² log r²``, of a squared distance; 0 at 0."""
    return distance * torch.log(distance + 1e-9)


def bend(image: Tensor, mesh: int, moves: Tensor) -> Tensor:
    """C×H×W under the thin-plate spline through the mesh's points, of which the inner ones are moved (rows × columns
    × 2, across and down): its coefficients are solved for, then every pixel looks where its centre goes."""
    _, height, width = image.shape
    points = [
        (-1 + 2 * column / (mesh - 1), -1 + 2 * row / (mesh - 1)) for row in range(mesh) for column in range(mesh)
    ]
    goals = []
    for number, (x, y) in enumerate(points):
        row, column = divmod(number, mesh)
        inside = 0 < row < mesh - 1 and 0 < column < mesh - 1
        goal = torch.tensor([x, y], dtype=torch.float64)
        goals.append(goal + moves[row - 1, column - 1] if inside else goal)
    at = torch.tensor(points, dtype=torch.float64)
    count = len(points)
    left = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    for i in range(count):
        for j in range(count):
            left[i, j] = plate(((at[i] - at[j]) ** 2).sum())
        left[i, count:] = left[count:, i] = torch.tensor([1.0, *points[i]], dtype=torch.float64)
    right = torch.cat([torch.stack(goals), torch.zeros(3, 2, dtype=torch.float64)])
    coefficients = torch.linalg.solve(left, right)
    places = torch.tensor(
        [[(2 * x + 1) / width - 1, (2 * y + 1) / height - 1] for y in range(height) for x in range(width)],
        dtype=torch.float64,
    )
    radial = torch.stack([plate(((places - point) ** 2).sum(dim=1)) for point in at], dim=1)
    across, down = (torch.cat([radial, torch.ones(len(places), 1), places], dim=1) @ coefficients).T
    shown = between(image, ((down + 1) * height - 1) / 2, ((across + 1) * width - 1) / 2)
    return shown.reshape(image.shape)


def between(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The values of each channel at places between pixels, bilinear; 0 outside."""
    _, height, width = image.shape
    top, left = torch.floor(y.detach()).long(), torch.floor(x.detach()).long()
    total = torch.zeros(len(image), len(y), dtype=torch.float64)
    for row, tall in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, wide in ((left, 1 - (x - left)), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            values = image[:, row.clamp(0, height - 1), column.clamp(0, width - 1)]
            total = total + torch.where(inside, tall * wide, torch.zeros_like(y)) * values
    return total


@ForEachImage
def decowa(task: Task, warps: int = 20, mesh: int = 3, strength: float = 1.0, constraint: float = 0.01) -> Trace:
    """At each copy, a random warp; one step of it down the gain; and the gradient under what that gives."""
    inner = mesh - 2

    def ascent(adversarial: Tensor, _: Tensor) -> Tensor:
        total = torch.zeros_like(adversarial)
        for _ in range(warps):
            drawn = task.draws.uniform(inner * inner, 2, like=adversarial[None])[0]
            moves = (strength * (2 * drawn - 1)).reshape(inner, inner, 2).requires_grad_(True)
            view = bend(adversarial, mesh, moves)
            (slope,) = torch.autograd.grad(view, moves, task.ascent(view))
            settled = moves.detach() - constraint * slope
            leaf = adversarial.clone().requires_grad_(True)
            view = bend(leaf, mesh, settled)
            total += torch.autograd.grad(view, leaf, task.ascent(view))[0]
        return total / warps

    return iterate(task, ascent)
