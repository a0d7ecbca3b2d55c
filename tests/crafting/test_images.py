"""Every kind of picture, and what becomes of what is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from mergerisk.crafting import images as module
from mergerisk.crafting.images import balanced, chunks, probe_images, read_batch, read_image
from mergerisk.errors import UserError
from mergerisk.tasks import decoding
from mergerisk.tasks.decoding import find_files
from tests.crafting.material import picture

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, image: Image.Image, **options: object) -> np.ndarray:
    image.save(path, **options)
    found = read_image(path)
    assert found.dtype == torch.float32
    return found.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "webp"])
def test_colours_are_exact(tmp_path: Path, ending: str) -> None:
    colours = picture(0, 5, 7)
    options = {"lossless": True} if ending == "webp" else {}
    found = read(tmp_path / f"a.{ending}", Image.fromarray(colours), **options)
    assert np.array_equal(found, colours.astype(np.float32) / 255)


def test_jpeg_is_close(tmp_path: Path) -> None:
    smooth = np.full((8, 8, 3), (200, 100, 50), dtype=np.uint8)
    assert np.abs(read(tmp_path / "a.jpg", Image.fromarray(smooth), quality=95) - smooth / 255).max() < 0.02


def test_grey_binary_and_palette(tmp_path: Path) -> None:
    grey = picture(0, 5, 7)[..., 0]
    found = read(tmp_path / "grey.png", Image.fromarray(grey))
    assert np.array_equal(found, np.repeat(grey[..., None].astype(np.float32) / 255, 3, axis=2))
    binary = grey > 128
    found = read(tmp_path / "binary.png", Image.fromarray(binary))
    assert np.array_equal(found[..., 1], binary.astype(np.float32))
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([1, 0])
    assert np.array_equal(read(tmp_path / "palette.png", palette)[0], [[0, 0, 1], [1, 0, 0]])


def test_what_is_transparent_is_put_on_black(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 100, 50, 255), (200, 100, 50, 0), (200, 100, 50, 102)])
    found = read(tmp_path / "a.png", image)[0] * 255
    assert np.abs(found - [[200, 100, 50], [0, 0, 0], [80, 40, 20]]).max() < 0.01


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_16_bits_are_kept(tmp_path: Path, ending: str) -> None:
    levels = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    found = read(tmp_path / f"a.{ending}", Image.fromarray(levels))
    assert np.array_equal(found[..., 2], levels.astype(np.float32) / 65535)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright = picture(0, 4, 6)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    found = read(tmp_path / "a.png", stored, exif=exif)
    assert np.array_equal(found, upright.astype(np.float32) / 255)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    Image.fromarray(picture(0, 20, 20)).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "floats.tiff")
    Image.fromarray(picture(0)).save(tmp_path / "animated.gif")
    (tmp_path / ".hidden").write_bytes(whole)
    (tmp_path / "within").mkdir()
    (tmp_path / "within" / "b.png").write_bytes(whole)
    names = find_files(tmp_path)
    assert names == [
        "animated.gif",
        "cut.png",
        "empty.jpg",
        "floats.tiff",
        "good.png",
        "notes.txt",
        "within/b.png",
    ]
    found, skipped = probe_images(tmp_path, names)
    assert [(file.name, file.size) for file in found] == [("good.png", (20, 20)), ("within/b.png", (20, 20))]
    reasons = {item.name: item.reason for item in skipped}
    assert reasons.keys() == {"animated.gif", "cut.png", "empty.jpg", "floats.tiff", "notes.txt"}
    assert "not one of PNG" in reasons["notes.txt"]
    assert "no known range" in reasons["floats.tiff"]
    assert all("\n" not in reason for reason in reasons.values())
    assert [file.name for file in probe_images(tmp_path, names, limit=1)[0]] == ["good.png"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "a.png").write_bytes(b"")
    (tmp_path / "data" / "cat" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat").symlink_to(tmp_path / "data" / "cat")
    assert [name for name in find_files(tmp_path / "images") if name == "cat/a.png"] == ["cat/a.png"]


def test_too_many_pixels_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(picture(0, 20, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(decoding, "MAX_PIXELS", 599)
    with pytest.raises(UserError, match=r"large\.png: 30 × 20 pixels; at most"):
        probe_images(tmp_path, ["large.png"])


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = Image.new("1", (30_000, 30_000))
    bomb.save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="at most 34 million"):
        read_image(tmp_path / "bomb.png")


def test_chunks_are_of_one_size_and_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(5):
        Image.fromarray(picture(index, 4, 4 + index % 2)).save(tmp_path / f"{index}.png")
    files, _ = probe_images(tmp_path, find_files(tmp_path))
    monkeypatch.setattr(module, "_CHUNK_IMAGES", 2)
    parts = list(chunks(files))
    assert [len(part) for part in parts] == [2, 1, 2]
    assert sorted(file for part in parts for file in part) == files
    assert read_batch(parts[0]).shape == (2, 3, 4, 4)
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match="changed while it was attacked"):
        read_batch(parts[0])


def test_any_beginning_of_the_order_is_balanced() -> None:
    labels = {f"{label}/{index}": label for label, count in enumerate((2, 5, 9)) for index in range(count)}
    order = balanced(labels, labels, 0)
    assert sorted(order) == sorted(labels)
    for stop, expected in ((3, [1, 1, 1]), (6, [2, 2, 2]), (8, [2, 3, 3]), (12, [2, 5, 5])):
        assert np.bincount([labels[name] for name in order[:stop]]).tolist() == expected
    fewer = {name: label for name, label in labels.items() if name != order[0]}
    kept = [name for name in balanced(fewer, fewer, 0) if labels[name] == 2]
    assert kept == [name for name in order if labels[name] == 2 and name != order[0]]
    assert balanced(labels, labels, 1) != order
