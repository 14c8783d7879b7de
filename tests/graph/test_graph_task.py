"""The tasks as agents meet them: tables, limits, ranking, views, reports."""

import xml.etree.ElementTree as ElementTree

import pytest
import torch

import advgym
from advgym.errors import AdvgymError, DataError

EMBEDDED = [
    ("graph/karate-edge", {}),
    ("graph/karate-edge", {"influence": True}),
    ("graph/sbm-edge", {}),
    ("graph/sbm-edge", {"influence": True}),
    ("graph/sbm-feature", {}),
    ("graph/sbm-feature", {"influence": True}),
]


def _batch(name, options, ids=(0, 3, 5), split="test"):
    task = advgym.make_task(name, **options)
    return task, task.samples(split, list(ids))


@pytest.mark.parametrize(("name", "options"), EMBEDDED)
def test_masks_say_what_is_legal(name, options):
    _, batch = _batch(name, options)
    site = torch.arange(batch.sites)
    for i in range(len(batch)):
        rows = torch.full((batch.sites,), i)
        grid = batch.choice_mask(site, rows)
        every = torch.arange(batch.choices).expand(batch.sites, -1)
        assert torch.equal(grid, batch.legal(site.unsqueeze(1).expand_as(every), every, rows))
        assert torch.equal(grid.any(1), batch.site_mask()[i])
        assert not grid.diagonal().any() or batch.key == "cell"
        if batch.sites * batch.choices <= 1 << 16:
            assert torch.equal(batch.mask()[i], grid)
        touches = grid[batch.target[i]].any() or (batch.key == "pair" and grid[:, batch.target[i]].any())
        assert bool(touches) != bool(options.get("influence", False))
    if batch.sites * batch.choices > 1 << 16:
        with pytest.raises(NotImplementedError):
            batch.mask()
    p = batch.random(1)
    assert bool(batch.check(p).all())
    assert torch.equal(batch.load([batch.dump(f, i) for i, f in enumerate(batch.look(p).form)]), batch.look(p).form)


@pytest.mark.parametrize(("name", "options"), EMBEDDED)
def test_ranked_edits_are_the_best_by_finite_difference(name, options):
    task, batch = _batch(name, options, (0, 1, 2, 3))
    form = batch.look(batch.random(2)).form[:, :1]
    form = torch.cat([form, batch.null()[:, 1:]], 1)  # one edit is there already
    x, leaves = batch.leaves(form)
    scores = task.victim(x)
    slope = torch.autograd.grad(scores[:, 0].sum(), leaves, allow_unused=True)
    edits, gain = batch.rank_by(form, list(slope), 6)
    assert edits.shape == (4, 6, 2) and gain.dtype == torch.float32
    assert bool((gain[:, :-1] >= gain[:, 1:]).all())
    step = 1e-2
    for e in range(6):
        more = form.clone()
        more[:, -1] = edits[:, e]
        assert bool(batch.check(more).all())  # legal, and of no key that the form holds
        weights = torch.ones(more.shape[:2])
        weights[:, -1] = step
        base = weights.clone()
        base[:, -1] = 0.0
        rise = task.victim(batch.relaxed(more, weights))[:, 0] - task.victim(batch.relaxed(more, base))[:, 0]
        torch.testing.assert_close(gain[:, e], rise / step, atol=5e-3, rtol=5e-2)


def test_direct_ranking_leaves_nothing_out():
    task, batch = _batch("graph/karate-edge", {})
    x, leaves = batch.leaves(batch.null())
    slope = torch.autograd.grad(task.victim(x)[:, 0].sum(), leaves)
    edits, gain = batch.rank_by(batch.null(), list(slope), 40)
    for i in range(len(batch)):
        found = edits[i][edits[i, :, 0] >= 0]
        assert sorted(found[:, 1].tolist()) == [v for v in range(34) if v != batch.target[i]]
    assert bool((gain[:, 33:] == -torch.inf).all())


def test_two_edits_of_a_pair_and_too_many_do_not_count():
    _, batch = _batch("graph/karate-edge", {"edits": 2}, (0,))
    t = int(batch.target[0])
    a, b, c = [v for v in range(34) if v != t][:3]
    look = batch.look(torch.tensor([[[t, a], [t, a]]]))
    assert not look.real.any()
    assert not batch.look(torch.tensor([[[a, t], [-1, -1]]])).real.any()  # the other orientation is no cell
    assert not batch.look(torch.tensor([[[t, t], [-1, -1]]])).real.any()
    assert not batch.look(torch.tensor([[[b, c], [-1, -1]]])).real.any()
    assert batch.look(torch.tensor([[[t, b], [t, c]]])).valid.all()


def test_singletons_may_be_forbidden():
    task, _ = _batch("graph/sbm-edge", {})
    degree = task.samples("test", list(range(200))).graph.degree
    nodes = task.samples("test", list(range(200))).target
    lane = int((degree[nodes] <= 3).nonzero()[0])
    for singletons in (True, False):
        _, batch = _batch("graph/sbm-edge", {"singletons": singletons}, (lane,))
        target = batch.target[0]
        near = batch.graph.neighbours(batch.target)[1]
        p = batch.null()
        p[0, : len(near)] = torch.stack([target.expand(len(near)), near], 1)
        assert bool(batch.check(p)[0]) == singletons
        if not singletons:
            assert bool(batch.check(batch.project(p))[0])


@pytest.mark.parametrize(("name", "options"), EMBEDDED)
def test_lanes_can_be_swapped_and_views_are_finite(name, options):
    task, batch = _batch(name, options)
    other = task.samples("test", [7])
    mixed = batch.put(torch.tensor([1]), other)
    fresh = task.samples("test", [0, 7, 5])
    for key, value in fresh.view().items():
        assert torch.equal(mixed.view()[key], value) and torch.isfinite(value).all()
        assert value[0].numel() <= 16384
    assert "site_features" in fresh.view()
    form = fresh.look(fresh.random(3)).form
    torch.testing.assert_close(task.victim(mixed.inputs(form)), task.victim(fresh.inputs(form)))


def test_views_show_no_test_label():
    task, batch = _batch("graph/karate-edge", {})
    labelled = batch.view()["site_features"][0, :, 6:].any(1).nonzero()[:, 0]
    train = task.samples("train", list(range(task.sizes["train"]))).target
    assert labelled.tolist() == train.tolist()


@pytest.mark.parametrize(("name", "options"), EMBEDDED)
def test_reports_are_well_formed_and_named(name, options):
    task, batch = _batch(name, options)
    form = batch.look(batch.random(4)).form
    line = task.line(batch, 0, form[0])
    assert line.startswith(f"node {int(batch.target[0])} (") and ("+" in line or "-" in line)
    assert task.line(batch, 0, batch.null()[0]).endswith("no flips")
    html = task.show(batch, 0, form[0], torch.tensor(0), torch.tensor(1))
    assert "aria-label" in html and "<script" not in html
    ElementTree.fromstring(html.replace("&rarr;", "").replace("&#9473;", "").replace("&#9477;", ""))
    assert html == task.show(batch, 0, form[0], torch.tensor(0), torch.tensor(1))


def test_shipped_victims_are_good_and_the_surrogates_differ():
    for name, floor in (("karate", 0.85), ("sbm", 0.8)):
        gcn, sgc = (advgym.core.task.load_victim(f"{name}-{kind}") for kind in ("gcn", "sgc"))
        task = advgym.make_task(f"graph/{name}-edge")
        batch = task.samples("test", list(range(task.sizes["test"])))
        for victim in (gcn, sgc):
            right = (victim(batch.inputs(batch.null())).argmax(1) == batch.labels).float().mean()
            assert float(right) == pytest.approx(victim.card["clean_accuracy"], abs=1e-6) and right >= floor
        assert type(gcn.model) is not type(sgc.model)


def test_an_episode_and_its_variation_run():
    env = advgym.make("graph/sbm-edge", lanes=8)
    env.reset(seed=0)
    for i in range(3):
        obs, *_ = env.step(env.threat.random(i))
    assert bool(obs["valid"].all())
    task, batch = _batch("graph/sbm-edge", {})
    varied = task.randomise(batch.inputs(batch.random(0)), 0.1, batch.ids)
    assert task.victim(varied).shape == (3, 3)


def test_wrong_options_say_so():
    with pytest.raises(AdvgymError, match="edits is a whole number"):
        advgym.make_task("graph/karate-edge", edits=0)
    with pytest.raises(AdvgymError, match="unknown dataset 'koora'"):
        advgym.make_task("graph/cora-edge", dataset="koora")
    with pytest.raises(AdvgymError, match="influence is true or false"):
        advgym.make_task("graph/karate-edge", influence="yes")


def test_missing_files_say_what_works_without(monkeypatch):
    monkeypatch.delenv("ADVGYM_DATA", raising=False)
    with pytest.raises(DataError, match=r"set ADVGYM_DATA.*'karate' and 'sbm' need no files"):
        advgym.make_task("graph/cora-edge")


@pytest.mark.realdata
def test_cora(data_dir):
    task = advgym.make_task("graph/cora-edge")
    assert task.sizes == {"train": 140, "val": 500, "test": 1000}
    assert task.context["x"] is None and task.context["edge_index"].shape == (2, 10556)
    batch = task.samples("test", list(range(1000)))
    scores = task.victim(batch.inputs(batch.null()))
    assert float((scores.argmax(1) == batch.labels).float().mean()) >= 0.8
    form = batch.look(batch.random(0)).form
    graph, model = batch.graph, task.victim.model
    ours = task.victim(batch.inputs(form))
    for i in range(0, 1000, 100):
        one = batch.inputs(form[i : i + 1], torch.tensor([i]))
        from advgym.envs.graph.victims.stacked import stack

        full = model.full(graph.inputs_x(), stack(one)[0])[batch.target[i]]
        torch.testing.assert_close(ours[i], full, rtol=0, atol=1e-5)


@pytest.mark.realdata
def test_cora_features(data_dir):
    task = advgym.make_task("graph/cora-feature")
    batch = task.samples("test", [0, 1])
    from advgym.envs.graph.victims.stacked import stack_features

    rows = batch.inputs(batch.random(0))
    model, graph = task.victim.model, batch.graph
    x = stack_features(rows).view(2, graph.size, -1)
    torch.testing.assert_close(x.sum(2), torch.ones(2, graph.size))  # renormalised after the flips
    for i in range(2):
        full = model.full(x[i], graph.edge_index())[batch.target[i]]
        torch.testing.assert_close(task.victim(rows)[i], full, rtol=0, atol=1e-5)
