"""Randomness keyed by (seed, sample, query), never by the position in a batch.

A counter-based generator: every number is a hash of (seed, key, stream, index), so a sample draws the same
numbers alone or among a thousand, on the CPU and on a GPU (SplitMix64: Steele, Lea & Flood, 2014).
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The two's-complement reading of a 64-bit constant, as torch wants it."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def _scramble(seed: int) -> int:
    """`mix` of a Python integer: without it, seed s of key k would be seed k of key s."""
    z = seed * _GAMMA & (1 << 64) - 1
    for shift, factor in ((30, _MIX1), (27, _MIX2)):
        z = (z ^ z >> shift) * factor & (1 << 64) - 1
    return z ^ z >> 31


def mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser: int64 in, well-mixed int64 out, any shape."""
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _MIX1
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _MIX2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


def bits(seed: int, keys: Tensor, shape: tuple[int, ...] = (), stream: int = 0) -> Tensor:
    """63 random bits for each key: int64 (n, *shape), each in [0, 2**63)."""
    size = math.prod(shape)
    # Python integers wrap by hand; tensors wrap by themselves.
    head = _signed(_scramble(seed) + _signed(stream) * _MIX1)
    base = mix(mix(keys.to(torch.int64) * _GAMMA + head))
    index = torch.arange(1, size + 1, device=keys.device) * _GAMMA
    out = mix(base.unsqueeze(1) + index) & 0x7FFFFFFFFFFFFFFF
    return out.view(len(keys), *shape)


def uniform(seed: int, keys: Tensor, shape: tuple[int, ...] = (), stream: int = 0) -> Tensor:
    """Uniform float32 in [0, 1), shape (n, *shape).

    >>> keys = torch.tensor([7, 3])
    >>> torch.equal(uniform(0, keys, (2,))[1], uniform(0, keys[1:], (2,))[0])
    True
    """
    return (bits(seed, keys, shape, stream) >> 39).to(torch.float32) * 2.0**-24


def normal(seed: int, keys: Tensor, shape: tuple[int, ...] = (), stream: int = 0) -> Tensor:
    """Standard normal float32 (n, *shape), by Box and Muller (1958)."""
    u = uniform(seed, keys, (2, *shape), stream)
    radius = torch.sqrt(-2.0 * torch.log1p(-u[:, 0]))
    return radius * torch.cos((2.0 * math.pi) * u[:, 1])


def normal_pairs(seed: int, keys: Tensor, shape: tuple[int, ...] = (), stream: int = 0) -> Tensor:
    """As `normal`, other numbers at a quarter of the hashing: a word gives both uniforms, these both coordinates."""
    size = math.prod(shape)
    word = bits(seed, keys, (-(-size // 2),), stream)
    radius = ((word >> 32).to(torch.float32) * -(2.0**-31)).clamp_min_(-1 + 2.0**-24).log1p_().mul_(-2.0).sqrt_()
    angle = (word & 0xFFFFFFFF).to(torch.float32) * (math.pi * 2.0**-31)
    both = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)
    return both[:, :size].reshape(len(keys), *shape)


@lru_cache(maxsize=1024)
def _words(seed: int, purpose: str) -> tuple[int, int, int]:
    """Three secret words of a seed, one set for each purpose."""
    digest = hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=24).digest()
    first, second, third = (int.from_bytes(digest[i : i + 8], "little", signed=True) for i in (0, 8, 16))
    return first, second, third


def veiled(seed: int, purpose: str, ids: Tensor, nth: Tensor | int = 0, draw: int = 0) -> Tensor:
    """Keys int64 (n,) for the draws of a randomised model, of which it cannot tell what they are for.

    `mix` alone can be run backwards, so a model could read sample and query off its key and lie to attacks alone. Here
    a secret word goes in before each round (Even & Mansour 1997): whoever does not know the seed sees noise.

    >>> a, b = (veiled(7, purpose, torch.arange(3)) for purpose in ("answer", "verdict"))
    >>> bool((a != b).all())
    True
    """
    first, second, third = _words(seed, purpose)
    z = mix(ids.to(torch.int64) + first)
    z = mix(z + nth + second)
    return mix(z + draw + third)


class Draws:
    """A stream of keyed random numbers for the lanes of an environment; each call moves on.

    All shapes start with the number of lanes. Obtained from `env.draws(seed)`.
    """

    def __init__(self, seed: int, keys: Tensor) -> None:
        self.seed, self.keys, self._calls = int(seed), keys, 0

    def _next(self) -> int:
        self._calls += 1
        return self._calls

    def uniform(self, *shape: int) -> Tensor:
        """Uniform float32 in [0, 1), (lanes, *shape)."""
        return uniform(self.seed, self.keys, shape, self._next())

    def normal(self, *shape: int) -> Tensor:
        """Standard normal float32, (lanes, *shape)."""
        return normal(self.seed, self.keys, shape, self._next())

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers in [0, high), (lanes, *shape)."""
        return bits(self.seed, self.keys, shape, self._next()) % high
