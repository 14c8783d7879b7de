"""No combination of cheats moves a score: every one is generated, run and held against the honest submission."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
from cheat_product import FIELD, PLAIN, TOLERANCE, Cheat, attacks, defenses
from cheating import LEVELS, Outing, Place, board_of, opened
from sandbox_play import need

from advgym.leaderboards.rules.opening import open_phase

HONEST = "def defend(victim, task):\n    return victim\n"
ATTACKS = FIELD.replace('eps = "2/16"', 'eps = "4/16"')


@cache
def hidden(text: str) -> Path:
    """A data folder in which the hidden phase of a board is open, with a victim that learnt for a second."""
    root = Path(tempfile.mkdtemp(prefix="advgym-product-"))
    with pytest.MonkeyPatch.context() as patch:
        tiny.train_shortly(patch)
        open_phase(board_of(text), "test", root)
    return root


def at(level: str) -> Place:
    """The level's place; one for all tests of this process."""
    need(level)
    return opened(level)


def play(place: Place, cheat: Cheat, text: str, phase: str) -> Outing:
    return place.play(cheat.code, text, track=cheat.track, phase=phase, root=hidden(text) if phase == "test" else None)


_HONEST: dict[tuple[str, str, str], float] = {}


def honest(place: Place, track: str, text: str, phase: str) -> float:
    """What the submission that does not cheat is given."""
    key = (place.level, track, phase)
    if key not in _HONEST:
        found = play(place, Cheat("honest", track, HONEST if track == "defense" else PLAIN), text, phase)
        assert found.entry is not None and found.entry.eligible, (found.failure, found.log)
        _HONEST[key] = found.entry.headline.value
    return _HONEST[key]


def given(found: Outing) -> float:
    """What a board would rank: 0 for what is not scored or not eligible."""
    return found.entry.headline.value if found.entry is not None and found.entry.eligible else 0.0


def gains_nothing(cheat: Cheat, level: str, text: str, phase: str) -> None:
    """It is scored, and not above the honest submission of its track.

    An attack's luck follows the archive's bytes (square alone breaks 12 to 18 of the 24 samples of one model), so that
    a gain has to hold for the same code in other archives.
    """
    place = at(level)
    bar = honest(place, cheat.track, text, phase) + TOLERANCE
    gains: list[float] = []
    for archive in ("", "\n# another archive", "\n# and another"):
        found = play(place, cheat._replace(code=cheat.code + archive), text, phase)
        assert found.entry is not None, (found.failure, found.log)
        gains.append(given(found))
        if gains[0] <= bar:
            return
    assert sum(gains) / len(gains) <= bar, gains


def cases(cheats: list[Cheat]) -> list[Any]:
    """Every combination once, at a level and in a phase that change from one to the next; every seventh is marked."""
    return [
        pytest.param(c, LEVELS[i % 2], ("dev", "test")[i // 2 % 2], id=f"{c.name}{'-few' * (i % 7 == 0)}")
        for i, c in enumerate(cheats)
    ]


@pytest.mark.parametrize(("cheat", "level", "phase"), cases(defenses()))
def test_no_defense_gains_by_cheating(cheat: Cheat, level: str, phase: str) -> None:
    """On the code of before: memory with zero gradients .375 to 1.000, a liar in two of ten draws .375 to .917."""
    gains_nothing(cheat, level, FIELD, phase)


@pytest.mark.parametrize(("cheat", "level", "phase"), cases(attacks()))
def test_no_attack_gains_by_pooling(cheat: Cheat, level: str, phase: str) -> None:
    """On the code of before: .750 to .917."""
    gains_nothing(cheat, level, ATTACKS, phase)
