"""Generic pictures on which the starter encoder is pretrained: about 130 classes, none of them a task's own.

The classes are printed letters that no task uses; doodles (smooth strokes through random points) in grey on
black; plain shapes in six colours before a landscape, with a letter on them; textures made by random recipes; and
simple layouts of lines, discs and blocks. They share the tasks' drawing helpers, but no class of theirs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from mergerisk.tasks.starter import drawing
from mergerisk.tasks.starter.letters import print_letter

if TYPE_CHECKING:
    from mergerisk.tasks.starter.drawing import Floats, Pixels

_PRINTED = "CDFIJNOPQUVWYZabdefghkmnqrty"
_MARKS = "ACDEFHJKLNPRTUY"

_SHAPES: tuple[tuple[str, tuple[tuple[float, float], ...]], ...] = (
    ("disc", tuple((math.cos(a * math.pi / 12), math.sin(a * math.pi / 12)) for a in range(24))),
    ("triangle", ((0, -1), (0.9, 0.7), (-0.9, 0.7))),
    ("square", ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85))),
    ("pentagon", tuple((math.sin(a * math.tau / 5), -math.cos(a * math.tau / 5)) for a in range(5))),
    ("half_disc", tuple((math.cos(a * math.pi / 12), 0.5 - math.sin(a * math.pi / 12)) for a in range(13))),
    ("cross", tuple((x * s, y * t) for s, t in ((1, 1), (-1, 1), (-1, -1), (1, -1))
                    for x, y in (((1, 0.35), (0.35, 0.35), (0.35, 1)) if s * t > 0
                                 else ((0.35, 1), (0.35, 0.35), (1, 0.35))))),
)  # fmt: skip
_HUES = (("red", 0.0), ("orange", 0.09), ("green", 0.36), ("blue", 0.6), ("purple", 0.8), ("pale", -1.0))

_DOODLES = 24
_TEXTURES = 20
_LAYOUTS = (
    *(f"{count}_lines" for count in (1, 2, 3, 4)),
    "narrow_wave",
    "wide_wave",
    "few_discs",
    "many_discs",
    "few_blocks",
    "some_blocks",
    "many_blocks",
    "straight_border",
    "wavy_border",
    "wedge",
    "crossing",
    "rings",
    "coarse_noise",
    "middle_noise",
    "fine_noise",
    "row_of_dots",
)

CLASS_NAMES: tuple[str, ...] = (
    *(f"printed_{letter}" for letter in _PRINTED),
    *(f"doodle_{number}" for number in range(_DOODLES)),
    *(f"shape_{hue}_{shape}" for shape, _ in _SHAPES for hue, _ in _HUES),
    *(f"texture_{number}" for number in range(_TEXTURES)),
    *(f"layout_{layout}" for layout in _LAYOUTS),
)


def draw(rng: np.random.Generator, label: int) -> Pixels:
    """One 32×32×3 picture of `CLASS_NAMES[label]`."""
    kind, _, rest = CLASS_NAMES[label].partition("_")
    if kind == "printed":
        return print_letter(rng, rest)
    if kind == "doodle":
        low = rng.uniform(0, 0.12)
        picture = np.stack([low + _doodle(rng, int(rest)) * (rng.uniform(0.55, 1) - low)] * 3)
    elif kind == "shape":
        picture = _shape(rng, *rest.split("_", 1))
    elif kind == "texture":
        picture = _texture(rng, int(rest))
    else:
        picture = _layout(rng, rest)
    return drawing.camera(rng, picture, softness=(0.0, 0.9), noise=(0.01, 0.06), shade=0.5)


@lru_cache(maxsize=_DOODLES)
def _doodle_points(number: int) -> tuple[tuple[float, float], ...]:
    rng = np.random.default_rng((77, number))
    points = [rng.uniform(-0.35, 0.35, 2)]
    while len(points) < 4 + number % 3:
        fresh = rng.uniform(-0.4, 0.4, 2)
        if np.hypot(*(fresh - points[-1])) > 0.3:
            points.append(fresh)
    return tuple((float(x), float(y)) for x, y in points)


def _doodle(rng: np.random.Generator, number: int) -> Floats:
    """A pen's path through the class's points, each a little off, as a smooth curve (Catmull-Rom)."""
    points = np.array(_doodle_points(number)) + rng.normal(0, 0.035, (len(_doodle_points(number)), 2))
    turn, size = math.radians(rng.uniform(-10, 10)), rng.uniform(0.85, 1.1)
    turned = points @ np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    placed = (turned * size * rng.uniform(0.8, 1.2, 2) + 0.5 + rng.uniform(-0.04, 0.04, 2)) * drawing.SUPER
    path = np.concatenate([placed[:1], placed, placed[-1:]])
    t = np.linspace(0, 1, 6, endpoint=False)[:, None]
    curve = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(path, path[1:], path[2:], path[3:], strict=False)
    ]
    picture = Image.new("L", (drawing.SUPER, drawing.SUPER))
    line = [(float(x), float(y)) for x, y in np.concatenate([*curve, placed[-1:]])]
    ImageDraw.Draw(picture).line(line, fill=255, width=int(rng.integers(3, 9)), joint="curve")
    return drawing.shrink(drawing.unit(picture))


def _shape(rng: np.random.Generator, hue: str, shape: str) -> Floats:
    """A plain shape of one colour before a photograph or cloudy ground, with a random glyph or bar on it."""
    tone = dict(_HUES)[hue]
    face = (
        drawing.colour(rng.random(), rng.uniform(0, 0.12), rng.uniform(0.7, 1))
        if tone < 0
        else drawing.colour(tone + rng.uniform(-0.03, 0.03), rng.uniform(0.6, 1), rng.uniform(0.4, 1))
    )
    size, turn = rng.uniform(0.38, 0.48), math.radians(rng.uniform(-10, 10))
    points = np.array(dict(_SHAPES)[shape]) * rng.uniform(0.85, 1.0, 2) * size
    points = points @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    points = points + 0.5 + rng.uniform(-0.06, 0.06, 2)
    scale = drawing.SUPER
    outline = Image.new("L", (scale, scale))
    corners = [(float(x) * scale, float(y) * scale) for x, y in points]
    ImageDraw.Draw(outline).polygon(corners, fill=255)
    ground = (
        drawing.photo_patch(rng)
        if rng.random() < 0.6
        else drawing.any_colour(rng)[:, None, None] * (0.6 + 0.6 * drawing.cloud_noise(rng, 5))
    )
    picture = drawing.paint(ground, drawing.shrink(drawing.unit(outline)), face)
    if rng.random() < 0.8:
        mark = drawing.place(
            drawing.glyph("DejaVuSans", _MARKS[int(rng.integers(len(_MARKS)))]),
            height=size * rng.uniform(0.6, 1.1),
            angle=rng.uniform(-20, 20),
            by_longest_side=True,
        )
        ink = drawing.grey(rng.uniform(0, 0.2) if drawing.luminance(face) > 0.5 else rng.uniform(0.8, 1))
        picture = drawing.paint(picture, mark, ink)
    return picture


def _texture(rng: np.random.Generator, number: int) -> Floats:
    """The class's recipe (waves, noise, their mix, sharpness) at a random turn, scale, phase and colours."""
    recipe = np.random.default_rng((78, number))
    waves = int(recipe.integers(2, 4))
    angles = np.cumsum(recipe.uniform(0.45, 1.1, waves))
    counts = recipe.uniform(3, 8, waves)
    mix, sharpness, speckle = number % 4, recipe.choice([0.4, 1.0, 2.5]), recipe.uniform(2.5, 14)
    share, squeeze = recipe.uniform(0, 1.2), recipe.uniform(1, 5)
    x, y = drawing.turned(rng, most=0.4, bend=0.1)
    scale = rng.uniform(0.75, 1.3)
    sines = [
        np.sin(2 * np.pi * scale * count * (math.cos(angle) * x + math.sin(angle) * y))
        for angle, count in zip(angles, counts, strict=True)
    ]
    if mix == 0:
        field = sum(sines[1:], sines[0]) / waves
    elif mix == 1:
        field = np.maximum(sines[0], sines[1]) - 0.3
    elif mix == 2:
        field = np.sin(2 * np.pi * scale * counts[0] * x + squeeze * sines[1])
    else:
        grains = drawing.cloud_noise(rng, max(2, round(speckle * scale)), drawing.SUPER, 2) - 0.5
        field = 3 * grains + share * sines[0]
    pattern = drawing.shrink(np.clip(field / sharpness + 0.5, 0, 1))
    low, high = drawing.dark_and_light(rng, 0.3)
    return drawing.paint(drawing.gradient(rng, low, np.clip(low * 1.2, 0, 1)), pattern, high)


def _layout(rng: np.random.Generator, name: str) -> Floats:
    """Lines, discs, blocks, borders or noise in any colours on uneven ground."""
    ground_ink, ink = drawing.dark_and_light(rng, 0.2)
    unevenness = rng.uniform(0.1, 0.6)
    field = drawing.cloud_noise(rng, int(rng.integers(2, 9)), drawing.SUPER)
    ground = ground_ink[:, None, None] * (1 + unevenness * (field - 0.5))
    x, y = drawing.turned(rng)
    x, y = x - x.mean(), y - y.mean()
    kind = name.rpartition("_")[2]
    if kind == "lines":
        gap, width = rng.uniform(0.12, 0.3), rng.uniform(0.02, 0.05)
        count = int(name[0])
        offsets = (np.arange(count) - (count - 1) / 2) * gap + rng.uniform(-0.1, 0.1)
        mask = drawing.step(-np.min([np.abs(x - offset) for offset in offsets], axis=0), -width, 0.02)
    elif kind == "wave":
        middle = rng.uniform(0.05, 0.2) * np.sin(2 * np.pi * rng.uniform(0.6, 1.2) * y + rng.uniform(0, 6.3))
        width = rng.uniform(0.02, 0.045) if name.startswith("narrow") else rng.uniform(0.08, 0.18)
        mask = drawing.step(-np.abs(x - middle), -width, 0.02)
    elif kind in ("discs", "blocks"):
        amount = name.partition("_")[0]
        count, size = {"few": (4, 0.17), "some": (9, 0.12), "many": (30, 0.06)}[amount]
        mask = np.zeros_like(x)
        for centre in drawing.scattered(rng, count, 0.55):
            if kind == "discs":
                reach = size * rng.uniform(0.7, 1.1)
                spot = drawing.step(reach - np.hypot(x - centre[0], y - centre[1]), 0, 0.02)
            else:
                spot = drawing.box(x, y, centre, size * rng.uniform(0.6, 1.2, 2), rng.uniform(-0.1, 0.1))
            mask = np.maximum(mask, spot * rng.uniform(0.6, 1))
    elif kind == "border":
        wave = 0.35 * (field - 0.5) if name.startswith("wavy") else 0
        mask = drawing.step(x + wave, rng.uniform(-0.2, 0.2), 0.03)
    elif kind == "wedge":
        mask = drawing.step(np.minimum(x, y), rng.uniform(-0.15, 0.1), 0.03)
    elif kind == "crossing":
        width = rng.uniform(0.03, 0.07)
        mask = drawing.step(-np.minimum(np.abs(x - rng.uniform(-0.15, 0.15)), np.abs(y)), -width, 0.02)
    elif kind == "rings":
        distance = np.hypot(x - rng.uniform(-0.2, 0.2), y - rng.uniform(-0.2, 0.2))
        mask = drawing.step(np.sin(2 * np.pi * rng.uniform(3, 6) * distance), 0, 0.5)
    elif kind == "dots":
        pitch = rng.uniform(0.15, 0.25)
        mask = drawing.step(-np.hypot(x, (y / pitch % 1 - 0.5) * pitch), -pitch * rng.uniform(0.2, 0.35), 0.02)
    else:
        cells = {"coarse": 3, "middle": 8, "fine": 22}[name.partition("_")[0]]
        mask = np.clip(drawing.smooth_noise(rng, int(cells * rng.uniform(0.85, 1.2)), drawing.SUPER), 0, 1)
    return drawing.shrink(np.clip(drawing.paint(ground, mask, ink), 0, 1))
