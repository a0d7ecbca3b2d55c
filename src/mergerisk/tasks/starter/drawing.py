"""Drawing helpers shared by the rendered tasks: fonts, masks, fields, photo patches, camera effects.

Pictures in the making are float arrays of 3×SIZE×SIZE (3×SUPER×SUPER before `shrink`) in [0, 1]; masks are
the same without the first axis. Every random choice comes from the `numpy.random.Generator` passed in.
"""

from __future__ import annotations

import colorsys
import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]
    Pixels = npt.NDArray[np.uint8]
    Pair = Sequence[float] | Floats  # an (x, y)

SIZE = 32
SUPER = 2 * SIZE  # shapes are drawn at twice the size and averaged down, which smooths their edges

SANS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique")
SERIF = ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic")
STIX = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")


@lru_cache(maxsize=1)
def _font_folder() -> Path:
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf"


@lru_cache(maxsize=64)
def _font(typeface: str, pixels: int) -> ImageFont.FreeTypeFont:
    # The basic layout engine is asked for by name, so pictures do not hang on which libraries Pillow found.
    path = _font_folder() / f"{typeface}.ttf"
    return ImageFont.truetype(str(path), pixels, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def glyph(typeface: str, text: str, pixels: int = 48) -> Image.Image:
    """The ink of `text` as a mode-L picture cropped to its bounding box (treat it as read-only)."""
    font = _font(typeface, pixels)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    picture = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(picture).text((2 - left, 2 - top), text, font=font, fill=255)
    box = picture.getbbox()
    return picture if box is None else picture.crop(box)


def place(
    mask: Image.Image,
    *,
    height: float,
    centre: tuple[float, float] = (0.5, 0.5),
    angle: float = 0.0,
    shear: float = 0.0,
    stretch: float = 1.0,
    by_longest_side: bool = False,
) -> Floats:
    """Put a mode-L picture on an empty square: a SIZE×SIZE mask in [0, 1].

    `height` and `centre` (x, y) are fractions of the square's side, `angle` is in degrees (anticlockwise),
    `shear` is the sideways shift per unit of height and `stretch` scales the width. With `by_longest_side`,
    `height` is that of the picture's longer side.
    """
    length = max(mask.size) if by_longest_side else mask.height
    scale = SUPER * height / length
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # the inverse of: stretch and scale, then shear, then turn (y points down)
    a, b = (cosine + shear * sine) / (scale * stretch), (-sine + shear * cosine) / (scale * stretch)
    d, e = sine / scale, cosine / scale
    x, y = SUPER * centre[0], SUPER * centre[1]
    data = (a, b, mask.width / 2 - a * x - b * y, d, e, mask.height / 2 - d * x - e * y)
    placed = mask.transform((SUPER, SUPER), Image.Transform.AFFINE, data=data, resample=Image.Resampling.BILINEAR)
    return shrink(unit(placed))


def unit(picture: Image.Image) -> Floats:
    """A Pillow picture as float32 in [0, 1], colours first."""
    pixels = np.asarray(picture)
    return np.ascontiguousarray(pixels.T.swapaxes(-1, -2) if pixels.ndim == 3 else pixels, dtype=np.float32) / 255


def shrink(picture: Floats) -> Floats:
    """(3×)SUPER×SUPER averaged down to (3×)SIZE×SIZE."""
    return (
        picture[..., ::2, ::2] + picture[..., 1::2, ::2] + picture[..., ::2, 1::2] + picture[..., 1::2, 1::2]
    ) / 4


@lru_cache(maxsize=128)
def _enlarging_rows(count: int, size: int) -> Floats:
    """size×count weights of cubic interpolation (Catmull-Rom) that enlarge a row; its ends are repeated."""
    position = (np.arange(size) + 0.5) * count / size - 0.5
    left = np.floor(position).astype(np.int64)
    t = position - left
    weights = np.stack(
        [
            (-t + 2 * t**2 - t**3) / 2,
            (2 - 5 * t**2 + 3 * t**3) / 2,
            (t + 4 * t**2 - 3 * t**3) / 2,
            (-(t**2) + t**3) / 2,
        ]
    )
    rows = np.zeros((size, count))
    for offset, weight in enumerate(weights, start=-1):
        np.add.at(rows, (np.arange(size), np.clip(left + offset, 0, count - 1)), weight)
    return rows.astype(np.float32)


def resized(grid: Floats, size: int) -> Floats:
    """A small square grid of numbers enlarged smoothly to size×size."""
    rows = _enlarging_rows(len(grid), size)
    return rows @ grid.astype(np.float32) @ rows.T


def _within(values: Floats) -> Floats:
    """Clip to [0, 1] (np.clip is slow on small arrays)."""
    return np.minimum(np.maximum(values, 0), 1)


def smooth_noise(rng: np.random.Generator, cells: int, size: int = SIZE) -> Floats:
    """Smooth random field, size×size, in [0, 1], with about `cells` bumps along a side."""
    return _within(resized(rng.random((cells + 1, cells + 1), dtype=np.float32), size))


def cloud_noise(rng: np.random.Generator, cells: int, size: int = SIZE, octaves: int = 3) -> Floats:
    """Fractal sum of `smooth_noise`, stretched to fill [0, 1]."""
    total = smooth_noise(rng, cells, size)
    for octave in range(1, octaves):
        total = total + smooth_noise(rng, min(cells * 2**octave, size - 1), size) / 2**octave
    low, high = total.min(), total.max()
    return np.asarray((total - low) / (high - low + 1e-6))


@lru_cache(maxsize=4)
def coordinates(size: int = SUPER) -> tuple[Floats, Floats]:
    """Pixel centres as (x, y), each size×size, in [-0.5, 0.5]; not to be written to."""
    axis = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


def turned(
    rng: np.random.Generator, size: int = SUPER, bend: float = 0.0, most: float = math.pi
) -> tuple[Floats, Floats]:
    """`coordinates` turned by at most `most` radians, shifted and, with `bend` > 0, smoothly warped, at random."""
    x, y = coordinates(size)
    if bend > 0:
        x = x + bend * (smooth_noise(rng, 3, size) - 0.5)
        y = y + bend * (smooth_noise(rng, 3, size) - 0.5)
    turn = rng.uniform(-most, most)
    cosine, sine = math.cos(turn), math.sin(turn)
    return (
        cosine * x + sine * y + rng.uniform(-1, 1),
        cosine * y - sine * x + rng.uniform(-1, 1),
    )


def nearest_two(points: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Distance to the nearest and the second nearest of K points (K×2), per pixel."""
    near = second = np.full_like(x, np.inf)
    for column, row in points.tolist():
        distance = (x - column) ** 2 + (y - row) ** 2
        second = np.minimum(second, np.maximum(near, distance))
        near = np.minimum(near, distance)
    return np.sqrt(near), np.sqrt(second)


def scattered(rng: np.random.Generator, count: int, spread: float = 0.65) -> Floats:
    """`count` points (count×2) spread fairly evenly over [-spread, spread]²: a jittered lattice."""
    side = int(np.ceil(np.sqrt(count)))
    lattice = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    return ((lattice + rng.random(lattice.shape)) / side * 2 - 1) * spread


def step(value: Floats, edge: float = 0.0, width: float = 0.04) -> Floats:
    """Smoothed step: 0 below `edge`, 1 above, with a ramp `width` wide."""
    return _within((value - edge) / width + 0.5)


def colour(hue: float, saturation: float, value: float) -> Floats:
    """HSV, each in [0, 1] (the hue wraps), to an RGB triple."""
    return np.array(
        colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1)), dtype=np.float32
    )


def grey(value: float) -> Floats:
    """An RGB triple without colour."""
    return np.full(3, value, dtype=np.float32)


def any_colour(rng: np.random.Generator) -> Floats:
    """An RGB triple drawn over hue, saturation and value."""
    return colour(rng.random(), rng.uniform(0.05, 0.95), rng.uniform(0.1, 1.0))


def luminance(rgb: Floats) -> float:
    """Rec. 601 luminance of an RGB triple, in [0, 1]."""
    return 0.299 * float(rgb[0]) + 0.587 * float(rgb[1]) + 0.114 * float(rgb[2])


def two_colours(rng: np.random.Generator, contrast: float = 0.25) -> tuple[Floats, Floats]:
    """Two random colours whose luminances differ by at least `contrast` (in [0, 0.5])."""
    first = any_colour(rng)
    for _ in range(20):
        second = any_colour(rng)
        if abs(luminance(first) - luminance(second)) >= contrast:
            return first, second
    return first, grey(0.0 if luminance(first) > 0.5 else 1.0)


def dark_and_light(rng: np.random.Generator, contrast: float = 0.25) -> tuple[Floats, Floats]:
    """Two random colours as `two_colours`, the darker one first."""
    first, second = two_colours(rng, contrast)
    return (first, second) if luminance(first) < luminance(second) else (second, first)


def paint(picture: Floats, mask: Floats, ink: Floats) -> Floats:
    """Lay `ink` (RGB triple or picture) over the picture where the mask (H×W in [0, 1]) says."""
    return picture + mask * ((ink[:, None, None] if ink.ndim == 1 else ink) - picture)


def gradient(rng: np.random.Generator, first: Floats, second: Floats, size: int = SIZE) -> Floats:
    """Linear blend of two colours across the square in a random direction: 3×size×size."""
    along = np.clip(slope(rng, size) + 0.5, 0, 1)
    return np.asarray(first[:, None, None] + along * (second - first)[:, None, None])


def slope(rng: np.random.Generator, size: int = SIZE) -> Floats:
    """Height above a line through the middle in a random direction, size×size, within about ±0.7."""
    x, y = coordinates(size)
    turn = rng.uniform(0, 2 * math.pi)
    return math.cos(turn) * x + math.sin(turn) * y


@lru_cache(maxsize=1)
def _photos() -> tuple[Image.Image, ...]:
    from sklearn.datasets import load_sample_images

    return tuple(Image.fromarray(photo) for photo in load_sample_images().images)


def photo_patch(rng: np.random.Generator, sides: tuple[int, int] = (40, 200)) -> Floats:
    """A random square of one of scikit-learn's two sample photographs, 3×SIZE×SIZE, mirrored and tinted.

    `sides` bounds the square's side in the photograph's pixels.
    """
    photos = _photos()
    side = int(rng.integers(sides[0], sides[1] + 1))
    photo = photos[int(rng.integers(len(photos)))]
    left = int(rng.integers(0, photo.width - side + 1))
    top = int(rng.integers(0, photo.height - side + 1))
    patch = photo.resize(
        (SIZE, SIZE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side), reducing_gap=2.0
    )
    pixels = unit(patch)
    if rng.random() < 0.5:
        pixels = pixels[..., ::-1]
    gain = rng.uniform(0.6, 1.3, 3).astype(np.float32)
    return np.asarray(np.minimum(pixels * gain[:, None, None], 1))


@lru_cache(maxsize=64)
def _blur_rows(hundredths: int) -> Floats:
    sigma = hundredths / 100
    offsets = np.arange(SIZE)[:, None] - np.arange(SIZE)[None, :]
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def blur(picture: Floats, sigma: float) -> Floats:
    """Gaussian blur of a (3×)SIZE×SIZE picture; `sigma` in pixels, rounded to 0.05, no blur below 0.25."""
    if sigma < 0.25:
        return picture
    rows = _blur_rows(5 * round(sigma * 20))
    return rows @ picture @ rows.T


def camera(
    rng: np.random.Generator,
    picture: Floats,
    *,
    softness: tuple[float, float] = (0.0, 0.8),
    noise: tuple[float, float] = (0.01, 0.05),
    light: tuple[float, float] = (0.7, 1.25),
    tint: float = 0.08,
    shade: float = 0.25,
) -> Pixels:
    """Photograph a picture: uneven light, tint, gain, blur and sensor noise; SIZE×SIZE×3 uint8.

    `softness` bounds the blur's sigma (pixels), `noise` the noise's standard deviation, `light` the gain;
    `tint` is the largest change of one channel's gain and `shade` that of the light from one edge to the
    other.
    """
    gain = (rng.uniform(*light) * (1 + tint * rng.uniform(-1, 1, 3))).astype(np.float32)
    ramp = 1 + shade * rng.uniform(0, 1) * slope(rng)
    seen = blur(picture * (gain[:, None, None] * ramp), rng.uniform(*softness))
    seen = seen + rng.uniform(*noise) * rng.standard_normal(seen.shape, dtype=np.float32)
    return np.ascontiguousarray(np.rint(np.clip(seen, 0, 1) * 255).transpose(1, 2, 0), dtype=np.uint8)


def segment(start: Pair, end: Pair, width: float, x: Floats, y: Floats) -> Floats:
    """Mask of a straight stroke with round ends; all lengths in the units of `x` and `y`."""
    across, down = float(end[0] - start[0]), float(end[1] - start[1])
    u, v = x - float(start[0]), y - float(start[1])
    along = np.clip((u * across + v * down) / (across**2 + down**2 + 1e-9), 0, 1)
    distance = np.sqrt((u - along * across) ** 2 + (v - along * down) ** 2)
    return step(-distance, -width / 2, 1.5 / len(x))


def box(x: Floats, y: Floats, centre: Pair, half: Pair, turn: float = 0.0) -> Floats:
    """Mask of a filled rectangle with half-sides `half`, turned by `turn` radians."""
    cosine, sine = math.cos(turn), math.sin(turn)
    u, v = x - float(centre[0]), y - float(centre[1])
    inside = np.minimum(
        float(half[0]) - np.abs(cosine * u + sine * v), float(half[1]) - np.abs(cosine * v - sine * u)
    )
    return step(inside, 0, 1.5 / len(x))
