"""A board's worker on the card: shards, the boundary and its second answers, with the sandbox's side in a thread."""

import socket
import sys
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path

import msgspec
import pytest
import torch
from pretend import joined
from same import both, differences

import advgym
from advgym import registry
from advgym.judge.evaluator import evaluator
from advgym.leaderboards.boundary.inside import enter
from advgym.leaderboards.entries.card import read_card
from advgym.leaderboards.rules.board_tables import BoardTask, Defended, Phase, Shards
from advgym.leaderboards.runs.evaluate import evaluate
from advgym.leaderboards.runs.shards import Runner
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.sandbox.ended import Ended

sys.path.append(str(Path(__file__).parents[1] / "leaderboards"))
import tiny
from boundary_pair import referee

pytestmark = pytest.mark.device
TASKS = {
    "image": [BoardTask("image/digits-linf", "white-box", 6), BoardTask("image/digits-pixel", "score", 6)],
    "text": [BoardTask("text/synth-wordswap", "white-box", 6)],
    "graph": [BoardTask("graph/karate-edge", "white-box", 6)],
    "speech": [BoardTask("speech/synth-keyword", "white-box", 6)],
}
PANEL = ["noise", "pgd", "first-order"]


class Turn:
    """A sandbox's turn without the sandbox: the inside runs in a thread, on the card where one is pretended."""

    def __init__(self, folder, role, place):
        self.sock, theirs = socket.socketpair()
        self.thread = threading.Thread(target=self._inside, args=(theirs, folder, role, place), daemon=True)
        self.thread.start()

    @staticmethod
    def _inside(sock, folder, role, place):
        with place():
            enter(sock, folder, role)
        sock.close()

    @contextmanager
    def clock(self):
        yield

    def charge(self, seconds):
        pass

    def allow(self, limits):
        pass

    def end(self):
        self.sock.close()
        self.thread.join(60)
        return Ended()


class Here:
    """A box of such turns."""

    level = "thread"

    def __init__(self, place):
        self.place, self.folder = place, ""

    def assign(self, folder):
        self.folder = str(folder)

    def prepare(self, *call):
        pass

    def turn(self, limits, *, role):
        return Turn(self.folder, role, self.place)

    def close(self):
        pass


@pytest.fixture(autouse=True)
def tf32():
    """Whatever the inside sets, it sets in this process."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class OnCpu(Runner):
    """The same board, so the same seeds, where nobody has a GPU."""

    device = "cpu"


def evaluated(domain, folder, defenses="cpu"):
    """The entry and its rows with a stage on either side; `defenses`: where the board has them compute."""

    def run(device):
        there = torch.device(device).type == "cuda"
        board = tiny.board(
            tasks=TASKS[domain], phases={"dev": Phase(4, "split:test", 1)}, shards=Shards(2, "listed"),
            defense=Defended(PANEL, 0.0, defenses),
        )  # fmt: skip
        asked = []

        def take(**options):
            asked.append(options)
            return Here(joined if there else nullcontext)

        stage = Stage(board, "dev", device=device)
        runner = (Runner if there else OnCpu)(stage, read_card(folder), folder, take)
        found = evaluate(runner, created="")
        assert asked == [{"gpu": True} if runner.device == "cuda" else {}]
        return found

    here, there = both(run)
    assert isinstance(here, tuple) and isinstance(there, tuple), (here, there)
    (entry, rows), (other, others) = here, there
    assert [s.task for s in rows.sets] == [s.task for s in others.sets] and rows.sets
    wrong = [d for a, b in zip(rows.sets, others.sets, strict=True) for d in differences(a.samples, b.samples)]
    assert wrong == []
    assert other.device == "cuda:0 (pretended)"
    blank = {"device": "", "transcript": "", "board_hash": ""}
    assert msgspec.structs.replace(entry, **blank) == msgspec.structs.replace(other, **blank)
    return entry


@pytest.mark.parametrize(
    ("domain", "agent"),
    [("image", "pgd"), ("image", "greedy"), ("text", "first-order"), ("graph", "genetic"), ("speech", "square")],
)
def test_an_attack_is_scored_the_same_on_the_card(domain, agent, tmp_path):
    entry = registry.agent(agent)
    kinds = str(list(entry.kinds)).replace("'", '"')
    more = f"proposals = {entry.proposals}" if entry.proposals else ""
    folder = tiny.attack(tmp_path / "a", agent=agent, kind=kinds, knowledge=entry.knowledge, more=more)
    assert not [f for f in evaluated(domain, folder).flags if "failed" in f]


@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("domain", "defense"),
    [("image", "bit-depth"), ("text", "merge-synonyms"), ("graph", "jaccard"), ("speech", "mu-law")],
)
def test_a_defense_is_scored_the_same_on_the_card(domain, defense, where, tmp_path):
    entry = evaluated(domain, tiny.defense(tmp_path / "d", defense=defense), where)
    assert not [f for f in entry.flags if "failed" in f]


WATCHED = """
import torch
from advgym import Victim

def defend(victim, task):
    def model(x, keys=None):
        noise = 0 if keys is None else (keys % 7).to(torch.float32).view(-1, 1) / 70
        return victim.model(x) + noise

    def risk(x):
        return x.flatten(1).amax(1) * 0.4

    return Victim(model, access="gradients", keyed=True, risk=risk, threshold=0.5)
"""


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_a_defense_that_draws_and_detects(where, tmp_path):
    entry = evaluated("speech", tiny.defense(tmp_path / "d", WATCHED), where)
    assert not [f for f in entry.flags if "failed" in f]


@pytest.mark.parametrize(
    ("task", "agent"),
    [("image/digits-linf", "pgd"), ("image/digits-pixel", "hard-label"), ("text/synth-wordswap", "first-order"),
     ("graph/karate-edge", "grbcd"), ("graph/karate-global", "prbcd"), ("speech/synth-transcribe", "square")],
)  # fmt: skip
def test_an_environment_of_the_card_answers_across_the_boundary(task, agent):
    entry = registry.agent(agent)

    def run(device):
        env = advgym.make(
            task, 3, proposals=entry.proposals, knowledge=entry.knowledge, queries=60 if "global" in task else 8,
            device=device,
        )  # fmt: skip
        env.reset(seed=2)
        said, _, failed = referee(env, entry.attack)
        assert failed is None, failed
        ours = evaluator(env)
        return [repr(said), ours.stored(), ours.book.used.tolist(), ours.book.success.tolist()]

    here, there = both(run)
    assert isinstance(here, list), here
    assert repr(here) == repr(there)
