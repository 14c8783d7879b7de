"""`check_vector_env` passes on what keeps the contract, and names what does not."""

from functools import partial

import numpy as np
import pytest
import torch
import toy

from advgym import check_vector_env, make
from advgym.clients.views import EditView
from advgym.core.env import AttackEnv
from advgym.core.meters import Book
from advgym.core.oracle import Oracle


def factory(kind="field", env=AttackEnv, **threat):
    def build(lanes=1, proposals=None, output="torch", autoreset="disabled", queries=20):
        task = toy.task(kind, **{**threat, "queries": queries})
        return env(task, lanes, proposals, output=output, autoreset=autoreset)

    return build


@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("knowledge", ["white-box", "score", "decision", "transfer"])
@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
@pytest.mark.parametrize("least", [False, True])
def test_the_toy_keeps_the_contract(kind, knowledge, goal, least):
    check_vector_env(factory(kind, knowledge=knowledge, goal=goal, least=least))


@pytest.mark.parametrize("options", [{"norm": "l2"}, {"lattice": None}, {"norm": "l2", "lattice": None}, {"limit": 1}])
def test_other_constraints_keep_the_contract(options):
    check_vector_env(factory("edits" if "limit" in options else "field", **options))


@pytest.mark.parametrize("task", ["image/digits-linf", "image/digits-pixel", "image/digits-l1", "image/digits-l0"])
def test_shipped_tasks_keep_the_contract(task):
    check_vector_env(partial(make, task))


# -- environments that break it ------------------------------------------------------------------------------------
def broken(monkeypatch, how):
    """Break one promise; returns the factory and the words that the checker must use."""
    if how == "budget not charged":
        spend = Book.spend

        def free(self, *args, **kwargs):
            before = self.queries_left
            spend(self, *args, **kwargs)
            self.queries_left = before

        monkeypatch.setattr(Book, "spend", free)
        return factory(), "charged"
    if how == "charged twice":
        spend = Book.spend

        def twice(self, *args, **kwargs):
            before = self.queries_left
            spend(self, *args, **kwargs)
            self.queries_left = (2 * self.queries_left - before).clamp_min(0)

        monkeypatch.setattr(Book, "spend", twice)
        return factory(), "queries"
    if how == "rewritten buffer":

        class Env(AttackEnv):
            def step(self, actions):
                obs, *rest = super().step(actions)
                if self.output == "numpy":
                    return (obs, *rest)
                if not hasattr(self, "_buffer"):
                    self._buffer = {k: v.clone() for k, v in obs.items()}
                for k, v in obs.items():
                    self._buffer[k].copy_(v)
                return (self._buffer, *rest)

        return factory(env=Env), "written again|differ"
    if how == "lanes that see each other":
        ask = Oracle.ask

        def leaky(self, *args, **kwargs):
            answer, told = ask(self, *args, **kwargs)
            answer["scores"] = answer["scores"] + answer["scores"].mean(0) * 0.1
            return answer, told

        monkeypatch.setattr(Oracle, "ask", leaky)
        return factory(), "depends on the other"
    if how == "draws by lane":
        from advgym.core.threat import Threat

        random = Threat.random

        def by_lane(self, seed, proposals=None):
            return self.project(random(self, seed, proposals) * 0 + torch.linspace(-0.5, 0.5, len(self.reach)).view(
                -1, *[1] * (1 + (proposals is not None))))  # fmt: skip

        monkeypatch.setattr(Threat, "random", by_lane)
        return factory(), "depends on the other"
    if how == "reward that does not telescope":

        class Env(AttackEnv):
            def step(self, actions):
                obs, reward, *rest = super().step(actions)
                objective = obs.get("objective")
                if objective is not None and self.output == "torch":
                    live = obs["evaluated"].view(self.num_envs, -1).any(1) & obs["valid"].view(self.num_envs, -1).any(1)
                    reward = (
                        torch.where(live, objective.view(self.num_envs, -1).amax(1).clamp_max(0) * 0.01, 0) + reward
                    )
                return obs, reward, *rest

        return factory(env=Env), "telescope"
    if how == "wrong dtype":

        class Env(AttackEnv):
            def step(self, actions):
                obs, *rest = super().step(actions)
                obs["distance"] = obs["distance"].astype(np.float64) if self.output == "numpy" else obs["distance"]
                return (obs, *rest)

        return factory(env=Env), "float64"
    if how == "reward of another dtype":

        class Env(AttackEnv):
            def step(self, actions):
                obs, reward, *rest = super().step(actions)
                return (obs, reward.astype(np.float64) if self.output == "numpy" else reward, *rest)

        return factory(env=Env), "float32"
    if how == "mask mismatch":
        masks = EditView.action_masks

        def off_by_one(self):
            return np.roll(masks(self), 1, axis=1)

        monkeypatch.setattr(EditView, "action_masks", off_by_one)
        return factory("edits"), "action_masks"
    if how == "mask that is not exact":
        mask = EditView._mask

        def generous(self):
            return torch.ones_like(mask(self))

        monkeypatch.setattr(EditView, "_mask", generous)
        return factory("edits"), "mask"
    if how == "refusals that tell":

        class Env(AttackEnv):
            def step(self, actions):
                obs, *rest = super().step(actions)
                if self.output == "torch" and "objective" in obs:
                    obs["objective"] = torch.where(obs["evaluated"], obs["objective"], -1.0)
                return (obs, *rest)

        return factory(env=Env), "tells"
    if how == "finished lanes play on":

        class Env(AttackEnv):
            def step(self, actions):
                obs, reward, *rest = super().step(actions)
                return obs, reward + (0.5 if self.output == "torch" and self.queries_spent(obs) else 0), *rest

            def queries_spent(self, obs):
                return self.proposals == 4 and bool((obs["queries_left"] == 0).all())

        return factory(env=Env), "plays on"
    if how == "not deterministic":
        g = torch.Generator().manual_seed(0)
        layer = toy.linear()
        from advgym import Victim

        clean = toy.samples()

        def loose(x):
            known = (x.unsqueeze(1) == clean).all(2).any(1, keepdim=True)
            return layer(x) + torch.where(known, 0.0, torch.rand(len(x), 3, generator=g))

        return factory(victim=Victim(loose, access="gradients")), "another"
    if how == "no autoreset":

        class Env(AttackEnv):
            def _autoreset(self, obs, over, info):
                return obs, info

        return factory(env=Env), "same-step"
    if how == "metadata":

        class Env(AttackEnv):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.metadata = dict(AttackEnv.metadata)
                from gymnasium.vector import AutoresetMode

                self.metadata["autoreset_mode"] = AutoresetMode.NEXT_STEP

        return factory(env=Env), "metadata"
    raise KeyError(how)


BROKEN = [
    "budget not charged",
    "charged twice",
    "rewritten buffer",
    "lanes that see each other",
    "draws by lane",
    "reward that does not telescope",
    "wrong dtype",
    "reward of another dtype",
    "mask mismatch",
    "mask that is not exact",
    "refusals that tell",
    "finished lanes play on",
    "not deterministic",
    "no autoreset",
    "metadata",
]


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_environment_is_caught(monkeypatch, how):
    build, word = broken(monkeypatch, how)
    with pytest.raises(AssertionError, match=word):
        check_vector_env(build)
