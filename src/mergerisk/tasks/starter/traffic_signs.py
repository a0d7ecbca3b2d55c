"""Traffic signs in the European style, before patches of real photographs or a blurred verge and sky."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from mergerisk.tasks.starter import drawing

if TYPE_CHECKING:
    from mergerisk.tasks.starter.drawing import Floats, Pixels

CLASS_NAMES = (
    "limit_30",
    "limit_50",
    "limit_70",
    "no_vehicles",
    "no_entry",
    "stop",
    "give_way",
    "priority_road",
    "warning",
    "bumpy_road",
    "turn_right",
    "turn_left",
    "straight_on",
    "end_of_limits",
)

_SIDE = 96
_RED, _BLUE, _WHITE, _BLACK, _YELLOW = (
    (196, 24, 36),
    (24, 84, 176),
    (244, 244, 240),
    (16, 16, 16),
    (250, 200, 24),
)
_OCTAGON = [(28, 2), (68, 2), (94, 28), (94, 68), (68, 94), (28, 94), (2, 68), (2, 28)]
_TRIANGLE = [(48, 6), (94, 88), (2, 88)]


def _write(picture: Image.Image, text: str, typeface: str, height: int, centre: tuple[int, int]) -> None:
    ink = drawing.glyph(typeface, text)
    width = min(round(ink.width * height / ink.height), 66)
    ink = ink.resize((width, height), Image.Resampling.BILINEAR)
    colour = _WHITE if text == "STOP" else _BLACK
    picture.paste(colour, (centre[0] - width // 2, centre[1] - height // 2), ink)


@lru_cache(maxsize=64)
def _sign(name: str, typeface: str) -> tuple[Image.Image, Image.Image]:
    """The sign seen from the front, _SIDE×_SIDE: its colours (RGB) and its outline (L)."""
    red_rim = name.startswith("limit") or name in ("no_vehicles", "no_entry", "stop", "give_way", "warning")
    picture = Image.new("RGB", (_SIDE, _SIDE), _RED if red_rim else _WHITE)
    outline = Image.new("L", (_SIDE, _SIDE))
    pen, edge = ImageDraw.Draw(picture), ImageDraw.Draw(outline)
    if name.startswith("limit") or name == "no_vehicles":
        edge.ellipse((2, 2, 94, 94), fill=255)
        pen.ellipse((15, 15, 81, 81), fill=_WHITE)
        if name != "no_vehicles":
            _write(picture, name.removeprefix("limit_"), typeface, 40, (48, 48))
    elif name == "no_entry":
        edge.ellipse((2, 2, 94, 94), fill=255)
        pen.rectangle((16, 38, 80, 58), fill=_WHITE)
    elif name == "stop":
        edge.polygon(_OCTAGON, fill=255)
        _write(picture, "STOP", typeface, 28, (48, 48))
    elif name == "give_way":
        edge.polygon([(x, 94 - y) for x, y in _TRIANGLE], fill=255)
        pen.polygon([(20, 18), (76, 18), (48, 66)], fill=_WHITE)
    elif name == "priority_road":
        edge.polygon([(48, 1), (95, 48), (48, 95), (1, 48)], fill=255)
        pen.polygon([(48, 20), (76, 48), (48, 76), (20, 48)], fill=_YELLOW)
    elif name in ("warning", "bumpy_road"):
        picture.paste(_RED, (0, 0, _SIDE, _SIDE))
        edge.polygon(_TRIANGLE, fill=255)
        pen.polygon([(48, 28), (77, 79), (19, 79)], fill=_WHITE)
        if name == "warning":
            pen.rectangle((44, 40, 52, 62), fill=_BLACK)
            pen.rectangle((44, 67, 52, 75), fill=_BLACK)
        else:
            pen.rectangle((28, 70, 68, 75), fill=_BLACK)
            pen.ellipse((31, 60, 47, 76), fill=_BLACK)
            pen.ellipse((49, 60, 65, 76), fill=_BLACK)
    elif name == "end_of_limits":
        edge.ellipse((2, 2, 94, 94), fill=255)
        for shift in (-9, 0, 9):
            pen.line((22 + shift, 78 + shift, 74 + shift, 18 + shift), fill=(90, 90, 90), width=5)
    else:
        picture.paste(_BLUE, (0, 0, _SIDE, _SIDE))
        edge.ellipse((2, 2, 94, 94), fill=255)
        pen.polygon([(48, 12), (70, 40), (54, 40), (54, 82), (42, 82), (42, 40), (26, 40)], fill=_WHITE)
        turn = {"turn_right": -90, "turn_left": 90, "straight_on": 0}[name]
        picture = picture.rotate(turn, fillcolor=_BLUE)
    return picture, outline


def _perspective(rng: np.random.Generator, side: float, centre: Floats, tilt: float) -> list[float]:
    """Coefficients for Pillow's PERSPECTIVE transform: a sign of width `side` (fraction) seen askew."""
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * side
    turn = np.deg2rad(rng.uniform(-tilt, tilt))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    seen = corners @ rotation.T * rng.uniform(0.8, 1.0, 2) + centre
    seen = (seen + rng.uniform(-0.05, 0.05, (4, 2))) * drawing.SUPER
    flat = np.array([[0, 0], [_SIDE, 0], [_SIDE, _SIDE], [0, _SIDE]], dtype=np.float64)
    rows = []
    for (u, v), (x, y) in zip(seen, flat, strict=True):
        rows.append([u, v, 1, 0, 0, 0, -x * u, -x * v])
        rows.append([0, 0, 0, u, v, 1, -y * u, -y * v])
    return [float(value) for value in np.linalg.solve(np.array(rows), flat.reshape(-1))]


def _roadside(rng: np.random.Generator) -> Floats:
    """Sky above, a dark verge below, the line between them uneven."""
    x, y = drawing.coordinates(drawing.SIZE)
    sky = drawing.colour(rng.uniform(0.52, 0.65), rng.uniform(0, 0.5), rng.uniform(0.5, 1.0))
    verge = drawing.colour(rng.uniform(0.08, 0.38), rng.uniform(0.1, 0.7), rng.uniform(0.12, 0.5))
    horizon = y + rng.uniform(-0.5, 0.5) + 0.5 * (drawing.cloud_noise(rng, 4) - 0.5) + rng.uniform(-1, 1) * x
    scene = drawing.paint(np.broadcast_to(sky[:, None, None], (3, *x.shape)), drawing.step(horizon, 0, 0.1), verge)
    return scene * (0.75 + 0.5 * drawing.cloud_noise(rng, 8))


def draw(rng: np.random.Generator, label: int) -> Pixels:
    """One picture of the sign `CLASS_NAMES[label]`."""
    typeface = str(rng.choice(["DejaVuSans-Bold", "DejaVuSansMono-Bold", "DejaVuSans"]))
    sign, outline = _sign(CLASS_NAMES[label], typeface)
    scene = drawing.photo_patch(rng) if rng.random() < 0.5 else _roadside(rng)
    centre = rng.uniform(0.46, 0.54, 2)
    data = _perspective(rng, rng.uniform(0.78, 1.0), centre, 10)
    size = (drawing.SUPER, drawing.SUPER)
    method, filtering = Image.Transform.PERSPECTIVE, Image.Resampling.BILINEAR
    front = drawing.unit(sign.transform(size, method, data=data, resample=filtering))
    alpha = drawing.unit(outline.transform(size, method, data=data, resample=filtering))
    faded = front * rng.uniform(0.75, 1) + rng.uniform(0, 0.15)
    picture = drawing.paint(scene, drawing.shrink(alpha), drawing.shrink(faded * rng.uniform(0.5, 1.0)))
    x, y = drawing.coordinates(drawing.SIZE)
    if rng.random() < 0.25:  # a shadow's edge across the sign
        dark = drawing.step(drawing.slope(rng), rng.uniform(-0.2, 0.3), 0.1)
        picture = picture * (1 - rng.uniform(0.3, 0.6) * dark)
    if rng.random() < 0.2:  # a twig or a pole in front
        start, end = rng.uniform(-0.6, 0.6, 2), rng.uniform(-0.6, 0.6, 2)
        twig = drawing.segment(start, end, rng.uniform(0.03, 0.07), x, y)
        picture = drawing.paint(picture, twig, drawing.colour(rng.uniform(0.05, 0.4), 0.5, 0.25))
    return drawing.camera(
        rng, picture, softness=(0.2, 1.2), noise=(0.01, 0.05), light=(0.45, 1.3), tint=0.12, shade=0.5
    )
