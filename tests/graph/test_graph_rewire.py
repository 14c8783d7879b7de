"""Swaps of edges: degrees stay, graphs stay simple, masks are exact, the ranking is the finite difference."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym.envs.graph.perturb.batches import PROBES
from advgym.envs.graph.victims.stacked import stack
from advgym.errors import AdvgymError

KARATE = advgym.make_task("graph/karate-rewire")


def edges(batch, form, rows=None):
    """The perturbed graphs as sets of directed edges, one set a row."""
    rows = batch.inputs(form, rows)
    index, _ = stack(rows)
    size = batch.graph.size
    return [index[:, index[0] // size == i] % size for i in range(len(form))]


@given(seed=st.integers(0, 1 << 30), edits=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_degrees_stay_and_graphs_stay_simple(seed, edits):
    task = KARATE if edits == 3 else advgym.make_task("graph/karate-rewire", edits=edits)
    batch = task.samples("test", [0, 1, 5, 9])
    p = batch.random(seed)
    assert bool(batch.check(p).all())
    form = batch.look(p).form
    for lane, one in enumerate(edges(batch, form)):
        assert bool((one[0] != one[1]).all())
        key = one[0] * 34 + one[1]
        assert len(key.unique()) == len(key) == len(batch.graph.keys)
        assert torch.equal((one[1] * 34 + one[0]).sort().values, key.sort().values)  # undirected
        assert torch.equal(torch.bincount(one[0], minlength=34), batch.graph.count)
        moved = len(set(key.tolist()) - set(batch.graph.keys.tolist()))
        assert moved == 4 * int(batch.active(form)[lane].sum())  # an active swap puts two new edges
    assert torch.equal(batch.load([batch.dump(f, i) for i, f in enumerate(form)]), form)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_swaps_that_collide_do_nothing(data):
    """Any set of legal swaps is valid and is the graph of going through them by site, leaving out what collides."""
    batch = advgym.make_task("graph/karate-rewire", edits=4).samples("test", [9])
    sites = batch.site_mask()[0].nonzero()[:, 0].tolist()
    chosen = data.draw(st.lists(st.sampled_from(sites), min_size=2, max_size=4, unique=True))
    form, moves = batch.null(), {}
    for e, site in enumerate(chosen):
        open_ = batch.choice_mask(torch.tensor([site]))[0].nonzero()[:, 0].tolist()
        choice = data.draw(st.sampled_from(open_[:3] if data.draw(st.booleans()) else open_))
        form[0, e] = torch.tensor([site, choice])
        moves[site] = tuple(int(v) for v in batch.ends(torch.tensor(site), torch.tensor(choice)))
    assert bool(batch.check(form)[0])
    want, touched = {frozenset(p) for p in batch.graph.pairs.tolist()}, set()
    active = {site: False for site in moves}
    for site in sorted(moves):
        a, b, c, d = moves[site]
        pairs = {frozenset(p) for p in ((a, b), (c, d), (a, d), (c, b))}
        if not pairs & touched:
            touched |= pairs
            want ^= pairs
            active[site] = True
    for order in (form, form.flip(1)):
        one = edges(batch, order)[0]
        assert one.shape[1] == len(batch.graph.keys)
        assert {frozenset(p) for p in one.T.tolist()} == want
    assert batch.active(form)[0, : len(chosen)].tolist() == [active[site] for site in chosen]
    weights = torch.ones(form.shape[:2])
    torch.testing.assert_close(KARATE.victim(batch.relaxed(form, weights)), KARATE.victim(batch.inputs(form)))


@pytest.mark.parametrize("name", ["karate", "sbm"])
def test_masks_say_what_is_legal(name):
    batch = advgym.make_task(f"graph/{name}-rewire").samples("test", [0, 3, 5])
    graph, every = batch.graph, torch.arange(batch.choices)
    for i, target in enumerate(batch.target.tolist()):
        sites = batch.site_mask()[i].nonzero()[:, 0]
        own = torch.arange(int(graph.start[target]), int(graph.start[target] + graph.count[target]))
        for site in own.tolist():
            mask = batch.choice_mask(torch.tensor([site]), torch.tensor([i]))[0]
            site_ = torch.full((1, batch.choices), site)
            assert torch.equal(mask, batch.legal(site_, every.unsqueeze(0), torch.tensor([i]))[0])
            assert bool(mask.any()) == (site in sites.tolist())
            if batch.sites * batch.choices <= 1 << 16:
                assert torch.equal(batch.mask()[i, site], mask)
            for choice in every[mask][:40].tolist():
                a, b, c, d = (int(v) for v in batch.ends(torch.tensor(site), torch.tensor(choice)))
                assert a == target and len({a, d}) == len({c, b}) == 2
                assert not graph.has(torch.tensor([a, c]), torch.tensor([d, b])).any()
        assert not batch.site_mask()[i][torch.isin(every, own, invert=True)].any()
    assert bool((batch.limit <= batch.site_mask().sum(1).clamp_min(1)).all())


@pytest.mark.parametrize("name", ["karate", "sbm"])
def test_ranked_swaps_are_the_best_by_finite_difference(name):
    task = advgym.make_task(f"graph/{name}-rewire")
    batch = task.samples("test", [0, 1, 4])
    assert batch.graph.size**2 < PROBES  # no near node is left out
    form = batch.look(batch.random(2)).form[:, :1]
    form = torch.cat([form, batch.null()[:, 1:]], 1)
    x, leaves = batch.leaves(form)
    slope = torch.autograd.grad(task.victim(x)[:, 0].sum(), leaves)
    edits, gain = batch.rank_by(form, list(slope), 8)
    assert bool((gain[:, :-1] >= gain[:, 1:]).all())

    def rise(edit):
        more = form.clone()
        more[:, -1] = edit
        weights = torch.ones(more.shape[:2])
        weights[:, -1] = 0.0
        base = weights.clone()
        weights[:, -1] = 1e-2
        many = task.victim(batch.relaxed(more, weights)) - task.victim(batch.relaxed(more, base))
        return more, many[:, 0] / 1e-2

    for e in range(8):
        more, slopes = rise(edits[:, e])
        some = edits[:, e, 0] >= 0
        assert bool((batch.check(more) | (batch.limit == 1) | ~some).all())
        torch.testing.assert_close(gain[some, e], slopes[some], atol=5e-3, rtol=5e-2)
    u = torch.rand(20, 3, 2, generator=torch.Generator().manual_seed(1))
    for nth in range(20):  # and nothing that is drawn is better than the best
        more, slopes = rise(batch.sample_edit(u[nth]))
        fine = batch.active(more)[:, -1] & batch.active(more)[:, 0] & (more[:, -1, 0] != form[:, 0, 0])
        assert bool((slopes[fine] <= gain[fine, 0] + 5e-3).all())


def test_weights_of_whole_swaps_are_the_swaps():
    batch = KARATE.samples("test", [0, 1, 5])
    form = batch.look(batch.random(3)).form
    whole = KARATE.victim(batch.inputs(form))
    torch.testing.assert_close(KARATE.victim(batch.relaxed(form, torch.ones(form.shape[:2]))), whole)
    clean = KARATE.victim(batch.inputs(batch.null()))
    torch.testing.assert_close(KARATE.victim(batch.relaxed(form, torch.zeros(form.shape[:2]))), clean)


@pytest.mark.parametrize("knowledge", ["white-box", "score", "decision", "transfer"])
@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_the_contract_is_kept(knowledge, goal):
    advgym.check_vector_env(partial(advgym.make, "graph/karate-rewire", knowledge=knowledge, goal=goal))


def test_larger_tables_keep_the_contract():
    advgym.check_vector_env(partial(advgym.make, "graph/sbm-rewire", least=True))


def test_gradients_beat_random_swaps():
    found = {a: advgym.attack("graph/sbm-rewire", a, episodes=30, queries=30) for a in ("fga", "random-search")}
    assert found["fga"].success_rate > found["random-search"].success_rate
    assert advgym.verify(found["fga"]) == [] and found["fga"].invalid_rate == 0


def test_pictures_and_lines():
    batch = KARATE.samples("test", [0])
    form = batch.look(batch.random(4)).form
    words = KARATE.line(batch, 0, form[0])
    swaps = int(batch.active(form)[0].sum())
    assert words.count("+(") == words.count("-(") == 2 * swaps
    html = KARATE.show(batch, 0, form[0], torch.tensor(0), torch.tensor(1))
    ElementTree.fromstring(html.replace("&rarr;", "").replace("&#9473;", "").replace("&#9477;", ""))


def test_wrong_options_say_so():
    with pytest.raises(AdvgymError, match="swaps of two edges"):
        advgym.make_task("graph/karate-rewire", edits=0)


@pytest.mark.realdata
def test_cora(data_dir):
    result = advgym.attack("graph/cora-rewire", "fga", episodes=20, lanes=20)
    assert result.invalid_rate == 0 and advgym.verify(result) == []
