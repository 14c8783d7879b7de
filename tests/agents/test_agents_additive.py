"""Our own search: its model against Bayesian regression, its sets and prices by hand, and what it must beat."""

import itertools

import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym import attack, make, make_task
from advgym.agents.search.additive import chosen, going_on, hopes, neighbours, prefixes
from advgym.agents.shared.beliefs import COUNTS, JITTER, PAIR, SITE, TRUST, Effects, known_words
from advgym.agents.shared.slots import Slots

TASK = "text/synth-wordswap"


def opened(lanes, task=None, **threat):
    env = make(task or toy.task("edits", limit=3, queries=400, gradients=50, **threat), lanes)
    obs, _ = env.reset(seed=0)
    return env, obs


def model_of(lanes=4, asked=5, seed=3):
    """A model of the toy that has heard some answers, with hopes that are noise."""
    env, obs = opened(lanes, least=True)
    slots, draws = Slots(env, env.draws(0)), env.draws(seed)
    shape = slots.some.shape
    model = Effects(slots, obs, draws.normal(shape[1]), draws.uniform(shape[1]))
    for _ in range(asked):
        x = prefixes(slots, draws.uniform(1, shape[1]))[:, 0, -1]
        obs, *_ = env.step(slots.edits(x.unsqueeze(1))[:, 0])
        model.learn(x, x, obs["objective"].detach(), obs["evaluated"])
    return model, draws


def written_out(model, lane, x):
    """Hopes and features of positions (n, slots), and the variance of each weight: hope, sites, cells, pairs."""
    taken = (x >= 0).double()
    cells = torch.zeros(len(x), model.hope.shape[1] + 1).double().scatter(1, x % (model.hope.shape[1] + 1), 1.0)[:, :-1]
    pairs = [taken[:, i] * taken[:, j] for i, j in itertools.combinations(range(x.shape[1]), 2)]
    hope = cells @ model.hope[lane].double()
    features = torch.cat([hope.unsqueeze(1), taken, cells, torch.stack(pairs, 1)], 1)
    parts = [torch.tensor([TRUST**2]), torch.full((x.shape[1],), SITE**2), model.choice[lane]]
    return hope, features, torch.cat([*parts, torch.full((len(pairs),), PAIR**2)]).double()


def test_the_posterior_is_bayesian_regression_on_written_out_features():
    """The mean, the variance, the evidence of each scale and the chance of success, lane by lane, in feature space."""
    model, draws = model_of()
    x = prefixes(model.slots, draws.uniform(3, model.hope.shape[1])).flatten(1, 2)
    told, rest, variance = model.predict(x)
    chance = model.log_chance(x).exp()
    for lane in range(4):
        hope, a, prior = written_out(model, lane, model.real[lane])
        to, b, _ = written_out(model, lane, x[lane])
        noise = JITTER**2 * torch.eye(len(a)).double()
        inverse = torch.linalg.inv((a * prior) @ a.T + noise)
        gain = prior.unsqueeze(1) * a.T @ inverse
        spread = torch.diag(prior) - gain @ (a * prior)
        assert torch.allclose(((b @ spread) * b).sum(1).float(), variance[lane], atol=1e-4)
        evidence, wins = [], []
        for w, before in zip(model.scale[lane].double(), model.prior[lane].double(), strict=True):
            mean = w * to + b @ gain @ (model.answers[lane].double() - w * hope)
            assert torch.allclose(mean.float(), told[lane] + w.float() * rest[lane], atol=1e-3 * max(1.0, float(w)))
            answers = torch.distributions.MultivariateNormal(w * hope, w**2 * ((a * prior) @ a.T + noise))
            evidence.append(before + answers.log_prob(model.answers[lane].double()))
            deviation = w * (variance[lane].double().clamp_min(0) + JITTER**2).sqrt()
            wins.append(torch.distributions.Normal(0.0, 1.0).cdf((mean - model.need[lane]) / deviation))
        share = torch.softmax(torch.stack(evidence), 0)
        assert torch.allclose(share.float(), model.share[lane], atol=1e-3)
        assert torch.allclose((share.unsqueeze(1) * torch.stack(wins)).sum(0).float(), chance[lane], atol=2e-3)


def test_single_cells_are_predicted_as_sets_of_one():
    model, _ = model_of()
    slots, many = model.slots, model.hope.shape[1]
    cell = torch.where(slots.some, torch.arange(many).expand_as(slots.some), -1)
    told, rest, variance = model.predict(slots.put(slots.clean(1).expand(-1, many, -1), cell))
    scale = (model.share * model.scale).sum(1, keepdim=True)
    mean, deviation = model.cells()
    assert torch.allclose(mean[slots.some], (told + scale * rest)[slots.some], atol=1e-4)
    assert torch.allclose(deviation[slots.some], (scale * variance.clamp_min(1e-6).sqrt())[slots.some], atol=1e-3)


def test_what_was_answered_is_believed_and_known():
    model, _ = model_of(asked=6)
    told, rest, _ = model.predict(model.real)
    scale = (model.share * model.scale).sum(1, keepdim=True)
    assert torch.allclose(told + scale * rest, model.answers, atol=0.05 * float(model.answers.abs().max()))
    assert model.known(model.real).all() and model.known(model.slots.clean(1)).all()
    other = torch.where(model.real >= 0, model.real, 0)[:, :1]
    other[:, :, 1:] = -1  # one cell alone, where three were asked each time
    assert not model.known(other).any()


def test_some_lanes_of_a_model_are_that_model():
    model, draws = model_of()
    x = prefixes(model.slots, draws.uniform(2, model.hope.shape[1])).flatten(1, 2)
    rows = torch.tensor([3, 1])
    twin = model.take(rows)
    assert torch.allclose(twin.log_chance(x[rows]), model.log_chance(x)[rows], atol=1e-5)
    assert torch.equal(twin.known(x[rows]), model.known(x)[rows])


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_going_on_is_the_best_of_all_plans(seed):
    """Against every subset of the sizes, no larger than there are queries, asked in rising order and then given up."""
    g = torch.Generator().manual_seed(seed)
    chance = torch.rand(1, 2, 4, generator=g)
    edits = torch.tensor([1.0, 2.0, 3.0, 5.0]).expand(1, 2, -1)
    price, value = float(torch.rand((), generator=g)), 8 * float(torch.rand((), generator=g))
    best = [value] * 5
    for chain in chance[0].cummax(1).values.double().tolist():
        for plan in itertools.chain.from_iterable(itertools.combinations(range(4), k) for k in range(1, 5)):
            cost, failed = 0.0, 0.0
            for j in plan:
                cost += (1 - failed) * price + (chain[j] - failed if chain[j] > failed else 0.0) * float(edits[0, 0, j])
                failed = max(failed, chain[j])
            for queries in range(len(plan), 5):
                best[queries] = min(best[queries], cost + (1 - failed) * value)
    found = going_on(chance, edits, price, torch.tensor([value]))[0].tolist()
    assert found[:5] == pytest.approx(best, abs=1e-4) and found[4:] == pytest.approx(
        [best[4]] * len(found[4:]), abs=1e-4
    )


def test_few_queries_go_to_larger_sets():
    """What a query will be missed for is part of its price: the last one goes to a set that is no smaller."""
    env, obs = opened(16, make_task(TASK, knowledge="score"))
    slots = Slots(env, env.draws(0))
    model, value = Effects(slots, obs, *known_words(obs, slots, COUNTS)), torch.full((16,), 20.0)
    sizes = [(chosen(model, 0.01, value, torch.full((16,), n))[0] >= 0).sum(1) for n in (1, 2, 100)]
    assert bool((sizes[0] >= sizes[1]).all()) and bool((sizes[1] >= sizes[2]).all())
    assert bool((sizes[0] > sizes[2]).any())


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_prefixes_are_the_best_sets_of_every_size(seed):
    env, _ = opened(4, least=True)
    slots = Slots(env, env.draws(0))
    score = env.draws(seed).normal(2 * slots.some.shape[1]).view(4, 2, -1)
    x = prefixes(slots, score)
    assert x.shape[2] == 3  # sizes 1, 2, 3
    for lane, q in itertools.product(range(4), range(2)):
        tops = {}
        for m in slots.some[lane].nonzero().squeeze(1).tolist():
            value, at = float(score[lane, q, m]), int(slots.slot[lane, m])
            tops[at] = max(tops.get(at, (-1e9, -1)), (value, m))
        order = sorted(tops.values(), reverse=True)
        able = order[:1] + [pair for pair in order[1:] if pair[0] > 0]
        for k in range(3):
            want = {m for _, m in able[: k + 1]}
            assert set(x[lane, q, k][x[lane, q, k] >= 0].tolist()) == want


def test_neighbours_are_one_cell_away_within_the_limit():
    model, _ = model_of()
    mean, deviation = model.cells()
    near, best = neighbours(model, mean, deviation), model.real[torch.arange(4), model.answers.argmax(1)]
    many = (near >= 0).sum(2)
    assert (many <= model.slots.limit.unsqueeze(1)).all()
    held = torch.where(near >= 0, near, 0)
    assert torch.equal(model.slots.slot.gather(1, held.flatten(1)).view_as(near)[near >= 0],
                       torch.arange(near.shape[2]).expand_as(near)[near >= 0])  # fmt: skip
    away = ((near != best.unsqueeze(1)) & (near >= 0)).sum(2)
    assert (away <= 1).all() and (away == 1).any(1).all()


def test_hopes_are_log_odds_against_the_output_shrunk_by_how_seldom_a_word_was_seen():
    env, obs = opened(6, make_task(TASK, knowledge="score"))
    slots = Slots(env, env.draws(0))
    hope, (shrunk, seen) = hopes(obs, slots), known_words(obs, slots, 7.0)
    closed = (obs["site_features"].shape[2] - 3) // 2
    for lane in range(6):
        for m in slots.some[lane].nonzero().squeeze(1).tolist()[::7]:
            site, choice = slots.cells[lane, m].tolist()
            row = obs["site_features"][lane, site].double()
            away = 1.0 if int(obs["output"][lane]) == 0 else -1.0
            assert choice < closed and float(hope[lane, m]) == pytest.approx(away * float(row[3 + choice]))
            old, new = (float(n.exp() - 1) for n in (row[2], row[2] + row[3 + closed + choice]))
            want = float(row[1] + row[3 + choice]) * new / (new + 7) - float(row[1]) * old / (old + 7)
            assert float(shrunk[lane, m]) == pytest.approx(away * want, abs=1e-4)
            assert float(seen[lane, m]) == pytest.approx(new / (new + 1), abs=1e-4)
    env, obs = opened(6)
    slots = Slots(env, env.draws(0))
    assert not hopes(obs, slots).any() and known_words(obs, slots)[1].eq(1).all()


# -- the search ---------------------------------------------------------------------------------------------------
def measured(episodes=60, agent="additive", lanes=60, given=None, **options):
    return {s.id: s for s in attack(TASK, agent, episodes=episodes, lanes=lanes, settings=given, **options).samples}


def words(one, other):
    """Mean words changed of each, over the samples that both break."""
    both = [i for i in one if one[i].success and other[i].success]
    return tuple(sum(of[i].distance for i in both) / len(both) for of in (one, other))


def total(found, what="queries"):
    return sum(getattr(s, what) for s in found.values())


def test_no_set_is_asked_twice_and_no_lane_hears_of_another():
    found, alone = measured(16, lanes=16), measured(16, lanes=5, seed=5)
    assert all(s.queries == s.queries_distinct <= 100 for s in found.values())
    assert all(found[i].perturbation == alone[i].perturbation and found[i].queries == alone[i].queries for i in found)


def test_it_has_greedys_success_on_half_of_plain_greedys_queries():
    """On the embedded reviews, whose log-odds are as public as those of any corpus."""
    ours, full, plain = (measured(100, name, 50, given) for name, given in
                         (("additive", {}), ("greedy-search", {}), ("wir", {"importance": "delete"})))  # fmt: skip
    assert total(ours, "success") >= max(total(full, "success") - 2, total(plain, "success"))
    assert total(ours) <= 0.5 * total(plain)
    mine, best = words(ours, full)
    assert mine <= 1.25 * best


def test_a_dear_query_is_spent_on_larger_sets():
    cheap, dear = (measured(given={"price": p}) for p in (0.01, 2.0))
    few, many = words(cheap, dear)
    assert total(dear) < 0.7 * total(cheap) and many >= few and total(dear, "success") <= total(cheap, "success")


def test_where_the_least_distortion_counts_it_goes_on_from_a_success_to_smaller_sets():
    first, least = (measured(given={"price": 0.2}, least=go) for go in (False, True))
    many, few = words(first, least)
    assert few < many and total(least, "success") >= total(first, "success")
