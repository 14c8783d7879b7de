"""Where the threat model bounds it, nothing is evaluated beyond some times the constraint, however it is asked."""

import pytest
import torch

import advgym
from advgym import AdvgymError, BudgetExhausted, make_task
from advgym.core.env import AttackEnv
from advgym.judge.evaluator import evaluator

TASKS = ["image/digits-linf", "image/digits-l2", "image/digits-pixel", "speech/synth-keyword", "text/synth-wordswap",
         "graph/sbm-edge", "graph/sbm-feature", "graph/sbm-global", "graph/sbm-continuous", "text/synth-joint",
         "graph/sbm-inject"]  # fmt: skip


def env_of(name, widen=2.0, **options):
    env = AttackEnv(make_task(name, widen=widen, **options), assigned=[0, 1] if "global" not in name else [0])
    env.reset(seed=0)
    return env


@pytest.mark.parametrize("name", TASKS)
def test_what_is_within_is_answered_as_without_the_bound(name):
    plain, bounded = env_of(name, None), env_of(name)
    p = plain.threat.random(3)
    a, b = plain.step(p)[0], bounded.step(p)[0]
    for key in ("evaluated", "valid", "scores", "queries_left"):
        assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize("name", [t for t in TASKS if (t.startswith("image") and "pixel" not in t) or "speech" in t])
def test_fields_beyond_are_charged_and_not_evaluated(name):
    env = env_of(name)
    unit = env.threat.steepest(torch.ones(env.num_envs, *env.shape))
    wide = env.threat.reach.view(-1, *[1] * len(env.shape))
    low, high = unit * wide * 1.5, unit * wide * 40
    for p, answered in ((low, True), (high, False)):
        for view in (env, env.view(), env.view([0])):
            before = evaluator(view).book.queries_left.clone()
            obs = view.step(p[: view.num_envs])[0]
            far = env.threat.distance(p)[: view.num_envs] > 2.01 * env.threat.reach[: view.num_envs]
            assert bool((obs["evaluated"] == ~far).all()) and (answered or bool(far.any()))
            assert bool((obs["scores"][far] == 0).all())
            assert int((before - evaluator(view).book.queries_left).sum()) == view.num_envs


def test_one_lane_cannot_ask_about_anothers_sample():
    """Before: lane 0 proposes x[1] - x[0] and gets lane 1's scores."""
    for widen, answered in ((None, True), (2.0, False)):
        env = env_of("image/digits-linf", widen, knowledge="score")
        x = env.threat.apply(env.threat.null())
        clean = env.reset()[0]["scores"]
        obs = env.step(x.flip(0) - x)[0]
        assert bool(obs["evaluated"].all()) == answered
        assert torch.allclose(obs["scores"], clean.flip(0), atol=1e-4) == answered


@pytest.mark.parametrize(("widen", "answered"), [(None, True), (1.0, False)])
def test_edits_beyond_are_charged_and_not_evaluated(widen, answered):
    env = env_of("graph/sbm-global", widen)
    p, many = env.threat.null(), env.shape[0]
    assert many > float(env.threat.reach[0])
    p[0] = torch.combinations(torch.arange(many + 1))[:many]
    obs = env.step(p)[0]
    assert bool(obs["evaluated"][0]) == answered and not bool(obs["valid"][0])
    assert int(env.threat.model.queries - obs["queries_left"][0]) == 1


def test_relaxed_edits_count_as_far_as_their_weights_go():
    env = env_of("graph/sbm-global", 1.0)
    many, limit = env.shape[0], float(env.threat.reach[0])
    assert many > limit
    p = env.threat.null()
    pairs = torch.combinations(torch.arange(many + 1))[:many]
    p[0] = pairs
    for share, answered in ((0.9 * limit / many, True), (1.2 * limit / many, False)):
        weights = torch.full((1, many), share, requires_grad=True)
        assert bool(env.step((p, weights))[0]["evaluated"][0]) == answered


@pytest.mark.parametrize("name", ["image/digits-linf", "image/digits-l2", "image/digits-pixel", "speech/synth-keyword"])
def test_raw_inputs_beyond_are_charged_and_answer_nan(name):
    env = env_of(name)
    x = env.threat.apply(env.threat.null())
    lanes = torch.arange(env.num_envs)
    assert torch.isfinite(env.victim(x, lanes)).all()
    left = env.asks_left.clone()
    far = env.victim(x.flip(0) if x[0].shape == x[1].shape else 1 - x, lanes)
    assert torch.isnan(far).all() and torch.equal(env.asks_left, left - 1)
    mixed = env.victim(torch.stack([x[0], x[1] * 0 + 0.37]), torch.tensor([0, 1]))
    assert torch.isfinite(mixed[0]).all() and torch.isnan(mixed[1]).all()


@pytest.mark.parametrize("name", ["graph/sbm-edge", "graph/sbm-global"])
def test_raw_graphs_are_bounded_by_their_flips(name):
    env = env_of(name, 1.0)
    clean = env.threat.apply(env.threat.null()).of_lane(0)
    graph, limit = clean.graph, int(env.threat.reach[0])

    def without(pairs):
        index = graph.edge_index()
        gone = {tuple(p) for p in graph.pairs[:pairs].tolist()}
        keep = torch.tensor([tuple(sorted(e)) not in gone for e in index.T.tolist()])
        return clean.raw(index[:, keep], torch.ones(int(keep.sum())))

    lane = torch.tensor([0])
    assert torch.isfinite(env.victim(without(0), lane)).all()
    assert torch.isfinite(env.victim(without(limit), lane)).all()
    assert torch.isnan(env.victim(without(limit + 2), lane)).all()


def test_raw_inputs_ask_for_a_lane_that_runs():
    env = env_of("image/digits-linf", queries=2)
    x = env.threat.apply(env.threat.null())
    env.victim(x, torch.arange(2))
    env.step(env.threat.random(0))
    assert env.done
    with pytest.raises(BudgetExhausted):
        env.victim(x, torch.arange(2))
    free = env_of("image/digits-linf", queries=4)
    evaluator(free).book.live[0] = False
    with pytest.raises(BudgetExhausted, match="lane 0 is over"):
        free.victim(x, torch.arange(2))


def test_raw_inputs_without_a_distance_are_refused_by_name():
    env = env_of("text/synth-wordswap")
    x = env.threat.apply(env.threat.null())
    with pytest.raises(AdvgymError, match="no distance"):
        env.victim(x, torch.arange(2))


def test_rank_beyond_is_charged_and_answers_nothing():
    env = env_of("graph/sbm-global", 1.0)
    p = env.threat.null()
    many = env.shape[0]
    p[0] = torch.combinations(torch.arange(many + 1))[:many]
    left = env.asks_left.clone()
    edits, gains = env.rank(p, k=3)
    assert (edits == -1).all() and torch.isneginf(gains).all() and torch.equal(env.asks_left, left - 1)
    edits, _ = env.rank(k=3)
    assert (edits >= 0).all()


def test_a_pooled_search_gains_nothing():
    """Three lanes' queries on one lane's image: with the bound it wins what a plain search wins, or less."""

    def pooled(env, *, seed=0):
        """Lanes that could win lend their queries to those that cannot yet, and hand in with their last one."""
        ref = env.reset(seed=seed)[0]["output"]
        x, n = env.threat.apply(env.threat.null()), env.num_envs
        best, todo = env.threat.null(), set(range(n))
        for i in range(22):
            if env.done or not todo:
                break
            open_ = sorted(todo)
            t = torch.tensor([open_[(lane + i) % len(open_)] for lane in range(n)])
            tries = env.draws(seed + i).normal(*env.shape).sign() * env.threat.reach[0]
            obs = env.step(x[t] + tries - x)[0]
            own = obs["scores"].gather(1, ref[t].unsqueeze(1)).squeeze(1)
            margin = obs["scores"].scatter(1, ref[t].unsqueeze(1), -9e9).amax(1) - own
            for k in (obs["evaluated"] & (margin > 0)).nonzero().squeeze(1).tolist():
                best[t[k]] = tries[k]
                todo -= {int(t[k])}
        if not env.done:
            env.step(best)

    def plain(env, *, seed=0):
        env.reset(seed=seed)
        for i in range(40):
            if env.done:
                return
            env.step(env.draws(seed + i).normal(*env.shape).sign() * env.threat.reach[0])

    options = {"eps": "4/16", "knowledge": "score", "queries": 24}
    rates = {
        (name, w): advgym.attack("image/digits-linf", agent, episodes=48, lanes=48, widen=w, **options).success_rate
        for name, agent in (("plain", plain), ("pooled", pooled)) for w in (None, 2.0)
    }  # fmt: skip
    assert rates["plain", None] == rates["plain", 2.0] < rates["pooled", None]
    assert rates["pooled", 2.0] <= rates["plain", 2.0]


@pytest.mark.parametrize("widen", [0, 0.5, -1, float("nan"), float("inf"), "wide"])
def test_a_factor_below_one_is_refused(widen):
    with pytest.raises(AdvgymError, match="widen is a number of at least 1"):
        make_task("image/digits-linf", widen=widen)
