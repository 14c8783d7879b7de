"""The learned policy: its features and moves, what training gives, its file, and that it carries over."""

import pytest
import torch

from advgym import DataError, attack, make
from advgym.agents.learned import policy as learned
from advgym.agents.shared.policy_net import FEATURES, CellPolicy, State, ppo
from advgym.lib.weights import save_weights

TASK, REAL = "text/synth-wordswap", "text/mr-wordswap"


def opened(lanes=6, **options):
    env = make(TASK, lanes, split="train", knowledge="score", queries=10, **options)
    obs, _ = env.reset(seed=0)
    return env, State(env, env.draws(0), obs)


def test_moves_are_legal_and_taken_back():
    env, state = opened()
    for t in range(10):
        features, legal = state.see()
        assert features.shape[2] == FEATURES and features.isfinite().all()
        cell = torch.where(legal, env.draws(t).uniform(legal.shape[1]), -1.0).argmax(1)
        slot = state.slots.slot.gather(1, cell.unsqueeze(1))
        clean = state.x[:, 0].gather(1, slot).squeeze(1) < 0
        before = state.x.clone()
        p = state.move(cell)
        assert env.threat.check(p).all() and (p[..., 0] >= 0).any(1).all()
        after = state.x.clone()
        state.move(cell)  # the same move again
        assert torch.equal(state.x[clean], before[clean])
        state.x = after


def test_training_raises_the_return():
    totals = []
    torch.manual_seed(0)
    policy = CellPolicy(16)
    ppo(
        policy, lambda: make(TASK, 24, split="train", knowledge="score", queries=6), steps=24 * 6 * 24, lanes=24,
        queries=6, lr=5e-3, seed=0, tell=lambda _, mean: totals.append(mean),
    )  # fmt: skip
    assert sum(totals[-6:]) > sum(totals[:6]) + 3


def test_the_shipped_policy_carries_over_to_unseen_sentences():
    """Ten queries each on the test split; no text of it was trained on."""
    played = {"episodes": 120, "lanes": 60, "queries": 10, "knowledge": "score"}
    ours, blind = (attack(TASK, name, **played) for name in ("policy", "random-search"))
    assert ours.success_rate > 3 * blind.success_rate > 0


@pytest.mark.realdata
def test_the_policy_of_movie_reviews_carries_over_to_unseen_sentences(data_dir):
    """Trained on train.jsonl; ten queries each on other sentences, and better than what synthetic texts taught."""
    played = {"episodes": 150, "lanes": 75, "queries": 10, "knowledge": "score"}
    blind = attack(REAL, "random-search", **played).success_rate
    synthetic = attack(REAL, "policy", **played).success_rate
    ours = attack(REAL, "policy", settings={"weights": REAL}, **played).success_rate
    assert ours > synthetic + 0.03 and ours > 1.5 * blind > 0


def test_weights_are_read_from_a_file_and_nothing_else(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_weights(path, CellPolicy(), {"name": "mine"})
    found = attack(TASK, "policy", episodes=8, lanes=8, queries=5, settings={"weights": str(path)})
    assert found.attacked and not any("crashed" in f for f in found.flags)
    with pytest.raises(DataError, match="advgym train policy"):
        learned.read(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not tensors")
    with pytest.raises(DataError, match="does not hold"):
        learned.read(tmp_path / "broken.safetensors")
