"""A frame of an attacked image: clean, perturbed and their signed difference."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from advgym.envs.image.show.pictures import Picture, _images, signed
from advgym.lib.canvas import Frame, pictures


def draw(batch: Picture, row: int, form: Tensor) -> Frame:
    """Uint8 (H, W, 3) of a fixed size; of a bundle its first member."""
    if batch.members > 1:
        index = torch.tensor([row], device=form.device)
        clean = batch.inputs(batch.look(batch.null()[:1] * 0, index).form, index)[0].detach().cpu()
        seen = batch.inputs(form.detach().unsqueeze(0), index)[0].detach().cpu()
    else:
        clean, seen = _images(batch, row, form)
    change = seen - clean
    tinted = signed(change, float(change.abs().max())).astype(np.float64)
    share = tinted[..., 3:] / 255
    difference = np.round(tinted[..., :3] * share + 244 * (1 - share)).astype(np.uint8)
    return pictures([("clean", _pixels(clean)), ("perturbed", _pixels(seen)), ("difference", difference)])


def _pixels(x: Tensor) -> Frame:
    """RGB of an image in [0, 1]; grey for any but three channels."""
    wide = x if len(x) == 3 else x.mean(0, keepdim=True).expand(3, -1, -1)
    return (wide * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
