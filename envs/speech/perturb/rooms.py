"""Room impulse responses of shoebox rooms by the image-source method (Allen & Berkley 1979), batched over rooms.

A wall reflects like a mirror: the sound of one source in a room is that of a lattice of image sources in the open, each
weaker by the walls that its path has met. All rooms of a call are computed at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from advgym.core import rng

SPEED = 343.0  # metres per second
LEAST = (3.0, 3.0, 2.4)  # metres, of the rooms that are drawn
MOST = (6.0, 5.0, 3.2)
ABSORB = (0.4, 0.8)  # of the power that meets a wall
APART = (0.4, 1.5)  # metres from the loudspeaker to the microphone, at most so far
MARGIN = 0.3  # metres from every wall
TAIL = 0.1  # seconds of an impulse response
STREAM = 51


def images(room: Tensor, source: Tensor, order: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Positions (m, I, 3) of the image sources in metres, and how many walls each path has met, int64 (I,).

    Args:
        room: (m, 3), the sides; source: (m, 3).
        order: for each axis N: images in the 2N + 1 pairs of mirrored rooms around the real one.
    """
    axes, walls = [], []
    for axis, n in enumerate(order):
        far = torch.arange(-n, n + 1, device=room.device).repeat(2)
        turned = torch.arange(2, device=room.device).repeat_interleave(2 * n + 1)
        side = room[:, axis : axis + 1]
        axes.append((1 - 2 * turned) * source[:, axis : axis + 1] + 2 * far * side)
        walls.append((far - turned).abs() + far.abs())
    x, y, z = axes
    m, a, b, c = len(room), x.shape[1], y.shape[1], z.shape[1]
    place = torch.stack([
        x.view(m, a, 1, 1).expand(m, a, b, c), y.view(m, 1, b, 1).expand(m, a, b, c),
        z.view(m, 1, 1, c).expand(m, a, b, c),
    ], -1)  # fmt: skip
    met = walls[0].view(a, 1, 1) + walls[1].view(1, b, 1) + walls[2].view(1, 1, c)
    return place.flatten(1, 3), met.flatten()


def orders(least: Sequence[float], seconds: float) -> tuple[int, ...]:
    """How far images go so that none within `seconds` of sound is missing in rooms of at least these sides."""
    return tuple(math.ceil(SPEED * seconds / (2 * side)) + 1 for side in least)


def arrivals(
    room: Tensor, source: Tensor, mic: Tensor, absorb: Tensor, order: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """(paths in metres (m, I), gains (m, I), the direct path (m,)): a gain is (1 - absorb)^(walls/2) / (4 pi path)."""
    place, met = images(room, source, order)
    path = torch.linalg.vector_norm(place - mic.unsqueeze(1), dim=2).clamp_min(1e-3)
    kept = (1 - absorb).sqrt().unsqueeze(1) ** met
    direct = torch.linalg.vector_norm(source - mic, dim=1).clamp_min(1e-3)
    return path, kept / (4 * math.pi * path), direct


def respond(
    room: Tensor, source: Tensor, mic: Tensor, absorb: Tensor, *, rate: int, samples: int, order: Sequence[int] = (),
    aligned: bool = False,
) -> Tensor:  # fmt: skip
    """Impulse responses, float32 (m, samples).

    An arrival between two samples is shared by both, so sums of gains are exact. All walls absorb alike.

    Args:
        room, source, mic: (m, 3) in metres; absorb: (m,) in [0, 1], of power.
        order: of the images; () for as many as `samples` can hold.
        aligned: the direct path comes at 0 with gain 1, as of a receiver that waits and sets its level.
    """
    far = order or orders(room.amin(0).tolist(), samples / rate)
    path, gain, direct = arrivals(room, source, mic, absorb, far)
    if aligned:
        path, gain = path - direct.unsqueeze(1), gain * (4 * math.pi * direct).unsqueeze(1)
    at = path * (rate / SPEED)
    first = at.floor()
    share = at - first
    index = first.long().clamp(0, samples)
    # Many arrivals share a sample: in float64 their sum does not hang on the order in which a card adds.
    out, gain, share = (
        torch.zeros(len(room), samples + 2, device=room.device, dtype=torch.float64),
        gain.double(),
        share.double(),
    )
    out.scatter_add_(1, index, torch.where(first < samples, gain * (1 - share), 0.0))
    out.scatter_add_(1, index + 1, torch.where(first < samples, gain * share, 0.0))
    return out[:, :samples].to(room.dtype)


def drawn(keys: Tensor, rate: int) -> Tensor:
    """The impulse responses of one room for each key, aligned, float32 (n, taps): any size, walls and places."""
    u = rng.uniform(0, keys, (12,), STREAM)
    least, most = (torch.tensor(v, device=keys.device) for v in (LEAST, MOST))
    room = least + u[:, :3] * (most - least)
    source, other = (MARGIN + u[:, k : k + 3] * (room - 2 * MARGIN) for k in (3, 6))
    absorb = ABSORB[0] + u[:, 9] * (ABSORB[1] - ABSORB[0])
    # Any point lies in some direction: the microphone is so far along it, or there where it is nearer.
    way = other - source
    size = torch.linalg.vector_norm(way, dim=1).clamp_min(1e-3)
    wanted = APART[0] + u[:, 10] * (APART[1] - APART[0])
    mic = source + way * (torch.minimum(wanted, size) / size).unsqueeze(1)
    taps = round(rate * TAIL)
    return respond(room, source, mic, absorb, rate=rate, samples=taps, order=orders(LEAST, TAIL), aligned=True)


def convolved(x: Tensor, response: Tensor) -> Tensor:
    """Clips (n, samples) as heard through their responses (n, taps), cut to their own length; differentiable in x."""
    wide = x.shape[1] + response.shape[1] - 1
    size = 1 << (wide - 1).bit_length()
    out = torch.fft.irfft(torch.fft.rfft(x, n=size) * torch.fft.rfft(response, n=size), n=size)
    return out[:, : x.shape[1]]


def sabine(room: Tensor, absorb: Tensor) -> Tensor:
    """Sabine's reverberation time in seconds, (m,): 24 ln 10 / c times the volume over the absorbing area."""
    x, y, z = room.unbind(1)
    area = 2 * (x * y + y * z + z * x)
    return 24 * math.log(10) / SPEED * x * y * z / (area * absorb)


def decay_time(response: Tensor, rate: int, low: float = -5.0, high: float = -25.0) -> Tensor:
    """Reverberation time in seconds of responses (m, samples): Schroeder's (1965) backward integral, -5 to -25 dB."""
    energy = response.double().square().flip(1).cumsum(1).flip(1)
    db = 10 * torch.log10(energy / energy[:, :1])
    start, end = ((db > level).sum(1) for level in (low, high))
    fall = db.gather(1, start.unsqueeze(1)) - db.gather(1, end.clamp_max(db.shape[1] - 1).unsqueeze(1))
    return (60 / fall.squeeze(1) * (end - start) / rate).float()
