"""Over the air: a victim that hears every clip in a room of its own, drawn by a key."""

from __future__ import annotations

from torch import Tensor, nn

from advgym.core.victim import Victim
from advgym.envs.speech.perturb import rooms


class OverAir(nn.Module):
    """Clips convolved with the response of a room for each key, then the victim's own answer."""

    def __init__(self, victim: Victim, rate: int) -> None:
        super().__init__()
        self.victim, self.rate, self.inner = victim, rate, victim.module  # inner: moved along with this module

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        heard = rooms.convolved(x, rooms.drawn(keys, self.rate))
        return self.victim(heard, keys) if self.victim.keyed else self.victim(heard)


def over_air(victim: Victim, rate: int, draws: int) -> Victim:
    """The victim behind a loudspeaker and a microphone.

    It draws at random, so an attack sees the mean of `draws` rooms, a success is confirmed in nine others, and the
    verdict is the majority over nine that nobody has been told of.

    Args:
        rate: samples per second; draws: rooms that one answer is the mean of.
    """
    return victim.like(OverAir(victim, rate), name=f"{victim.name} over the air", keyed=True, draws=draws)
