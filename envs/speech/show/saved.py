"""A pair of clips as files: what was there, what the victim heard, and the difference, 16-bit wav each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgym.lib.files import write_atomic
from advgym.lib.media import wav

PARTS = ("clean", "adversarial", "difference")


def save(folder: str | Path, batch: Any, row: int, form: Tensor, *, task: Any) -> list[Path]:
    """Write `ID-clean.wav`, `ID-adversarial.wav` and `ID-difference.wav`; of a bundle `ID-MEMBER-...` for each member.

    Samples are exactly those that were stored and heard. A difference that does not fit in 16 bits is clipped.

    Args:
        folder: made where it is missing.
        form: of this row, canonical.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    rows = torch.tensor([row], device=batch.ids.device)
    clean, heard, length = (t.cpu() for t in batch.pairs(form.unsqueeze(0), rows))
    files = []
    for i, many in enumerate(length.tolist()):
        name = f"{int(batch.ids[row]):05d}" + (f"-{i:03d}" if len(length) > 1 else "")
        x, y = clean[i, :many].numpy(), heard[i, :many].numpy()
        for part, sound in zip(PARTS, (x, y, y - x), strict=True):
            path = place / f"{name}-{part}.wav"
            write_atomic(path, wav(sound, batch.rate))
            files.append(path)
    return files
