"""Lines of text, drawn: what a recogniser reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from advgym.errors import DataError


def rendered(texts: Sequence[str], *, height: int = 48, width: int = 320, size: int = 28) -> list[tuple[Tensor, Any]]:
    """Black on white in Pillow's own font, as samples for `image/caption`: (image float32 (1, H, W), None) each.

    The label None stands for what the victim reads itself.

    Raises:
        DataError: for a text that does not fit, or a Pillow without FreeType.
    """
    from PIL import Image, ImageDraw, ImageFont

    try:
        font = ImageFont.load_default(size)
    except (ImportError, TypeError) as error:
        raise DataError(f"drawing lines needs a Pillow of 10.1 or later with FreeType: {error}") from None
    out: list[tuple[Tensor, Any]] = []
    for text in texts:
        picture = Image.new("L", (width, height), 255)
        pen = ImageDraw.Draw(picture)
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        if right - left > width - 8 or bottom - top > height:
            raise DataError(f"{text!r} is {right - left:.0f} pixels wide; {width - 8} fit: shorten it, or raise width=")
        pen.text((4 - left, (height - bottom - top) / 2), text, fill=0, font=font)
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(1, height, width)
        out.append((pixels.float() / 255, None))
    return out
