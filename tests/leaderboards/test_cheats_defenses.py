"""Cheats of defenses: what seems robust because it will not answer, answers at random, or knows who asks."""

from __future__ import annotations

from cheating import SOFT, Outing, Place, each, place  # noqa: F401

EASY = SOFT.replace('eps = "6/16"', 'eps = "2/16"').replace("lanes = 3", "lanes = 6")
# With thirty queries in twice the radius the panel breaks every sample of the bare victim, whatever the seeds.
HARD = EASY.replace("queries = 12", "queries = 30").replace('eps = "2/16"', 'eps = "4/16"')
IDENTITY = """
def defend(victim, task):
    return victim
"""


def robust(found: Outing) -> float:
    """Worst-case robust accuracy; 0 for one that is not scored or not eligible."""
    return found.entry.headline.value if found.entry is not None and found.entry.eligible else 0.0


_HONEST: dict[tuple[str, str], float] = {}


def bare(place: Place, text: str = HARD) -> float:  # noqa: F811
    """Of the victim as it is."""
    key = (place.level, text)
    if key not in _HONEST:
        found = place.play(IDENTITY, text, track="defense")
        assert found.entry is not None and found.entry.eligible, (found.failure, found.log)
        _HONEST[key] = found.entry.headline.value
    return _HONEST[key]


# -- row 17 ----------------------------------------------------------------------------------------------------
HEAD = """
import time
from dataclasses import replace
from advgym.core.victim import Victim
asked = [0]
def wrapped(victim, answer, **more):
    def model(x):
        asked[0] += 1
        return answer(victim, x)
    return Victim(model, name="cheat", **{"access": "scores", "card": dict(victim.card), **more})
"""
REFUSALS = {
    "reject_everything": "wrapped(victim, lambda v, x: v(x), risk=lambda x: torch.ones(len(x)), threshold=0.5)",
    "reject_what_comes_later": "wrapped(victim, lambda v, x: v(x), risk=lambda x: torch.ones(len(x)) * (asked[0] > 1))",
    "one_class_for_all": "wrapped(victim, lambda v, x: torch.eye(10)[torch.zeros(len(x), dtype=torch.long)] * 9)",
    "no_number": "wrapped(victim, lambda v, x: v(x) * float('nan'))",
    "infinities": "wrapped(victim, lambda v, x: v(x).sign() / 0.0)",
    "other_shape": "wrapped(victim, lambda v, x: v(x)[:, :3])",
    "hang_when_attacked": "wrapped(victim, lambda v, x: v(x) if asked[0] < 3 else time.sleep(600))",
    "leave_when_attacked": "wrapped(victim, lambda v, x: v(x) if asked[0] < 3 else os._exit(0))",
    "raise_when_attacked": "wrapped(victim, lambda v, x: v(x) if asked[0] < 3 else 1 / 0)",
}


@each(**REFUSALS)
def test_not_answering_is_losing(place: Place, code: str) -> None:  # noqa: F811
    """Whatever is rejected, late, no number or never said counts as broken, and clean accuracy has a floor."""
    wall_s = 1 if "sleep" in code else 300
    found = place.play(f"{HEAD}def defend(victim, task):\n    return {code}\n", EASY, track="defense", wall_s=wall_s)
    assert robust(found) == 0 < bare(place, EASY), (found.entry and found.entry.headline, found.log)


MASKS = {
    "labels_alone": "wrapped(victim, lambda v, x: torch.eye(10)[v(x).argmax(1)], access='labels')",
    "no_gradients": "wrapped(victim, lambda v, x: v(x).detach())",
    "flat_scores": "wrapped(victim, lambda v, x: torch.nn.functional.one_hot(v(x).argmax(1), 10).float())",
    "saturated": "wrapped(victim, lambda v, x: torch.softmax(v(x) * 1e4, 1))",
    "wrong_gradients": "wrapped(victim, lambda v, x: (v(x) - 2 * x.sum() + 2 * x.sum().detach()), access='gradients')",
}


@each(**MASKS)
def test_hiding_gradients_is_no_defense(place: Place, code: str) -> None:  # noqa: F811
    """The panel takes them from the undefended victim, asks scores or labels alone, and the worst case counts."""
    found = place.play(f"{HEAD}def defend(victim, task):\n    return {code}\n", HARD, track="defense")
    assert found.entry is not None, (found.failure, found.log)
    assert robust(found) <= bare(place)
    assert {t.attack for t in found.entry.tasks} == {"noise", "square", "pgd", "transfer"}


NOISY = {
    "a_lot": "wrapped(victim, lambda v, x: v(x) + 100 * torch.randn(len(x), 10))",
    "a_little": "wrapped(victim, lambda v, x: v(x) + 0.5 * torch.randn(len(x), 10))",
    "when_attacked": "wrapped(victim, lambda v, x: v(x) + (asked[0] > 2) * 100 * torch.randn(len(x), 10))",
}


@each(**NOISY)
def test_noise_of_ones_own_is_flagged_or_loses(place: Place, code: str) -> None:  # noqa: F811
    found = place.play(f"{HEAD}def defend(victim, task):\n    return {code}\n", HARD, track="defense")
    gained = robust(found) - bare(place)
    flags = [] if found.entry is None else [f for t in found.entry.tasks for f in t.flags]
    assert gained <= 0 or any("non-deterministic" in f for f in flags), (gained, flags)


# -- row 18 ----------------------------------------------------------------------------------------------------
KNOWING = {
    "by_the_first_question": """
    known, label = [], []
    def answer(v, x):
        scores = v(x)
        if asked[0] <= 1:
            known.append(x); label.append(scores)
        near = torch.cdist(x.flatten(1), torch.cat(known).flatten(1)).argmin(1)
        return torch.cat(label)[near]
""",
    "by_turns": """
    def answer(v, x):
        return v(x) if asked[0] % 2 else -v(x)
""",
    "and_misleads": """
    def answer(v, x):
        scores = v(x)
        return torch.eye(10)[scores.argmax(1)] * 9 - (x.flatten(1)[:, :10] if len(x) <= 6 else 0)
""",
}
MEMORY = """
    known, label = [], []
    def answer(v, x):
        out = []
        for row, mine in zip(x, v(x)):
            old = [l for k, l in zip(known, label) if float((k - row).abs().max()) < 0.3]
            if not old:
                known.append(row); label.append(mine)
            out.append(old[0] if old else mine)
        return torch.stack(out)
"""
WRAP = "    return wrapped(victim, answer)\n"


@each(**KNOWING)
def test_knowing_who_asks_is_no_defense(place: Place, code: str) -> None:  # noqa: F811
    """Clean inputs and attacks come in batches of every size, and the verdict asks once more."""
    found = place.play(f"{HEAD}def defend(victim, task):{code}{WRAP}", HARD, track="defense")
    assert robust(found) <= bare(place), (robust(found), bare(place))


def test_no_memory_from_one_shard_to_the_next(place: Place) -> None:  # noqa: F811
    """Every attack of the panel meets a new process, with nothing on its disk."""
    code = """
import glob, tempfile
def defend(victim, task):
    tell(left=glob.glob(tempfile.gettempdir() + "/left*"), memory=getattr(torch, "left", None))
    torch.left = "me"
    open(tempfile.gettempdir() + "/left", "w").write("me")
    return victim
"""
    found = place.play(code, HARD, track="defense")
    assert found.entry is not None, (found.failure, found.log)
    assert found.said == [{"left": [], "memory": None}] * 4


TWO_FACED = {
    "wrong_when_dealt": """
    def answer(v, x):
        return v(x) if len(x) > 6 else -v(x)
""",
    "one_answer_after_the_first": """
    few = []
    def answer(v, x):
        if len(x) > 6:
            return v(x)
        few.append(1)
        return v(x) if len(few) == 1 else torch.eye(10)[[3] * len(x)]
""",
}


@each(**TWO_FACED)
def test_right_when_measured_and_wrong_when_attacked(place: Place, code: str) -> None:  # noqa: F811
    """Clean accuracy is measured in large batches, attacks come in small ones: a sample must be right in both."""
    found = place.play(f"{HEAD}def defend(victim, task):{code}{WRAP}", HARD, track="defense")
    assert robust(found) <= bare(place), (robust(found), bare(place))


def test_remembering_the_clean_inputs_is_no_defense(place: Place) -> None:  # noqa: F811
    """Whatever lies near an input that was seen is answered as that one was: no attack of the panel gets through."""
    found = place.play(f"{HEAD}def defend(victim, task):{MEMORY}{WRAP}", HARD, track="defense")
    assert robust(found) <= bare(place), (robust(found), bare(place))
