"""What is settled of a task before it is attacked, and what counts as a success in its rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from advgym.judge.results import Sample
from advgym.leaderboards.entries.entry import canonical
from advgym.leaderboards.rules.reasons import table

DISPUTE = "dispute:"  # attack name of rows that were handed in against a defense


class Facts(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The fixed ground of one score. `measure` of `advgym.leaderboards.runs.facts` takes it from a task.

    Attributes:
        attack: of the panel, on the defense track.
        knowledge: that the attack had. queries, gradients: budgets per sample.
        assigned: sample ids; right: those of them that the (defended) victim has right when clean, and that its
            detector lets pass. The others are not attacked.
        seeds: of the K runs.
        clean_accuracy: over the whole split, of the victim as attacked; clean_undefended: without the defense.
        control_rate: success of one random valid perturbation per sample.
        victim: SHA-256 of the weights; samples: of the ids and labels (`samples_hash`).
        members: of a bundle, which share one perturbation and are counted one by one; 1 for single samples.
        bars: of the task's columns, the least value of a valid success; columns_about: what columns are made with.
    """

    task: str
    attack: str = ""
    knowledge: str
    split: str
    queries: int
    gradients: int
    assigned: list[int]
    right: list[int]
    seeds: list[int]
    clean_accuracy: float
    clean_undefended: float = 0.0
    control_rate: float = 0.0
    victim: str = ""
    samples: str = ""
    flags: list[str] = []
    members: int = 1
    bars: dict[str, float] = {}
    columns_about: dict[str, str] = {}


def won(s: Sample) -> bool:
    """Whether a judged row is a success: said in positive form, so that NaN and infinities are failures."""
    from advgym.core.goals import SUCCESS  # torch, which pages that only show scores can do without

    finite = math.isfinite(s.objective) and math.isfinite(s.distance)
    return s.success and s.valid and finite and s.objective > SUCCESS


def share(s: Sample, members: int) -> float:
    """What a judged row of an attack brings: 1 for a success; of a bundle, the share of its members that turned."""
    if members == 1:
        return float(won(s))
    finite = math.isfinite(s.objective) and math.isfinite(s.distance)
    if not (s.valid and finite) or s.reason in table():  # an unfinished episode brings nothing
        return 0.0
    return sum(a != b for a, b in zip(s.after, s.before, strict=True)) / members


def lost(s: Sample, track: str) -> bool:
    """Whether a judged row is the attack's: a success; on the defense track, whatever is no plain failure.

    Doubt is the submission's: a defense that did not answer has rows without a finite objective, and they count.
    """
    return won(s) if track == "attack" else s.success


def samples_hash(split: str, ids: Sequence[int], labels: Any) -> str:
    """SHA-256 of a split's name, the ids assigned of it in order, and their true labels: data that moved shows."""
    return hashlib.sha256(canonical([split, list(ids), labels])).hexdigest()
