"""Under transfer the verdict is on what an attack returns: a search that runs out of queries returns its best set."""

import pytest
import torch

from advgym import make_task, registry
from advgym.core.env import AttackEnv
from advgym.judge.evaluator import evaluator

SEARCHES = (
    "greedy", "greedy-search", "beam", "first-order", "genetic", "hotflip", "alzantot", "joint-greedy",
    "joint-paraphrase",
)  # fmt: skip


class Told(AttackEnv):
    """Keeps the best objective of all that was asked, and what was asked last."""

    def step(self, actions):
        out = super().step(actions)
        value = torch.where(out[0]["evaluated"] & out[0]["valid"], out[0]["objective"].detach(), -torch.inf)
        value = value if value.dim() == 1 else value.amax(1)
        self.book_of_all().index_reduce_(0, self._lane_rows[:: self._width], value, "amax")
        return out

    def book_of_all(self):
        return self._now.__dict__.setdefault("told", torch.full((len(self._now.book.live),), -torch.inf))


@pytest.mark.parametrize("queries", [12, 40])
@pytest.mark.parametrize("task", ["graph/karate-edge", "text/synth-wordswap"])
@pytest.mark.parametrize("name", SEARCHES)
def test_the_best_set_is_handed_in(name, task, queries):
    made = make_task(task, knowledge="transfer", queries=queries, gradients=queries)
    agent = registry.agent(name)
    env = Told(made, 8, proposals=agent.proposals)
    clean = env.reset(seed=0)[0]["objective"].detach().view(8, -1)[:, 0]
    evaluator(env).hand_in(agent.attack(env, seed=0))
    assert int(evaluator(env).book.used.max()) <= queries
    best, held, ids = env.book_of_all(), evaluator(env).book.held, evaluator(env).episodes.batch.ids.tolist()
    again = AttackEnv(make_task(task, knowledge="transfer"), 8, assigned=ids)
    again.reset(seed=0)
    final = again.step(held)[0]["objective"].detach()
    assert bool((best > clean).any()), "no set helps: the test says nothing"
    final = torch.where((held[..., 0] < 0).all(1), clean, final)
    assert bool((final >= torch.maximum(best, clean) - 1e-3).all())
