"""A defense gives the same behind the boundary as in process; what it answers is checked, its faults are its own."""

import socket
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from advgym import make_task, registry
from advgym.core.task import defend
from advgym.core.victim import DRAWS
from advgym.judge.play import play
from advgym.leaderboards.boundary import guarded, mirror
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary.guard import DefenseFailed, Guard
from advgym.leaderboards.boundary.recorder import Recorder
from advgym.leaderboards.boundary.wire import Channel
from advgym.leaderboards.runs.second_answer import contradicted

BY_NAME = (
    "from advgym import registry\ndef defend(victim, task):\n    return registry.defense({!r}).defend(victim, task)\n"
)
WRAP = """
import torch
from advgym import Victim
def defend(victim, task):
    def model(x):
        {body}
    return Victim(model, access="{access}")
"""


class Defended:
    """A task behind the code of a defense, which runs in a thread of this process."""

    def __init__(self, task, code, folder, device="cpu", record=None):
        self.record = record
        (folder / "defense.py").write_text(code)
        self.ours, theirs = socket.socketpair()
        self.thread = threading.Thread(target=self._serve, args=(theirs, str(folder)), daemon=True)
        self.thread.start()
        self.guard = Guard(task, Channel(self.ours, m.Report))
        self.task, self.device = task, device

    @staticmethod
    def _serve(sock, folder):
        guarded.guard(sock, folder)
        sock.close()

    def __enter__(self):
        options = {"knowledge": self.task.threat.knowledge, "queries": self.task.threat.queries}
        return replace(self.task, victim=self.guard.enlist(self.task.name, options, {}, {}, self.device, self.record))

    def __exit__(self, *_):
        self.ours.close()
        self.thread.join(30)


@pytest.mark.parametrize(
    ("name", "defense", "agent"),
    [
        ("image/digits-linf", "bit-depth", "pgd"),
        ("image/digits-linf", "smoothing", "square"),
        ("text/synth-wordswap", "merge-synonyms", "first-order"),
        ("text/synth-wordswap", "smoothing", "greedy"),
        ("graph/sbm-edge", "jaccard", "first-order"),
        ("graph/karate-edge", "smoothing", "genetic"),
        ("graph/karate-global", "jaccard", "random-search"),
        ("speech/synth-keyword", "mu-law", "pgd"),
    ],
)
def test_the_same_behind_the_boundary(name, defense, agent, tmp_path):
    entry = registry.agent(agent)
    task = make_task(name, knowledge=entry.knowledge, queries=24)
    cpu = torch.device("cpu")
    with Defended(task, BY_NAME.format(defense), tmp_path) as guarded_task:
        there, error = play(guarded_task, entry, list(range(4)), cpu, 3, "test", {})
    defended = defend(task, defense)
    if defended.victim.keyed:  # how many draws make an answer is the evaluator's to say
        defended.victim.draws = DRAWS
    here, _ = play(defended, entry, list(range(4)), cpu, 3, "test", {})
    assert not error
    for a, b in zip(here, there, strict=True):
        assert (a.success, a.queries, a.gradients, a.perturbation) == (
            b.success,
            b.queries,
            b.gradients,
            b.perturbation,
        )


@pytest.mark.parametrize(
    ("body", "code", "why"),
    [
        ("return victim(x) * float('nan')", "malformed", "finite"),
        ("return victim(x)[:1]", "crashed", "one row of scores"),
        ("return victim(x)[:, :3]", "malformed", "want"),
        ("return 1 / 0", "crashed", "division by zero"),
        ("return None", "crashed", "no array"),
        ("raise SystemExit(3)", "crashed", "SystemExit"),
    ],
)
def test_a_wrong_answer_is_the_defenses_fault(body, code, why, tmp_path):
    task = make_task("image/digits-linf", knowledge="score")
    with Defended(task, WRAP.format(body=body, access="scores"), tmp_path) as guarded_task:
        with pytest.raises(DefenseFailed, match=why) as caught:
            guarded_task.victim(torch.zeros(4, 1, 8, 8))
        assert caught.value.code == code
        with pytest.raises(DefenseFailed):  # and it is not asked again
            guarded_task.victim(torch.zeros(4, 1, 8, 8))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def defend(victim, task:\n", "syntax-error"),
        ("import nothing_like_it\n", "import-error"),
        ("x = 1\n", "no-entry-point"),
        ("def defend(victim, task):\n    raise ValueError('no')\n", "crashed"),
        ("def defend(victim, task):\n    return 3\n", "crashed"),
    ],
)
def test_a_defense_that_does_not_load_says_why(code, reason, tmp_path):
    task = make_task("image/digits-linf", knowledge="score")
    with pytest.raises(DefenseFailed) as caught, Defended(task, code, tmp_path) as guarded_task:
        guarded_task.victim(torch.zeros(1, 1, 8, 8))
    assert caught.value.code == reason


def test_gradients_that_are_not_finite_count_as_zero(tmp_path):
    code = WRAP.format(body="return victim(x) + 0 * torch.sqrt(x - x).sum()", access="gradients")
    task = make_task("image/digits-linf", knowledge="white-box")
    with Defended(task, code, tmp_path) as guarded_task:
        x = torch.zeros(2, 1, 8, 8, requires_grad=True)
        (g,) = torch.autograd.grad(guarded_task.victim(x).sum(), x)
    assert bool(torch.isfinite(g).all())


def test_a_detector_brings_its_risk(tmp_path):
    code = """
from advgym import Victim
def defend(victim, task):
    return Victim(victim.model, access="gradients", risk=lambda x: (x.flatten(1).amax(1) > 0.5).float(), threshold=0.3)
"""
    task = make_task("image/digits-linf", knowledge="score")
    with Defended(task, code, tmp_path) as guarded_task:
        victim = guarded_task.victim
        x = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
        victim(x)
        assert victim.risk(x).tolist() == [0.0, 1.0] and victim.threshold == pytest.approx(0.3)
        assert victim.risk(x.flip(0)).tolist() == [1.0, 0.0]


def test_it_is_asked_to_compute_on_the_device_that_it_was_given(tmp_path):
    code = """
def defend(victim, task):
    raise ValueError([str(p.device) for v in (victim, task.victim) for p in v.module.parameters()][::2])
"""
    task = make_task("image/digits-linf", knowledge="score")
    with pytest.raises(DefenseFailed, match=r"\['meta', 'meta'"), Defended(task, code, tmp_path, "meta"):
        pass
    sent = mirror.pack({"x": torch.ones(2, 3), "n": np.zeros(2)})
    found = mirror.unpack(sent, device="meta")
    assert (found["x"].device.type, found["x"].shape, type(found["n"])) == ("meta", (2, 3), np.ndarray)


def test_the_weights_are_those_of_the_evaluators_victim(tmp_path):
    task = make_task("image/digits-linf", knowledge="score")
    module = task.victim.on("cpu").module
    import copy

    twin = copy.copy(task.victim)
    twin.model = copy.deepcopy(module)
    with torch.no_grad():
        for p in twin.model.parameters():
            p.add_(0.05)
    task = replace(task, victim=twin)
    x = torch.rand(3, 1, 8, 8)
    with Defended(task, "def defend(victim, task):\n    return victim\n", tmp_path) as guarded_task:
        assert np.allclose(guarded_task.victim(x).numpy(), twin(x).detach().numpy(), atol=1e-6)


FORGETS = """
from advgym import Victim
def defend(victim, task):
    asked = []
    def model(x):
        asked.append(1)
        return victim(x) * (1 if len(asked) < 6 else -1)
    return Victim(model, access="scores")
"""


@pytest.mark.parametrize(
    ("code", "holds"), [(BY_NAME.format("jaccard"), True), (FORGETS, False)], ids=["honest", "liar"]
)
def test_a_bundles_answers_are_asked_again_whole(code, holds, tmp_path):
    """Of a global graph all members belong to one answer: what was said of it is compared in a fresh process."""
    task, entry = make_task("graph/karate-global", knowledge="score", queries=60), registry.agent("random-search")
    record, cpu = Recorder(3), torch.device("cpu")
    with Defended(task, code, tmp_path, record=record) as guarded_task:
        _, error = play(guarded_task, entry, [0, 1, 2], cpu, 3, "test", {})
    assert guarded_task.victim.access == "scores"  # whose gradients do not cross
    assert not error and record.kept and all(k.members == 15 and len(k.ids) * 15 == len(k.x) for k in record.kept)
    with Defended(task, code, tmp_path) as again:
        bad = contradicted(again.victim, record.kept, 5, cpu)
    assert not bad if holds else bad
