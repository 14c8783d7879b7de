"""`env.view`, `env.rank`, `env.victim`, transfer."""

import pytest
import torch
import toy
from test_core_contract import opened

from advgym import AdvgymError, BudgetExhausted, Malformed, Victim, make
from advgym.judge.evaluator import evaluator
from advgym.judge.verdict import judge


# -- views -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["field", "edits"])
def test_a_view_shares_meters_and_best_so_far(kind):
    env, _, _ = opened(kind, lanes=4)
    env.step(env.threat.random(0))
    held = evaluator(env).book.held.clone()
    view = env.view([0, 2])
    assert view.num_envs == 2
    obs, _ = view.reset(seed=9, options={"samples": [1, 2]})
    assert torch.equal(evaluator(view).batch.ids, evaluator(env).batch.ids), "a view deals nothing"
    assert obs["queries_left"].tolist() == view.asks_left.tolist() == [19, 19]
    assert torch.equal(obs["perturbation"], held[[0, 2]])
    obs, *_ = view.step(view.threat.random(1))
    spent = [18 if live else 19 for live in obs["evaluated"].tolist()]
    assert evaluator(env).book.queries_left.tolist() == [spent[0], 19, spent[1], 19]


def test_a_view_answers_for_its_own_lanes():
    env, _, _ = opened(lanes=5)
    view = env.view(torch.tensor([False, True, False, True, True]))
    p = env.threat.random(3)
    assert torch.equal(view.threat.random(3), p[[1, 3, 4]])
    obs, *_ = view.step(p[[1, 3, 4]])
    scores = toy.linear()(env.threat.apply(p))
    assert torch.allclose(obs["scores"], scores[[1, 3, 4]], atol=1e-6)
    assert torch.equal(view.threat.reach, env.threat.reach[[1, 3, 4]])


def test_a_view_of_a_view_and_proposals():
    env, _, _ = opened(lanes=5)
    view = env.view([1, 3, 4]).view([0, 2], proposals=3)
    assert view.action_space.shape == (2, 3, toy.SIZE) and view.proposals == 3
    p = view.threat.random(0, 3)
    obs, reward, terminated, _, _ = view.step(p)
    assert reward.shape == terminated.shape == (2,) and obs["scores"].shape == (2, 3, toy.CLASSES)
    left = evaluator(env).book.queries_left
    assert left[[0, 2, 3]].tolist() == [20] * 3 and (left[[1, 4]] == 17).all()
    x = toy.samples()[evaluator(env).batch.ids[[1, 4]]].unsqueeze(1) + p
    assert torch.allclose(obs["scores"], toy.linear()(((x * 4).round() / 4).clamp(0, 1)), atol=1e-5)
    back = env.view(proposals=None)
    assert back.proposals is None and back.step(back.threat.random(0))[0]["scores"].shape == (5, toy.CLASSES)


def test_steps_in_a_view_count_for_its_lanes_only():
    env, _, _ = opened(lanes=3, queries=4)
    view = env.view([0])
    for _ in range(4):
        _, _, terminated, _, _ = view.step(view.threat.null())
    assert terminated.all() and env.live.tolist() == [False, True, True]
    other = env.view([1, 2])
    for t in range(4):
        assert other.live.all(), f"lanes end after {t} steps of their own"
        other.step(other.threat.null())
    assert env.done


def test_a_view_reward_is_of_the_shared_potential():
    env, first, _ = opened(lanes=3)
    start = first["objective"].clamp_max(0)
    total = torch.zeros(3)
    total += env.step(env.threat.random(0))[1]
    view = env.view([0, 2])
    for t in range(1, 6):
        total[[0, 2]] += view.step(view.threat.random(t))[1]
    total += env.step(env.threat.random(9))[1]
    scores = toy.linear()(env.threat.apply(evaluator(env).book.held))
    ref = first["output"].unsqueeze(1)
    objective = scores.scatter(1, ref, -torch.inf).amax(1) - scores.gather(1, ref).squeeze(1)
    end = (objective > 1e-6).float() + objective.clamp_max(0)
    assert torch.allclose(total, end - start, atol=1e-5)


def test_no_reset_refunds_anything():
    env = make(toy.task(), assigned=[1, 2])
    env.reset()
    while not env.done:
        view = env.view()
        view.reset(seed=1)
        view.step(torch.full((2, toy.SIZE), 0.25))
        env.reset(seed=2)
    assert (evaluator(env).book.queries_left >= 0).all()


def test_views_refuse_wrong_lanes():
    env, _, _ = opened(lanes=3)
    for lanes in (
        [],
        [3],
        [-1],
        [2, 0],
        [1, 1],
        [0.0],
        [[0, 1]],
        torch.tensor([True, False]),
        torch.zeros(3, dtype=torch.bool),
    ):
        with pytest.raises(AdvgymError):
            env.view(lanes)


def test_a_view_outlived_by_its_episodes_says_so():
    env, _, _ = opened(lanes=3)
    view = env.view([0, 1])
    env.reset(seed=5)
    with pytest.raises(AdvgymError, match="view"):
        view.step(torch.zeros(2, toy.SIZE))


def test_gradients_through_a_view_are_charged_to_its_lanes():
    env, _, _ = opened(lanes=4)
    view = env.view([1, 3])
    p = view.threat.random(0).requires_grad_()
    obs, *_ = view.step(p)
    torch.autograd.grad(obs["surrogate"].sum(), p)
    assert evaluator(env).book.gradients_left.tolist() == [20, 19, 20, 19]


# -- rank ----------------------------------------------------------------------------------------------------------
def gains_by_hand(env, cotangent=None):
    """Exact first-order gains of every single edit on the linear victim: (lanes, sites, choices)."""
    x = toy.samples()[evaluator(env).batch.ids].requires_grad_()
    scores = toy.linear()(x)
    if cotangent is None:
        loss = torch.nn.functional.cross_entropy(scores, evaluator(env).episodes.ref, reduction="sum")
    else:
        loss = (scores * cotangent).sum()
    (g,) = torch.autograd.grad(loss, x)
    level = torch.arange(toy.LEVELS + 1) / (toy.LEVELS - 1)
    gain = g.unsqueeze(2) * (level - x.detach().unsqueeze(2))
    return gain.masked_fill(~env.table.mask(), -torch.inf)


@pytest.mark.parametrize("given", [False, True])
def test_rank_is_the_first_order_optimum(given):
    env, _, _ = opened("edits")
    cotangent = torch.randn(4, toy.CLASSES, generator=torch.Generator().manual_seed(0)) if given else None
    edits, gains = env.rank(cotangent=cotangent, k=5)
    want = gains_by_hand(env, cotangent).flatten(1).topk(5, dim=1)
    assert torch.allclose(gains, want.values, atol=1e-5)
    cells = edits[..., 0] * (toy.LEVELS + 1) + edits[..., 1]
    assert torch.equal(cells.sort(1).values, want.indices.sort(1).values)


def test_rank_costs_one_query_and_one_gradient():
    env, _, _ = opened("edits")
    env.rank(k=3)
    assert (
        evaluator(env).book.queries_left.tolist() == [19] * 4
        and evaluator(env).book.gradients_left.tolist() == [19] * 4
    )
    env.rank(env.threat.random(0))
    assert evaluator(env).book.queries_left.tolist() == [18] * 4


def test_rank_pads_where_fewer_exist():
    env, _, _ = opened("edits")
    edits, gains = env.rank(k=100)
    assert edits.shape == (4, 100, 2) and gains.shape == (4, 100)
    none = gains == -torch.inf
    assert none.any() and (edits[none] == -1).all() and (edits[~none] >= 0).all()


def test_rank_does_not_propose_keys_that_are_used():
    env, _, _ = opened("edits")
    p = env.threat.random(2)
    edits, _ = env.rank(p, k=20)
    for i in range(4):
        used = set(p[i][p[i, :, 0] >= 0][:, 0].tolist())
        assert not used & set(edits[i, :, 0].tolist())


def test_finished_and_spent_lanes_get_padding():
    env = make(toy.task("edits", gradients=1), 3)
    env.reset(options={"samples": [10, 1, 2]})
    edits, gains = env.rank(k=2)
    assert (edits[0] == -1).all() and (gains[0] == -torch.inf).all() and (edits[1:] >= 0).all()
    assert evaluator(env).book.queries_left.tolist() == [20, 19, 19]
    edits, gains = env.rank(k=2)
    assert (edits == -1).all() and evaluator(env).book.queries_left.tolist() == [20, 19, 19], "no gradient is left"


def test_rank_is_for_edits_and_reads_its_arguments():
    with pytest.raises(AdvgymError, match="Field"):
        opened()[0].rank()
    env, _, _ = opened("edits")
    for bad in (env.threat.null()[:2], env.threat.null().float(), env.threat.null()[:, :1]):
        with pytest.raises(Malformed):
            env.rank(bad)
    with pytest.raises(Malformed):
        env.rank(cotangent=torch.ones(4, toy.CLASSES + 1))
    assert evaluator(env).book.queries_left.tolist() == [20] * 4


# -- env.victim ------------------------------------------------------------------------------------------------------
def test_the_metered_victim_charges_per_row():
    env, _, _ = opened(lanes=3)
    x = torch.rand(5, toy.SIZE)
    scores = env.victim(x, [0, 2, 0, 0, 1])
    assert torch.allclose(scores, toy.linear()(x), atol=1e-6)
    assert evaluator(env).book.queries_left.tolist() == [17, 19, 19]
    view = env.view([1, 2])
    view.victim(x[:2], [1, 1])
    assert evaluator(env).book.queries_left.tolist() == [17, 19, 17]


def test_the_metered_victim_charges_gradients():
    env, _, _ = opened(lanes=3)
    x = torch.rand(3, toy.SIZE, requires_grad=True)
    scores = env.victim(x, [2, 0, 2])
    (g,) = torch.autograd.grad(scores[:, 0].sum(), x)
    assert torch.allclose(g, toy.linear().weight[0].expand(3, -1))
    assert evaluator(env).book.gradients_left.tolist() == [19, 20, 18]


def test_the_metered_victim_raises_before_evaluating():
    rows = []
    layer = toy.linear()

    def count(x):
        rows.append(len(x))
        return layer(x)

    env, _, _ = opened(lanes=2, queries=3, victim=Victim(count))
    rows.clear()
    with pytest.raises(BudgetExhausted, match="lane 1"):
        env.victim(torch.rand(5, toy.SIZE), [0, 1, 1, 1, 1])
    assert rows == [] and evaluator(env).book.queries_left.tolist() == [3, 3]


def test_a_budget_spent_through_the_victim_is_spent():
    env, _, _ = opened(lanes=2, queries=3)
    env.victim(torch.rand(3, toy.SIZE), [0, 0, 0])
    obs, *_ = env.step(torch.full((2, toy.SIZE), 0.25))
    assert obs["queries_left"].tolist() == [0, 2] and obs["evaluated"].tolist() == [False, True]
    env.victim(torch.rand(2, toy.SIZE), [1, 1])
    assert env.done


@pytest.mark.parametrize("lanes", [[3], [-1], [0, 1], [0.5]])
def test_the_metered_victim_refuses_wrong_lanes(lanes):
    env, _, _ = opened(lanes=3)
    with pytest.raises(Malformed):
        env.victim(torch.rand(1, toy.SIZE), lanes)


def test_the_metered_victim_tells_no_more_than_the_knowledge():
    env, _, _ = opened(knowledge="decision")
    assert env.victim(torch.rand(2, toy.SIZE), [0, 1]).shape == (2,)
    env, _, _ = opened(knowledge="score")
    x = torch.rand(2, toy.SIZE, requires_grad=True)
    assert not env.victim(x, [0, 1]).requires_grad


# -- transfer --------------------------------------------------------------------------------------------------------
def test_transfer_answers_come_from_the_surrogate():
    env, obs, _ = opened(knowledge="transfer")
    x = toy.samples()[evaluator(env).batch.ids]
    assert torch.allclose(obs["scores"], toy.linear(1)(x), atol=1e-6)
    p = env.threat.random(0)
    stepped = env.step(p)[0]
    assert torch.allclose(stepped["scores"], toy.linear(1)(env.threat.apply(p)), atol=1e-6)
    q = p.clone().requires_grad_()
    (g,) = torch.autograd.grad(env.step(q)[0]["scores"][:, 0].sum(), q)
    live = (g != 0).any(1)
    assert live.any() and torch.allclose(g[live], toy.linear(1).weight[0].expand(int(live.sum()), -1), atol=1e-6)
    assert torch.allclose(env.victim(x[:1], [0]), toy.linear(1)(x[:1]), atol=1e-6)


def test_the_true_victim_is_asked_about_clean_samples_only():
    seen = []
    layer = toy.linear()

    def spy(x):
        seen.append(x.clone())
        return layer(x)

    env, _, _ = opened(knowledge="transfer", victim=Victim(spy))
    seen.clear()
    for t in range(5):
        env.step(env.threat.random(t))
    assert seen == []


def test_deals_what_the_true_victim_has_right():
    env, _, _ = opened(knowledge="transfer", lanes=10)
    assert all(i % 10 for i in evaluator(env).batch.ids.tolist())


@pytest.mark.parametrize("proposals", [None, 3])
def test_the_verdict_is_on_the_last_one_handed_in(proposals):
    env, _, _ = opened(knowledge="transfer", proposals=proposals, lanes=6)
    p = None
    for t in range(3):
        p = env.threat.random(t, proposals)
        obs, _, terminated, _, _ = env.step(p)
        assert not terminated.any(), "a success on the surrogate ends nothing"
    last = p if proposals is None else p[:, -1]
    assert torch.equal(obs["perturbation"], env.threat.project(obs["perturbation"]))
    assert torch.allclose(env.threat.apply(evaluator(env).book.held), env.threat.apply(last), atol=1e-6)
    found = judge(evaluator(env).task, "test", evaluator(env).batch.ids.tolist(), evaluator(env).book.held)
    scores = toy.linear()(env.threat.apply(last))
    assert torch.equal(found.after, scores.argmax(1)) and torch.equal(found.valid, torch.ones(6, dtype=torch.bool))


def test_transfer_targets_are_not_what_the_true_victim_says_already():
    env = make(toy.task(goal="targeted", knowledge="transfer"), toy.SAMPLES)
    env.reset(options={"samples": list(range(toy.SAMPLES))})
    truth = toy.linear()(toy.samples()).argmax(1)
    assert not (env.live & (evaluator(env).episodes.target == truth)).any()
