"""Sound bytes spoiled at random: bits, cuts, repeats, swaps, and words that have broken readers before."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

_NUMBERS = (
    "-1",
    "0",
    "1e999999",
    "1e-999999",
    "NaN",
    "-Infinity",
    "9" * 40,
    "18446744073709551615",
    "0x7f",
    "1/0",
)
_WORDS = (
    "",
    "null",
    "true",
    "[]",
    "{}",
    "[[[[[]]]]]",
    "*a",
    "&a [*a]",
    "!!python/none x",
    "~",
    "'",
    '"',
    "\x00",
    "\ud800",
)
_MORE = (
    "..",
    "/",
    "/dev/zero",
    "a" * 300,
    "<<: *a",
    "? ",
    "- ",
    ": ",
    "\t",
    "\r",
    "#",
    "é" * 9,
    "\u202e",
    "2026-13-45",
)
WORDS = tuple(chain(_NUMBERS, _WORDS, _MORE))
"""Texts that mean something else than what stands in their place."""


def spoiled(content: bytes, draws: random.Random, *, is_text: bool) -> bytes:
    """The content with one to four things done to it.

    Args:
        content: of a sound file.
        draws: decides what is done, and where.
        is_text: exchange words as well.
    """
    kinds = [_flip, _cut, _repeat, _swap, _zero] + [_word, _word, _word] * is_text
    for _ in range(draws.randint(1, 4)):
        content = draws.choice(kinds)(content, draws)
    return content


def _span(content: bytes, draws: random.Random) -> tuple[int, int]:
    start = draws.randrange(len(content) + 1)
    return start, min(len(content), start + int(draws.expovariate(1 / 12)) + 1)


def _flip(content: bytes, draws: random.Random) -> bytes:
    if not content:
        return b"\xff"
    found, place = bytearray(content), draws.randrange(len(content))
    found[place] ^= 1 << draws.randrange(8)
    return bytes(found)


def _cut(content: bytes, draws: random.Random) -> bytes:
    start, end = _span(content, draws)
    return content[:start] if draws.random() < 0.3 else content[:start] + content[end:]


def _repeat(content: bytes, draws: random.Random) -> bytes:
    start, end = _span(content, draws)
    return content[:end] + content[start:end] * draws.choice((1, 2, 50)) + content[end:]


def _swap(content: bytes, draws: random.Random) -> bytes:
    (a, b), (c, d) = sorted((_span(content, draws), _span(content, draws)))
    return content if b > c else content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _zero(content: bytes, draws: random.Random) -> bytes:
    start, end = _span(content, draws)
    return content[:start] + draws.choice((b"\x00", b"\xff")) * (end - start) + content[end:]


def _word(content: bytes, draws: random.Random) -> bytes:
    words = list(re.finditer(rb"[^\s,:\[\]{}\"']+", content))
    if not words:
        return b"x"
    place, new = draws.choice(words), draws.choice(WORDS).encode("utf-8", "surrogatepass")
    start = draws.choice((place.start(), place.end()))
    return content[:start] + new + content[place.end() :]
