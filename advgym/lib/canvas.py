"""Frames of a fixed size, drawn with Pillow: pictures side by side, marked words, lines and circles, a caption.

All functions give uint8 (height, width, 3). Pillow is imported where it is used; it comes with the extra `report`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advgym.errors import AdvgymError

Frame = NDArray[np.uint8]
SIZE = (480, 300)  # width and height of what a domain draws
STRIP = 60  # height of the caption below it
INK, MUTED, LINE, GROUND = (31, 35, 40), (110, 118, 129), (208, 215, 222), (255, 255, 255)
ADDED, GONE = (188, 62, 16), (92, 99, 110)  # what came in, what went
GOOD, BAD = (26, 127, 55), (200, 16, 46)
FINE = 2  # lines are drawn so many times larger and made smaller again, so that they are smooth


def _pillow() -> Any:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise AdvgymError("drawing needs Pillow, which the extra `report` brings: pip install pillow") from None
    return Image, ImageDraw, ImageFont


@cache
def font(size: int) -> Any:
    """Pillow's own font at a size in pixels."""
    return _pillow()[2].load_default(size)


def sheet(size: tuple[int, int] = SIZE) -> tuple[Any, Any]:
    """(a white image of `FINE` times the size, what draws on it)."""
    image, draw, _ = _pillow()
    made = image.new("RGB", (size[0] * FINE, size[1] * FINE), GROUND)
    return made, draw.Draw(made)


def frame(made: Any) -> Frame:
    """A sheet at its size."""
    small = made.resize((made.width // FINE, made.height // FINE), _pillow()[0].Resampling.BOX)
    return np.asarray(small, np.uint8).copy()


def shorten(text: str, size: int, width: float) -> str:
    """The text, cut between words with an ellipsis where it is wider than `width` pixels."""
    letters = font(size)
    if letters.getlength(text) <= width:
        return text
    words = text.split()
    while len(words) > 1 and letters.getlength(" ".join(words) + " ...") > width:
        words.pop()
    text = " ".join(words) + " ..."
    while len(text) > 4 and letters.getlength(text) > width:
        text = text[:-5] + " ..."
    return text


def pictures(named: Sequence[tuple[str, Frame]], size: tuple[int, int] = SIZE) -> Frame:
    """Pictures (H, W, 3) side by side, each with its name above it, pixels kept square and sharp."""
    made, draw = sheet(size)
    image = _pillow()[0]
    gap, top = 12, 26
    wide = (size[0] - gap * (len(named) + 1)) // len(named)
    for i, (name, pixels) in enumerate(named):
        high, long = pixels.shape[:2]
        scale = min(wide / long, (size[1] - top - gap) / high)
        box = (max(1, int(long * scale)), max(1, int(high * scale)))
        part = image.fromarray(pixels).resize((box[0] * FINE, box[1] * FINE), image.Resampling.NEAREST)
        x, y = gap + i * (wide + gap) + (wide - box[0]) // 2, top + (size[1] - top - gap - box[1]) // 2
        made.paste(part, (x * FINE, y * FINE))
        draw.rectangle([x * FINE - 1, y * FINE - 1, (x + box[0]) * FINE, (y + box[1]) * FINE], outline=LINE)
        draw.text((x * FINE, (y - 20) * FINE), shorten(name, 13 * FINE, box[0] * FINE), MUTED, font=font(13 * FINE))
    return frame(made)


def words(pieces: Iterable[tuple[str, str]], size: tuple[int, int] = SIZE) -> Frame:
    """Text that wraps between words; pieces are (text, mark): "" plain, "gone" struck through, "added" coloured.

    The letters are as large as the text allows, and a text that is too long for the smallest ends in an ellipsis.
    """
    several = [(word, mark) for text, mark in pieces for word in text.split()]
    for letters in (22, 18, 15, 13, 11):
        placed, fits = _placed(several, letters, size)
        if fits:
            break
    made, draw = sheet(size)
    for word, mark, x, y in placed:
        colour = {"added": ADDED, "gone": GONE}.get(mark, INK)
        draw.text((x * FINE, y * FINE), word, colour, font=font(letters * FINE))
        wide, middle = font(letters * FINE).getlength(word), (y + letters * 0.68) * FINE
        if mark == "gone":
            draw.line([x * FINE, middle, x * FINE + wide, middle], BAD, 2 * FINE)
        if mark == "added":
            low = (y + letters * 1.22) * FINE
            draw.line([x * FINE, low, x * FINE + wide, low], ADDED, FINE)
    return frame(made)


def _placed(
    several: Sequence[tuple[str, str]], letters: int, size: tuple[int, int]
) -> tuple[list[tuple[str, str, float, float]], bool]:
    """(word, mark, x, y) of each, and whether all are on the sheet."""
    edge, high = 16, letters * 1.6
    x, y, found = float(edge), float(edge), list[tuple[str, str, float, float]]()
    for word, mark in several:
        word = shorten(word, letters, size[0] - 2 * edge)
        wide = font(letters * FINE).getlength(word) / FINE
        if x > edge and x + wide > size[0] - edge:
            x, y = float(edge), y + high
        if y + high > size[1]:
            return [*found[:-1], ("...", "", *found[-1][2:])] if found else [], False
        found.append((word, mark, x, y))
        x += wide + letters * 0.35
    return found, True


def captioned(panel: Frame, title: str, said: str, changed: bool, told: str) -> Frame:
    """The panel with a strip below it: what it is, the answers, and how much was spent."""
    height, width = panel.shape[:2]
    made, draw = sheet((width, STRIP))
    draw.line([0, 0, width * FINE, 0], LINE, FINE)
    rows = ((title, 6, MUTED, 12), (said, 23, BAD if changed else INK, 15), (told, 43, MUTED, 12))
    for text, y, colour, letters in rows:
        draw.text((12 * FINE, y * FINE), shorten(text, letters * FINE, (width - 24) * FINE), colour,
                  font=font(letters * FINE))  # fmt: skip
    out: Frame = np.concatenate([panel, frame(made)], 0)
    assert out.shape == (height + STRIP, width, 3)
    return out
