"""Victims that draw at random: means that lies do not move, successes that are confirmed, keys that tell nothing."""

import pytest
import torch
import toy

from advgym import Victim
from advgym.core import keyed, rng
from advgym.core.goals import ClassGoal
from advgym.core.victim import DRAWS, as_victim
from advgym.judge.play import play
from advgym.judge.run import attack


class Liar(torch.nn.Module):
    """Wrong in `share` of the draws on inputs that are none of the clean ones, `loud` times as sure."""

    def __init__(self, share=0.2, loud=1.0, hides=False):
        super().__init__()
        self.layer, self.share, self.loud, self.hides = toy.linear(), share, loud, hides
        self.calls = []

    def forward(self, x, keys):
        self.calls.append(len(x))
        scores = self.layer(x)
        known = (x.unsqueeze(1) == toy.samples()).all(2)
        near = self.layer(toy.samples())[torch.cdist(x, toy.samples()).argmin(1)]  # what the clean sample got
        lie = (rng.uniform(5, keys) < self.share) & ~known.any(1)
        other = near if self.hides else scores.roll(1, 1)
        return torch.where(lie.unsqueeze(1), other * self.loud, scores)


def rate(victim, agent="square", **options):
    task = toy.task(victim=victim, knowledge="score", eps=0.5, queries=60, **options)
    return attack(task, agent, episodes=40, lanes=20)


@pytest.mark.parametrize("loud", [1.0, 1e6], ids=["quiet", "loud"])
@pytest.mark.parametrize("hides", [False, True], ids=["false-success", "hidden-success"])
def test_a_liar_in_two_of_ten_draws_gains_little(loud, hides):
    """Before: every first lie ended the attack, and the majority of nine denied it."""
    honest = rate(as_victim(toy.linear()))
    lying = rate(Victim(Liar(loud=loud, hides=hides), keyed=True, access="scores"))
    assert honest.success_rate > 0.3
    assert lying.success_rate >= honest.success_rate - 0.15
    told = [s for s in lying.samples if s.reason == "success"]
    assert sum(not s.success for s in told) <= len(told) // 5


def test_an_answer_is_one_query_and_the_mean_of_the_draws():
    model = Liar(share=0.0)
    env_task = toy.task(victim=Victim(model, keyed=True, access="scores"), knowledge="score", queries=9)
    from advgym.core.env import AttackEnv

    env = AttackEnv(env_task, lanes=2)
    env.reset(seed=0)
    before = len(model.calls)
    obs, *_ = env.step(env.threat.random(0))
    assert obs["queries_left"].tolist() == [8, 8]
    won = int(obs["success"].sum())
    assert len(model.calls) - before == DRAWS + (keyed.CONFIRMING if won else 0)


def test_the_mean_is_of_the_draws_that_agree():
    goal = ClassGoal(3)
    draws = [torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 1e9, 0.0]])]
    assert keyed.mean(goal, draws).tolist() == [[2.0, 0.0, 0.0]]
    apart = [torch.eye(3)[[i]] for i in range(3)]
    assert torch.allclose(keyed.mean(goal, apart), torch.full((1, 3), 1 / 3))
    nan = [draws[0], draws[1], torch.full((1, 3), float("nan"))]
    assert keyed.mean(goal, nan).tolist() == [[2.0, 0.0, 0.0]]


def test_gradients_are_those_of_the_mean():
    goal, x = ClassGoal(2), torch.tensor([[1.0, 0.0]], requires_grad=True)
    keyed.mean(goal, [x * k for k in (1.0, 2.0, 3.0)])[0, 0].backward()
    assert x.grad.tolist() == [[2.0, 0.0]]


def test_keys_differ_by_purpose_sample_query_draw_and_seed():
    ids = torch.arange(200)
    every = [rng.veiled(s, p, ids, n, d) for s in (0, 1) for p in (keyed.ANSWER, keyed.CONFIRM, keyed.VERDICT)
             for n in (0, 7) for d in range(3)]  # fmt: skip
    assert len(torch.cat(every).unique()) == 200 * len(every)
    one = rng.veiled(3, keyed.ANSWER, ids, ids, 1)
    assert torch.equal(one[5:6], rng.veiled(3, keyed.ANSWER, ids[5:6], ids[5:6], 1))  # alone or in company


def test_keys_are_noise_to_who_does_not_know_the_seed():
    """The finaliser run backwards gives no small number, as it did: queries and verdicts look alike."""
    mask = (1 << 64) - 1

    def unmix(z):
        z &= mask
        for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
            out = z
            for _ in range(3):
                out = z ^ (out >> shift)
            z = out * pow(factor, -1, 1 << 64) & mask
        return z

    assert unmix(int(rng.mix(torch.tensor(12345)))) == 12345
    for purpose in (keyed.ANSWER, keyed.CONFIRM, keyed.VERDICT, keyed.CLEAN):
        back = [unmix(int(k)) for k in rng.veiled(7, purpose, torch.arange(500), 3, 2)]
        assert sum(b < 1 << 40 for b in back) == 0
        assert 0.4 < sum(b >> 63 for b in back) / 500 < 0.6


def test_a_training_run_is_asked_once_and_confirmed_by_the_verdict_alone():
    model = Liar(share=0.0)
    victim = Victim(model, keyed=True, retrains=True, access="scores")
    assert victim.draws == 1
    task = toy.task(victim=victim, knowledge="score", eps=0.25, queries=30)
    from advgym import registry

    rows, _ = play(task, registry.agent("square"), [0, 1, 2], torch.device("cpu"), 0, "test", {})
    assert any(s.success for s in rows)
    queries = max(s.queries for s in rows)
    # Every step is one call; clean answers and nine draws of the verdict come on top.
    assert len(model.calls) <= queries + 4 + keyed.CONFIRMING


def test_the_same_transcript_for_the_same_seed_and_other_lanes():
    victim = Victim(Liar(), keyed=True, access="scores")
    task = toy.task(victim=victim, knowledge="score", eps=0.25, queries=20)
    one = attack(task, "square", episodes=8, lanes=8, seed=3)
    two = attack(task, "square", episodes=8, lanes=2, seed=3)
    assert [(s.id, s.success, s.queries) for s in sorted(one.samples, key=lambda s: s.id)] == [
        (s.id, s.success, s.queries) for s in sorted(two.samples, key=lambda s: s.id)
    ]
