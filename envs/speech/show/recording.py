"""A recording before and after, to look at and to listen to; self-contained HTML, and one line of text."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advgym.core.goals import BundleGoal
from advgym.envs.speech.measures.levels import peak_db, snr_db
from advgym.envs.speech.show.aligned import table
from advgym.envs.speech.show.spectra import change_picture, framed, picture, power_db, scale
from advgym.lib.media import uri, wav

SHOWN = 1  # members of a bundle that are drawn; all are listed


def pair(batch: Any, row: int, form: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(clean, perturbed, lengths) of a row's members."""
    rows = torch.tensor([row], device=batch.ids.device)
    found: tuple[Tensor, Tensor, Tensor] = batch.pairs(form.detach().unsqueeze(0), rows)
    return found


def measures(batch: Any, row: int, form: Tensor) -> tuple[float, float]:
    """(power SNR in dB, dB_x) of one row; of a bundle the mean over its members."""
    clean, heard, _ = pair(batch, row, form)
    return float(snr_db(clean, heard - clean).mean()), float(peak_db(clean, heard - clean).mean())


def level(snr: float) -> str:
    """A ratio in words.

    >>> level(float("inf"))
    'unchanged'
    """
    return "unchanged" if snr == float("inf") else f"SNR {snr:.1f} dB"


def line(batch: Any, row: int, form: Tensor, before: Any = None, after: Any = None, *, task: Any) -> str:
    """One clip in a line: `"three seven" -> "tree", SNR 24.1 dB`; of a bundle, how many members reached the goal.

    Answers that are not given stay out: asking the victim here would be a query that nobody counts.
    """
    noise = level(measures(batch, row, form)[0])
    if before is None or after is None:
        seconds = pair(batch, row, form)[2].double().mean() / batch.rate
        what = "clip" if batch.members == 1 else f"{batch.members} clips of bundle"
        return f"{what} {int(batch.ids[row])}, {float(seconds):.2f} s, {noise}"
    return f"{task.goal.describe(before)} -> {task.goal.describe(after)}, {noise}"


def show(batch: Any, row: int, form: Tensor, before: Any, after: Any, *, task: Any) -> str:
    """Transcripts word by word, spectrograms of both clips and of their difference, and players of all three."""
    clean, heard, lengths = (t.cpu() for t in pair(batch, row, form))
    old, new = _said(task, before), _said(task, after)
    snr, peak = measures(batch, row, form)
    size = "unchanged" if snr == float("inf") else f"{level(snr)}, dB<sub>x</sub> {peak:.1f}"
    parts = []
    for i in range(min(SHOWN, len(clean))):
        many = int(lengths[i])
        words = table([("clean", old[i]), ("perturbed", new[i])])
        parts.append(words + _clips(clean[i, :many].numpy(), heard[i, :many].numpy(), batch.rate, old[i], new[i]))
    rest = ""
    if len(clean) > SHOWN:
        listed = "".join(table([("clean", a), ("perturbed", b)]) for a, b in zip(old[SHOWN:], new[SHOWN:], strict=True))
        rest = (
            f'<details style="margin-top:8px"><summary style="color:var(--muted);font-size:.8em">the other '
            f"{len(clean) - SHOWN} clips of the bundle</summary>{listed}</details>"
        )
    return (
        '<div style="background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:12px 14px;'
        f'max-width:980px">{"".join(parts)}<div style="color:var(--muted);font-size:.8em;margin-top:8px">perturbation: '
        f"{size}</div>{rest}</div>"
    )


def _said(task: Any, output: Any) -> list[str]:
    """The answers for each member, without the quotes of a transcript."""
    many = torch.as_tensor(output)
    goal = task.goal.inner if isinstance(task.goal, BundleGoal) else task.goal
    rows = many if isinstance(task.goal, BundleGoal) else many.unsqueeze(0)
    return [goal.describe(row).removeprefix('"').removesuffix('"') for row in rows]


def _clips(x: NDArray[np.float32], y: NDArray[np.float32], rate: int, old: str, new: str) -> str:
    loudest, seconds = float(power_db(x, rate).max()), len(x) / rate
    change = y - x
    top = float(np.abs(change).max())
    quiet = np.clip(change / top * 0.5, -1, 1).astype(np.float32) if 0 < top < 0.25 else change
    louder = f", played {20 * np.log10(0.5 / top):.0f} dB louder" if 0 < top < 0.25 else ""
    cells = [
        ("clean", f"heard as {old}", picture(x, rate, loudest), x, ""),
        ("perturbed", f"heard as {new}", picture(y, rate, loudest), y, ""),
        (f"difference{louder}", "what was added or taken away", change_picture(x, y, rate, loudest), quiet, scale()),
    ]
    player = "width:100%;height:32px;margin-top:4px;color-scheme:light dark"
    return '<div style="display:flex;flex-wrap:wrap;gap:14px 18px">' + "".join(
        f'<figure style="margin:0;flex:1 1 250px;min-width:0">'
        f'<figcaption style="color:var(--muted);font-size:.8em;margin-bottom:2px">{what}, {seconds:.2f} s</figcaption>'
        f"{framed(image, seconds, rate, html.escape(f'spectrogram, {what}: {said}'))}{under}"
        f'<audio controls preload="metadata" aria-label="{what} recording" style="{player}" '
        f'src="{uri("audio/wav", wav(sound, rate))}"></audio></figure>'
        for what, said, image, sound, under in cells
    ) + "</div>"  # fmt: skip
