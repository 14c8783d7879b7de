"""Section 3 of the design, sentence by sentence: proposals, charges, feedback, reward, termination."""

import gymnasium as gym
import numpy as np
import pytest
import torch
import toy

from advgym import Malformed, Victim, make
from advgym.core.goals import SUCCESS
from advgym.judge.evaluator import evaluator

HARD = {"eps": 0.25, "queries": 20}  # few successes, so that episodes last


def opened(kind="field", lanes=4, proposals=None, seed=0, **options):
    make_options = {k: options.pop(k) for k in ("output", "autoreset", "assigned") if k in options}
    env = make(toy.task(kind, **options), lanes, proposals, **make_options)
    obs, info = env.reset(seed=seed)
    return env, obs, info


def invalid(env):
    """A real input outside the constraint, for every lane: too large a change, or too many edits."""
    null = env.threat.null()
    if env.kind == "field":
        x = env.threat.apply(null)
        return torch.where(x > 0.5, -1.0, 1.0)
    grid = env.table.mask()
    p = null.clone()
    for e in range(null.shape[1]):  # one edit more than the limit, each at its own site
        p[:, e] = torch.stack([torch.full((len(p),), e), grid[:, e].int().argmax(1)], 1)
    return p


def never(env):
    """Not an input of the domain."""
    null = env.threat.null()
    if env.kind == "field":
        return [torch.full_like(null, v) for v in (torch.nan, torch.inf, -torch.inf)]
    beyond, below, twice = null.clone(), null.clone(), null.clone()
    beyond[:, 0] = torch.tensor([toy.SIZE, 0])
    below[:, 0] = torch.tensor([0, -7])
    at = env.table.mask()[:, 0].int().argmax(1)
    twice[:, 0] = torch.stack([torch.zeros_like(at), at], 1)
    twice[:, 1] = twice[:, 0]
    half = null.clone()
    half[:, 0] = torch.tensor([-1, 3])
    return [beyond, below, twice, half]


# -- proposals -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["field", "edits"])
def test_proposals_are_axis_one_of_every_array(kind):
    env, obs, _ = opened(kind, lanes=3, proposals=5)
    per = ("evaluated", "valid", "distance", "output", "success", "scores", "objective", "surrogate")
    stepped = env.step(env.threat.random(0, 5))[0]
    for seen in (obs, stepped):
        for name in per:
            assert seen[name].shape[:2] == (3, 5), name
        assert seen["scores"].shape == (3, 5, toy.CLASSES)
        for name in ("queries_left", "gradients_left"):
            assert seen[name].shape == (3,)
        assert seen["perturbation"].shape == (3, *env.shape)
    assert env.action_space.shape == (3, 5, *env.shape)


@pytest.mark.parametrize("kind", ["field", "edits"])
def test_no_proposals_axis_without_proposals(kind):
    env, obs, _ = opened(kind, lanes=3)
    assert obs["evaluated"].shape == (3,) and env.action_space.shape == (3, *env.shape)
    env.step(env.threat.random(0))


def test_the_answer_is_the_victims_own():
    env, _, _ = opened(lanes=4, proposals=3)
    p = env.threat.random(1, 3)
    obs = env.step(p)[0]
    x = torch.stack([env.threat.apply(p[:, j]) for j in range(3)], 1)
    scores = toy.linear()(x.reshape(-1, toy.SIZE)).view(4, 3, -1)
    assert torch.allclose(obs["scores"], scores, atol=1e-6)
    ref = env.reset(seed=0)[0]["output"][:, 0]
    margin = scores.clone()
    margin.scatter_(2, ref.view(4, 1, 1).expand(4, 3, 1), -torch.inf)
    objective = margin.amax(2) - scores.gather(2, ref.view(4, 1, 1).expand(4, 3, 1)).squeeze(2)
    assert torch.allclose(obs["objective"], objective, atol=1e-6)
    assert torch.equal(obs["output"], scores.argmax(2))


# -- three levels of proposal ----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("how", ["fewer lanes", "extra axis", "wrong width", "other kind", "bool", "complex", "text"])
def test_malformed_raises_and_charges_nothing(kind, how):
    env, _, _ = opened(kind, lanes=3)
    null = env.threat.null()
    bad = {
        "fewer lanes": null[:2],
        "extra axis": null.unsqueeze(1),
        "wrong width": torch.cat([null, null], 1),
        "other kind": null.long() if kind == "field" else null.float(),
        "bool": null.bool(),
        "complex": null.to(torch.complex64),
        "text": "a proposal",
    }[how]
    with pytest.raises(Malformed):
        env.step(bad)
    assert torch.equal(env.step(null)[0]["queries_left"], torch.full((3,), 20))


@pytest.mark.parametrize("proposals", [1, 4])
def test_the_proposals_axis_is_not_optional(proposals):
    env, _, _ = opened(lanes=3, proposals=proposals)
    with pytest.raises(Malformed, match=r"\(3, "):
        env.step(env.threat.null())


def test_step_before_reset_raises():
    env = make(toy.task())
    with pytest.raises(gym.error.ResetNeeded):
        env.step(torch.zeros(1, toy.SIZE))


@pytest.mark.parametrize("kind", ["field", "edits"])
def test_what_is_no_input_is_charged_and_not_evaluated(kind):
    calls = []
    layer = toy.linear()

    def count(x):
        calls.append(len(x))
        return layer(x)

    env, obs, _ = opened(kind, victim=Victim(count))
    calls.clear()
    for i, p in enumerate(never(env)):
        obs, reward, terminated, truncated, _ = env.step(p)
        assert not obs["evaluated"].any() and not obs["valid"].any() and not obs["success"].any()
        assert torch.equal(obs["queries_left"], torch.full((4,), 19 - i))
        assert (reward == 0).all() and not terminated.any() and not truncated.any()
        assert torch.equal(obs["perturbation"], env.threat.null())
        for name in ("scores", "objective", "surrogate", "distance"):
            assert (obs[name] == 0).all(), name
        assert (obs["output"] == -1).all()
    assert calls == []


@pytest.mark.parametrize("kind", ["field", "edits"])
def test_out_of_the_constraint_is_evaluated_and_never_held(kind):
    env, _, _ = opened(kind, eps=0.25)
    p = invalid(env)
    obs, reward, terminated, _, _ = env.step(p)
    assert obs["evaluated"].all() and not obs["valid"].any()
    assert (obs["queries_left"] == 19).all()
    assert (obs["distance"] > env.threat.reach).all()
    if kind == "edits":
        assert obs["success"].any(), "this test needs a success outside the constraint"
    assert (reward == 0).all() and not terminated.any()
    assert torch.equal(obs["perturbation"], env.threat.null())


def test_a_probe_is_evaluated_and_never_counts():
    env, _, _ = opened("edits")
    p = env.threat.null()
    p[:, 0] = torch.tensor([2, toy.LEVELS])
    obs, reward, terminated, _, _ = env.step(p)
    x = toy.samples()[evaluator(env).batch.ids]
    x[:, 2] = 0.5
    assert torch.allclose(obs["scores"], toy.linear()(x), atol=1e-6)
    assert obs["evaluated"].all() and not obs["valid"].any() and (reward == 0).all() and not terminated.any()
    assert torch.equal(obs["perturbation"], env.threat.null())


def test_a_board_may_forbid_probes():
    env, _, _ = opened("edits", probes=False)
    p = env.threat.null()
    p[:, 0] = torch.tensor([2, toy.LEVELS])
    obs, *_ = env.step(p)
    assert not obs["evaluated"].any() and (obs["scores"] == 0).all()
    assert (obs["queries_left"] == 19).all()


@pytest.mark.parametrize("kind", ["field", "edits"])
def test_the_null_perturbation_is_free_and_padding(kind):
    env, first, _ = opened(kind, proposals=4)
    p = env.threat.null().unsqueeze(1).repeat(1, 4, *[1] * len(env.shape))
    obs, _reward, *_ = env.step(p)
    assert torch.equal(obs["queries_left"], first["queries_left"]) and not obs["evaluated"].any()
    p[:, 2] = env.threat.random(3)
    obs, *_ = env.step(p)
    assert obs["evaluated"].sum(1).tolist() == [1] * 4 and obs["evaluated"][:, 2].all()
    assert (obs["queries_left"] == 19).all()


def test_null_that_requires_grad_is_charged_and_evaluated():
    env, _, _ = opened()
    obs, *_ = env.step(env.threat.null().requires_grad_())
    assert obs["evaluated"].all() and (obs["queries_left"] == 19).all()
    assert not obs["success"].any()


def test_a_change_that_storage_would_lose_is_null():
    env, _, _ = opened()  # lattice of quarters: 0.1 rounds to nothing
    obs, *_ = env.step(torch.full((4, toy.SIZE), 0.1))
    assert not obs["evaluated"].any() and (obs["queries_left"] == 20).all()


# -- budgets ---------------------------------------------------------------------------------------------------
def test_where_fewer_than_p_are_left_the_first_are_evaluated():
    env, _, _ = opened(eps=0.0, lattice=None, proposals=4, queries=6)  # out of the ball: nothing ends early
    p = 1.0 + env.threat.random(0, 4).abs()
    env.step(p)
    mixed = p.clone()
    mixed[0, 0] = torch.nan  # charged, so it uses up one of the two that are left
    mixed[1, 0] = 0  # free
    obs, _, terminated, _, info = env.step(mixed)
    assert obs["evaluated"].tolist() == [
        [False, True, False, False], [False, True, True, False], [True, True, False, False], [True, True, False, False],
    ]  # fmt: skip
    assert (obs["queries_left"] == 0).all() and terminated.all()
    assert info["final_info"]["reason"].tolist() == ["queries"] * 4


def test_no_victim_call_beyond_the_budget():
    rows = []
    layer = toy.linear()

    def count(x):
        rows.append(len(x))
        return layer(x)

    env, _, _ = opened(eps=0.0, lattice=None, victim=Victim(count), proposals=3, queries=7, lanes=2)
    rows.clear()
    for _ in range(5):
        env.step(torch.ones(2, 3, toy.SIZE))
    assert sum(rows) == 14 and env.done


def test_queries_distinct_counts_forms():
    env, _, _ = opened(eps=0.0, lattice=4, lanes=2)
    p = torch.ones(2, toy.SIZE)
    other = -torch.ones(2, toy.SIZE)
    for q in (p, p + 0.01, p, other, torch.zeros_like(p)):  # 1.01 has the same canonical form as 1
        env.step(q)
    assert evaluator(env).book.queries_distinct().tolist() == [2, 2]
    assert (env.threat.model.queries - evaluator(env).book.queries_left).tolist() == [4, 4]


def test_first_success_is_the_query_count():
    env, _, _ = opened(lanes=6, eps=1.0, lattice=None)
    first = torch.full((6,), -1)
    for t in range(20):
        obs, *_ = env.step(env.threat.random(t))
        won = obs["success"] & obs["valid"]
        first = torch.where(won & (first < 0), t + 1, first)
    assert torch.equal(evaluator(env).book.first_success, first)
    assert len(first.unique()) > 1 and (first >= 1).any()


# -- finished lanes ----------------------------------------------------------------------------------------------
def test_finished_lanes_ignore_actions():
    env, _, _ = opened(lanes=6, eps=0.5)
    over = torch.zeros(6, dtype=torch.bool)
    kept = None
    for t in range(12):
        p = env.threat.random(t)
        if t % 2 and over.any():
            p[over] = torch.nan
        obs, reward, terminated, _truncated, info = env.step(p)
        if kept is not None:
            assert (reward[over] == 0).all() and terminated[over].all() and not obs["evaluated"][over].any()
            assert torch.equal(obs["queries_left"][over], kept["queries_left"][over])
            assert torch.equal(obs["perturbation"][over], kept["perturbation"][over])
            if "_final_info" in info:
                assert not info["_final_info"][over.numpy()].any(), "final_info comes once"
        over, kept = terminated, obs
    assert over.any()


def test_final_info_carries_sample_success_queries_and_perturbation():
    env, _, _ = opened(lanes=6)
    seen = {}
    for t in range(20):
        _, _, _terminated, _, info = env.step(env.threat.random(t))
        if "final_info" in info:
            for i in np.flatnonzero(info["_final_info"]):
                seen[i] = {k: v[i] for k, v in info["final_info"].items()}
    assert set(seen) == set(range(6)) and env.done
    ids = evaluator(env).batch.ids.tolist()
    for i, final in seen.items():
        assert final["sample"] == ids[i]
        assert final["queries"] == 20 - evaluator(env).book.queries_left[i]
        assert torch.equal(final["perturbation"], evaluator(env).book.held[i])
        assert bool(final["success"]) == (final["reason"] == "success")
        if final["success"]:
            assert env.threat.check(evaluator(env).book.held)[i]


def test_as_many_steps_as_queries_end_an_episode():
    env, _, _ = opened(queries=5)
    for t in range(5):
        obs, _, terminated, truncated, info = env.step(env.threat.null())
        assert bool(terminated.all()) == (t == 4)
    assert not truncated.any() and (obs["queries_left"] == 5).all()
    assert set(info["final_info"]["reason"]) == {"steps"}


def test_least_distortion_goes_on_after_success():
    env, _, _ = opened(least=True, lanes=6)
    won = torch.zeros(6, dtype=torch.bool)
    for t in range(19):
        obs, _, terminated, _, _ = env.step(env.threat.random(t))
        won |= obs["success"] & obs["valid"]
        assert not terminated.any()
    assert won.any()


# -- knowledge -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["field", "edits"])
def test_decision_shows_labels_only(kind):
    env, obs, _ = opened(kind, knowledge="decision")
    stepped = env.step(env.threat.random(0))[0]
    for seen in (obs, stepped):
        assert not {"scores", "objective", "surrogate", "risk"} & set(seen)
        assert {"output", "success", "evaluated", "valid", "distance"} <= set(seen)


@pytest.mark.parametrize("proposals", [None, 4])
def test_decision_leaks_nothing_about_failures(proposals):
    env, _, _ = opened(knowledge="decision", lanes=6, proposals=proposals, **HARD)
    null = env.threat.null()
    won = torch.zeros(6, dtype=torch.bool)
    for t in range(5):
        obs, reward, *_ = env.step(env.threat.random(t, proposals))
        hit = obs["success"] & obs["valid"] & obs["evaluated"]
        won |= hit if proposals is None else hit.any(1)
        assert torch.equal(obs["perturbation"][~won], null[~won])
        assert ((reward == 0) | (reward == 1)).all()
    assert (~won).any()


@pytest.mark.parametrize("knowledge", ["score", "decision"])
def test_no_gradients_without_white_box(knowledge):
    env, _, _ = opened(knowledge=knowledge)
    with pytest.raises(Malformed, match="white-box"):
        env.step(env.threat.random(0).requires_grad_())
    assert not env.step(env.threat.random(0))[0]["success"].requires_grad
    edits, _, _ = opened("edits", knowledge=knowledge)
    with pytest.raises(Malformed, match="white-box"):
        edits.step((edits.threat.random(0), torch.ones(4, 3, requires_grad=True)))
    with pytest.raises(Exception, match="white-box"):
        edits.rank()


def test_the_true_label_never_appears():
    task = toy.task()
    env, obs, _ = opened()
    stepped, _, _, _, info = env.step(env.threat.random(0))
    for seen in (obs, stepped, info):
        assert not {"label", "labels", "truth"} & set(seen)
    wrong = make(task)
    obs, _ = wrong.reset(options={"samples": [10]})  # its label is not what the victim says
    assert obs["output"].item() == toy.linear()(toy.samples()[10:11]).argmax().item()


# -- reward --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("knowledge", ["white-box", "score", "decision"])
@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("proposals", [None, 3])
def test_the_reward_telescopes(knowledge, least, kind, proposals):
    env, first, _ = opened(kind, lanes=8, proposals=proposals, knowledge=knowledge, least=least)
    start = torch.zeros(8) if knowledge == "decision" else first["objective"].view(8, -1)[:, 0].clamp_max(0)
    total = torch.zeros(8)
    for t in range(10):
        p = env.threat.random(t, proposals)
        if t == 3:
            p = torch.full_like(p, -9 if kind == "edits" else torch.nan)
        total += env.step(p)[1]
    # What the verdict would be on, looked at from outside.
    held = evaluator(env).book.held
    scores = toy.linear()(env.threat.apply(held))
    ref = first["output"].view(8, -1)[:, :1]
    objective = scores.scatter(1, ref, -torch.inf).amax(1) - scores.gather(1, ref).squeeze(1)
    success = objective > SUCCESS
    end = success.float()
    if knowledge != "decision":
        end = end + objective.clamp_max(0)
    if least:
        end = end + torch.where(success, 1 - env.threat.distance(held) / env.threat.reach, 0.0)
    assert torch.allclose(total, end - start, atol=1e-5)
    assert success.any()


def test_the_best_is_held_and_among_successes_the_nearest():
    env, first, _ = opened(lanes=8, proposals=2, least=True, eps=1.0, lattice=None)
    start, ref = first["objective"][:, 0], first["output"][:, :1]
    best = torch.full((8,), -torch.inf)
    near = torch.full((8,), torch.inf)
    for t in range(9):
        obs, *_ = env.step(env.threat.random(t, 2))
        near = torch.minimum(near, torch.where(obs["success"], obs["distance"], torch.inf).amin(1))
        best = torch.maximum(best, obs["objective"].amax(1))
        won = near.isfinite()
        held = env.threat.distance(obs["perturbation"])
        assert torch.allclose(held[won], near[won], atol=1e-6)
        better = ~won & (best > start)
        scores = toy.linear()(env.threat.apply(obs["perturbation"]))
        own = scores.gather(1, ref).squeeze(1)
        found = scores.scatter(1, ref, -torch.inf).amax(1) - own
        assert torch.allclose(found[better], best[better], atol=1e-5)


# -- output, determinism, randomness ----------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["field", "edits"])
def test_numpy_output(kind):
    env, obs, _ = opened(kind, output="numpy")
    out = env.step(env.threat.random(0).numpy())
    for seen in (obs, out[0]):
        assert all(isinstance(v, np.ndarray) for v in seen.values())
        assert seen in env.observation_space
    assert out[1].dtype == np.float32 and out[2].dtype == out[3].dtype == np.bool_
    torch_env, _, _ = opened(kind)
    same = torch_env.step(torch_env.threat.random(0))
    for name, value in same[0].items():
        assert np.array_equal(value.numpy(), out[0][name]), name
    assert np.array_equal(same[1].numpy(), out[1])


@pytest.mark.parametrize("kind", ["field", "edits"])
def test_draws_are_keyed_by_sample_not_by_lane(kind):
    env = make(toy.task(kind), 3)
    other = make(toy.task(kind), 2)
    env.reset(options={"samples": [4, 7, 9]})
    other.reset(options={"samples": [9, 4]})
    a, b = env.draws(5), other.draws(5)
    for shape in ((), (2, 3)):
        for draw in ("uniform", "normal"):
            x, y = getattr(a, draw)(*shape), getattr(b, draw)(*shape)
            assert torch.equal(x[[2, 0]], y)
        x, y = a.integers(10, *shape), b.integers(10, *shape)
        assert torch.equal(x[[2, 0]], y)
    assert torch.equal(env.threat.random(3)[[2, 0]], other.threat.random(3))
    assert torch.equal(env.threat.random(3, 4)[[2, 0]], other.threat.random(3, 4))
    many = env.threat.random(3, 4)
    assert len({tuple(r.flatten().tolist()) for r in many.view(12, -1)}) > 6, "proposals of a lane differ"


@pytest.mark.parametrize("kind", ["field", "edits"])
def test_same_seed_same_transcript_and_lanes_do_not_matter(kind):
    def play(lanes, options=None):
        env = make(toy.task(kind), lanes)
        obs, _ = env.reset(seed=3, options=options)
        seen = [obs]
        for t in range(6):
            obs, reward, *_ = env.step(env.threat.random(t))
            seen.append({**obs, "reward": reward})
        return seen, evaluator(env).batch.ids.tolist()

    one, ids = play(5)
    two, _ = play(5)
    alone, _ = play(1, {"samples": [ids[3]]})
    for a, b, c in zip(one, two, alone, strict=True):
        for name in a:
            assert torch.equal(a[name], b[name]), name
            assert torch.allclose(a[name][3].double(), c[name][0].double(), atol=1e-5), name


def test_nothing_returned_is_written_again():
    env, obs, _ = opened(proposals=2)
    kept = [({k: v.clone() for k, v in obs.items()}, obs)]
    for t in range(8):
        obs, *_ = env.step(env.threat.random(t, 2))
        kept.append(({k: v.clone() for k, v in obs.items()}, obs))
    env.reset(seed=1)
    for copy, held in kept:
        assert all(torch.equal(copy[k], held[k]) for k in copy)


def test_writing_into_an_observation_refunds_nothing():
    env, obs, _ = opened(queries=4)
    obs["queries_left"].fill_(10**6)
    obs["gradients_left"].fill_(10**6)
    obs["perturbation"].fill_(0.25)  # nor hands anything in
    obs["output"].fill_(0)
    assert torch.equal(evaluator(env).book.held, env.threat.null())
    obs, *_ = env.step(env.threat.random(0))
    assert (obs["queries_left"] == 3).all() and (obs["gradients_left"] == 20).all()


@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("output", ["torch", "numpy"])
def test_writing_into_everything_returned_changes_nothing(kind, output):
    """Clients normalise in place; the next answers are the same."""
    env, obs, _ = opened(kind, output=output, lanes=5)
    other, _, _ = opened(kind, output=output, lanes=5)
    for t in range(6):
        for value in obs.values():
            value[...] = 0
        p, q = env.threat.random(t), other.threat.random(t)
        assert torch.equal(p, q)
        obs, reward, *_ = env.step(p)
        want, gain, *_ = other.step(q)
        assert all(torch.equal(torch.as_tensor(obs[k]), torch.as_tensor(want[k])) for k in want)
        assert torch.equal(torch.as_tensor(reward), torch.as_tensor(gain))


# -- detectors --------------------------------------------------------------------------------------------------
def test_success_needs_the_risk_below_its_threshold():
    def risk(x):
        return (x.sum(1) * 4).round() % 2

    victim = Victim(toy.linear(), risk=risk, threshold=0.5)
    env, obs, _ = opened(victim=victim, lanes=8, eps=1.0, proposals=4, queries=80)
    assert "risk" in obs and obs in _numpied(env)
    some = False
    for t in range(15):
        live = env.live
        obs, *_ = env.step(env.threat.random(t, 4))
        reached = (obs["objective"] > SUCCESS) & obs["evaluated"]
        assert torch.equal(obs["success"], reached & (obs["risk"] < 0.5))
        some |= bool((reached & ~obs["success"] & live.unsqueeze(1)).any())
    assert some
    held = env.threat.apply(evaluator(env).book.held)
    assert (risk(held)[evaluator(env).book.success] == 0).all()


class _numpied:
    """`obs in _numpied(env)`: torch observations against the numpy space."""

    def __init__(self, env):
        self.space = env.observation_space

    def __contains__(self, obs):
        return {k: v.detach().numpy() for k, v in obs.items()} in self.space


def test_a_victim_driven_to_nan_never_succeeds():
    layer = toy.linear()
    clean = toy.samples()

    class Brittle(torch.nn.Module):
        def forward(self, x):
            known = (x.unsqueeze(1) == clean).all(2).any(1, keepdim=True)
            return layer(x) + torch.where(known, 0.0, torch.nan)

    env, _first, _ = opened(victim=Victim(Brittle()))
    p = env.threat.random(0).requires_grad_()
    obs, reward, terminated, _, _ = env.step(p)
    assert obs["evaluated"].all() and not obs["success"].any() and not terminated.any() and (reward == 0).all()
    for name in ("scores", "objective", "surrogate"):
        assert obs[name].isfinite().all(), name
    (g,) = torch.autograd.grad(obs["surrogate"].sum(), p)
    assert g.isfinite().all()
    assert torch.equal(obs["perturbation"], env.threat.null())
