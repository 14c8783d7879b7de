"""Searches over edits against the same search by hand, and the slots and the memory they share."""

import itertools

import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym import AdvgymError, attack, make, make_task, registry
from advgym.agents.shared.importance import order_sites
from advgym.agents.shared.slots import Memory, Slots, ask
from advgym.judge.evaluator import evaluator

TASK, BUGS = "text/synth-wordswap", "text/synth-charswap"


def opened(lanes=8, proposals=16, task=None, **threat):
    env = make(task or toy.task("edits", limit=3, queries=400, gradients=50, **threat), lanes, proposals)
    obs, _ = env.reset(seed=0)
    return env, obs


def margins(env, sets):
    """Objective of python sets {(site, choice), ...}, one list per lane, by the victim itself."""
    layer, out = toy.linear(), []
    for lane, edits in enumerate(sets):
        p = env.threat.null()
        for e, edit in enumerate(sorted(edits)):
            p[lane, e] = torch.tensor(edit)
        scores = layer(env.threat.apply(p))[lane]
        ref = int(layer(env.threat.apply(env.threat.null()))[lane].argmax())
        out.append(float(torch.cat([scores[:ref], scores[ref + 1 :]]).max() - scores[ref]))
    return out


# -- searches by hand ---------------------------------------------------------------------------------------------
def by_hand(env, lane, width):
    """Beam search in plain Python on one lane, on success the first chunk of asks decides; the sets in order."""
    grid, limit = env.table.mask()[lane], int(env.table.limit[lane])
    cells = [(s, c) for s, c in itertools.product(range(toy.SIZE), range(toy.LEVELS)) if grid[s, c]]
    beam, best = [frozenset()], -1e9
    for _ in range(limit):
        grown = {b | {cell} for b in beam for cell in cells if cell[0] not in {s for s, _ in b}}
        values = {g: margins(env, [g if i == lane else () for i in range(env.num_envs)])[lane] for g in grown}
        beam = sorted(grown, key=lambda g: -values[g])[:width]
        best = max(best, values[beam[0]])
        if best > 1e-6:
            break
    return best


@pytest.mark.parametrize(("name", "extra"), [("greedy-search", {}), ("beam", {"width": 3})])
def test_a_beam_is_a_beam_by_hand(name, extra):
    env, _ = opened(4, 64, least=False)
    found = registry.agent(name).attack(env, seed=0, **extra)
    got = margins(env, [[tuple(e) for e in row.tolist() if e[0] >= 0] for row in found])
    for lane in range(4):
        assert (got[lane] > 1e-6) == (by_hand(env, lane, extra.get("width", 1)) > 1e-6)
    assert (evaluator(env).book.queries_distinct() == 400 - evaluator(env).book.queries_left).all(), (
        "no set is asked twice"
    )


def test_wir_is_greedy_where_two_classes_are_told_apart():
    """One implementation: by probability or by margin, two classes rank alike."""
    a = attack(TASK, "greedy", episodes=40, lanes=20)
    b = attack(TASK, "wir", episodes=40, lanes=20, settings={"importance": "delete"})
    assert [(s.success, s.queries, s.perturbation) for s in a.samples] == [
        (s.success, s.queries, s.perturbation) for s in b.samples
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("importance", "peer"), [("unk", "greedy-word-wir"), ("pwws", "wir-pwws")])
def test_wir_gives_textattacks_verdicts_and_queries(importance, peer):
    ours = attack(TASK, "wir", episodes=40, lanes=40, settings={"importance": importance})
    theirs = attack(TASK, f"textattack:{peer}", episodes=40, lanes=40)
    assert 0 < ours.success_rate < 1 and not theirs.flags
    same = [a.success == b.success for a, b in zip(ours.samples, theirs.samples, strict=True)]
    assert all(same)
    if importance == "unk":  # while it weighs the words TextAttack goes through them in the order of a Python set
        pairs = zip(ours.samples, theirs.samples, strict=True)
        assert sum(a.queries_distinct != b.queries_distinct for a, b in pairs) <= 1  # ties


@pytest.mark.parametrize("importance", ["unk", "delete", "gradient", "pwws", "random"])
def test_every_importance_orders_every_site_once(importance):
    env, _ = opened(6, task=make_task(TASK))
    order = order_sites(env, importance, 0)
    for lane, row in enumerate(order.tolist()):
        here = [s for s in row if s >= 0]
        assert sorted(here) == env.table.site_mask()[lane].nonzero().squeeze(1).tolist()


def test_importance_is_what_the_probes_say():
    env, _ = opened(6)
    order, layer = order_sites(env, "delete", 0), toy.linear()
    x = env.threat.apply(env.threat.null())
    ref = layer(x).argmax(1)
    for lane in range(6):
        loss = []
        for site in order[lane].tolist():
            y = x[lane].clone()
            y[site] = 0.5
            loss.append(float(-layer(y).log_softmax(0)[ref[lane]]))
        assert loss == sorted(loss, reverse=True)


def test_settings_that_no_search_knows():
    with pytest.raises(AdvgymError, match="'importance' of wir 'attention'"):
        attack(TASK, "wir", episodes=2, settings={"importance": "attention"})
    with pytest.raises(AdvgymError, match="white-box"):
        attack(TASK, "wir", episodes=2, settings={"importance": "gradient"})
    with pytest.raises(AdvgymError, match="scoring"):
        attack(BUGS, "deepwordbug", episodes=2, settings={"scoring": "middle"})


def test_a_table_without_the_probe_is_refused():
    env, _ = opened(6)
    with pytest.raises(AdvgymError, match="read as unknown, and the table has the probes deleted"):
        order_sites(env, "unk", 0)
    assert order_sites(env, "unk", 0, stand_in=True).shape == (6, toy.SIZE), (
        "greedy alone lets a random choice stand in"
    )


@pytest.mark.parametrize("scoring", ["temporal", "tail", "combined", "random"])
def test_deepwordbug_heads_pay_for_the_parts_they_read(scoring):
    found = attack(BUGS, "deepwordbug", episodes=12, lanes=12, settings={"scoring": scoring})
    assert not found.flags or not any("crashed" in f for f in found.flags)
    words = [s.queries for s in found.samples]
    assert min(words) >= (1 if scoring == "random" else 5)


def test_input_reduction_keeps_the_prediction():
    found = attack("text/synth-reduction", "input-reduction", episodes=20, lanes=20)
    assert found.success_rate > 0.5 and all(s.before == s.after for s in found.samples if s.success)
    once = attack("text/synth-reduction", "input-reduction", episodes=20, lanes=20, settings={"once": True})
    assert once.queries_mean < found.queries_mean


def test_hard_label_takes_back_what_it_need_not_change():
    task = toy.task("edits", knowledge="decision", limit=3, least=True, queries=120)
    fewer, plain = (attack(task, name, episodes=30, lanes=30) for name in ("hard-label", "random-search"))
    assert fewer.success_rate >= plain.success_rate and fewer.distance_median <= plain.distance_median
    env = make(task, 4)
    env.reset()
    assert "scores" not in env.step(env.threat.random(0))[0]


# -- what they share ----------------------------------------------------------------------------------------------
def test_slots_hold_the_whole_table_and_give_it_back():
    for task in (TASK, "graph/karate-edge"):
        env, _ = opened(5, 4, make_task(task, knowledge="score"))
        slots = Slots(env, env.draws(0))
        mask = env.table.mask()
        if env.table.key == "site":
            assert torch.equal(slots.some.sum(1), mask.flatten(1).sum(1))
        cell = slots.pick(slots.some.float().unsqueeze(1).expand(-1, 3, -1), env.draws(1).uniform(3))
        x = slots.trim(slots.put(slots.clean(3), cell), env.draws(2).uniform(3, slots.slots))
        p = slots.edits(x)
        assert env.threat.check(p).all() and ((p[..., 0] >= 0).sum(2) == 1).all()
        assert torch.equal(slots.position(x[:, 0], p[:, 0]), x[:, 0])
        assert (slots.position(x[:, 0], torch.full_like(p[:, 0], -1)) == -1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_asking_in_parts_is_asking_at_once(seed, proposals):
    env, _ = opened(4, proposals, least=True)
    other, _ = opened(4, 40, least=True)
    want = env.draws(seed).uniform(30) < 0.6
    sets = env.threat.random(seed, 30)

    def make_sets(index):
        return sets[torch.arange(4).unsqueeze(1), index]

    a, b = ask(env, want, make_sets), ask(other, want, make_sets)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)  # batches of other sizes round otherwise
    assert torch.equal(a.isfinite(), want & (sets[..., 0] >= 0).any(2) | a.isfinite())
    assert (400 - evaluator(env).book.queries_left == want.sum(1)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_memory_answers_what_it_knows_and_asks_the_rest(seed):
    env, _ = opened(4, 8, least=True)
    slots = Slots(env, env.draws(0))
    memory = Memory(slots)
    every = torch.arange(slots.slots).expand(4, -1)
    x = torch.stack([slots.cell_of(every, env.draws(seed + i % 3).uniform(slots.slots)) for i in range(6)], 1)
    x = slots.trim(x, env.draws(seed).uniform(1, slots.slots).expand(-1, 6, -1))  # three different sets, twice
    want = torch.ones(4, 6, dtype=torch.bool)
    for _ in range(2):
        value = memory.ask(env, memory.key(x), want, lambda at: slots.edits(x[torch.arange(4).unsqueeze(1), at]))
        assert torch.equal(value[:, :3], value[:, 3:]) and value.isfinite().all()
        assert (400 - evaluator(env).book.queries_left <= 3).all()
    alone = ask(env, want, lambda at: slots.edits(x[torch.arange(4).unsqueeze(1), at]))
    torch.testing.assert_close(alone, value, atol=1e-5, rtol=1e-5)
