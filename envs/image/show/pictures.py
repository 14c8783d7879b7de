"""Pictures of an attack: clean image, what the victim saw, and their signed difference."""

from __future__ import annotations

from html import escape

import numpy as np
import torch
from torch import Tensor

from advgym.core.field import FieldBatch
from advgym.core.task import Task
from advgym.envs.image.perturb.pixels import PixelBatch
from advgym.lib.media import png, uri

UP, DOWN = (214, 69, 26), (29, 99, 214)  # brighter, darker; drawn on any ground, opaque at the scale's ends
Picture = FieldBatch | PixelBatch
SIDE = 136  # CSS pixels
_FIGURE = (
    '<figure style="margin:0;width:{side}px"><img src="{source}" alt="{alt}" width="{side}" style="display:block;'
    "width:{side}px;height:auto;image-rendering:pixelated;border:1px solid var(--line);border-radius:6px;"
    'background:{ground}"><figcaption style="margin-top:6px;font-size:13px;line-height:1.35;color:var(--muted)">'
    "{caption}</figcaption></figure>"
)


def show(batch: Picture, row: int, form: Tensor, before: Tensor, after: Tensor, *, task: Task) -> str:
    """Three pictures side by side as an HTML fragment: clean, adversarial, difference with its scale."""
    clean, seen = _images(batch, row, form)
    old, new = task.goal.describe(before), task.goal.describe(after)
    change = seen - clean
    scale = float(change.abs().max())
    end = _amount(scale, batch.lattice)
    colour = "var(--bad)" if old != new else "var(--good)"
    words = measure(batch, row, clean, seen)
    bar = (
        '<span style="display:flex;align-items:center;gap:5px;font-variant-numeric:tabular-nums">'
        f'<span>&minus;{end}</span><span style="flex:1;height:7px;border-radius:4px;border:1px solid var(--line);'
        f'background:linear-gradient(90deg,rgb{DOWN},transparent,rgb{UP})"></span><span>+{end}</span></span>'
    )
    figures = (
        _figure(_picture(clean), f"clean image, answered {old}", "clean", old, "var(--ink)"),
        _figure(_picture(seen), f"perturbed image, answered {new}", "perturbed", new, colour),
        _FIGURE.format(
            side=SIDE,
            source=uri("image/png", png(signed(change, scale))),
            alt=escape(f"signed difference: {words}", quote=True),
            caption=f"{bar}{escape(words)}",
            ground="transparent",
        ),
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:14px;color:var(--ink)">{"".join(figures)}</div>'


def line(
    batch: Picture, row: int, form: Tensor, before: Tensor | None = None, after: Tensor | None = None, *, task: Task
) -> str:
    """What was done to the image, in one line; with the answers before and after where they are given."""
    words = measure(batch, row, *_images(batch, row, form))
    if before is None or after is None:
        return words
    return f"{task.goal.describe(before)} -> {task.goal.describe(after)}, {words}"


def measure(batch: Picture, row: int, clean: Tensor, seen: Tensor) -> str:
    """The distance in words: "2/16 in L-infinity on 41 of 64 pixels"."""
    change = seen - clean
    if isinstance(batch, PixelBatch):
        moved, of = int((change != 0).sum()), change.numel()
        return f"{moved} of {of} {'pixels' if len(clean) == 1 else 'values'} set"
    moved, of = int((change != 0).any(0).sum()), change[0].numel()
    exact = change.double().flatten()
    if batch.norm == "l0":
        return f"{int((exact != 0).sum())} values on {moved} of {of} pixels"
    if batch.norm == "linf":
        size = f"{_amount(float(exact.abs().max()), batch.lattice)} in L-infinity"
    else:
        size = f"{float(exact.norm(p=2 if batch.norm == 'l2' else 1)):.3g} in {batch.norm.upper()}"
    return f"{size} on {moved} of {of} pixels"


def _images(batch: Picture, row: int, form: Tensor) -> tuple[Tensor, Tensor]:
    """(clean, what the victim saw), float32 (C, H, W) on the CPU."""
    seen = batch.inputs(form.detach().unsqueeze(0), torch.tensor([row], device=form.device))[0]
    return batch.x[row].detach().cpu(), seen.detach().cpu()


def _amount(size: float, lattice: int | None) -> str:
    return f"{round(size * lattice)}/{lattice}" if lattice else f"{size:.3g}"


def _figure(source: str, alt: str, title: str, answer: str, colour: str) -> str:
    caption = f'{title} <strong style="color:{colour};font-size:15px">{escape(answer)}</strong>'
    return _FIGURE.format(side=SIDE, source=source, alt=escape(alt, quote=True), caption=caption, ground="#000")


def _picture(x: Tensor) -> str:
    """A PNG data URI of an image in [0, 1]; colour for three channels, else the mean as grey."""
    grey = x if len(x) == 3 else x.mean(0, keepdim=True)
    pixels = (grey * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return uri("image/png", png(pixels))


def signed(change: Tensor, scale: float) -> np.ndarray:
    """RGBA uint8 (H, W, 4) of a change (C, H, W): the channel that moved most, its sign as hue, its size as opacity."""
    most = change.gather(0, change.abs().argmax(0, keepdim=True))[0].numpy()
    hue = np.where(most[..., None] > 0, np.array(UP), np.array(DOWN))
    opacity = np.round(255 * np.abs(most) / (scale or 1.0))
    return np.concatenate([hue, opacity[..., None]], -1).astype(np.uint8)
