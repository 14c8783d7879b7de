"""Masks say what whole sets of flips must keep, exactly, where a table is small enough to ask."""

import pytest
import torch

from advgym import make_task
from advgym.clients.check import check_vector_env
from advgym.clients.views import edit_view
from advgym.core.env import AttackEnv
from advgym.core.moves import choice_moves, edit_mask, site_moves

CASES = [
    ("graph/karate-edge", {"per_node": 1}),
    ("graph/karate-edge", {"connected": True, "influence": True}),
    ("graph/karate-edge", {"singletons": False, "degree_test": 0.004}),
    ("graph/karate-global", {"per_node": 1, "singletons": False, "eps": 0.05}),
    ("graph/karate-rewire", {"per_node": 3}),
    ("graph/karate-inject", {"per_node": 1}),
    ("graph/sbm-feature", {"cooccurrence": True, "edits": 3}),
]
NAMES = [f"{task.split('/')[1]}-{'-'.join(options)}" for task, options in CASES]


def batch_of(task, options, lanes=2):
    return make_task(task, **options).samples("test", list(range(lanes)) if "global" not in task else [0] * lanes)


@pytest.mark.parametrize(("task", "options"), CASES, ids=NAMES)
def test_a_mask_is_what_trying_every_cell_says(task, options):
    batch = batch_of(task, options)
    closed = 0
    for seed in range(4):
        p = batch.random(seed) if seed else batch.null()
        mask = edit_mask(batch, p)
        plain = batch.narrow
        batch.narrow = 0
        open_ = edit_mask(batch, p)
        batch.narrow = plain
        lane, site, choice = open_.nonzero(as_tuple=True)
        fine = batch.check(batch.compose(p[lane], torch.stack([site, choice], 1), lane), lane)
        want = torch.zeros_like(open_).index_put((lane, site, choice), fine)
        assert len(lane) <= plain * len(p), "this case is too large to say anything"
        assert torch.equal(mask, want)
        closed += int((open_ & ~mask).sum())
        for s in range(0, batch.sites, 7):
            chosen = choice_moves(batch, p, torch.full((len(p),), s))
            assert torch.equal(chosen, mask[:, s])
        sites = site_moves(batch, p)
        exact = int(batch.site_mask().sum()) * batch.choices <= plain * len(p)
        assert torch.equal(sites, mask.any(2)) if exact else bool((sites | ~mask.any(2)).all())
    assert closed or "cooccurrence" in options, "the constraint closes nothing here: the case says nothing"


@pytest.mark.parametrize(("task", "options"), CASES, ids=NAMES)
def test_the_checker_passes_with_them(task, options):
    made = {}

    def factory(lanes=4, proposals=None, autoreset="disabled", output="torch", **threat):
        key = tuple(sorted(threat.items()))
        if key not in made:
            made[key] = make_task(task, **options, **threat)
        return AttackEnv(made[key], lanes, proposals, autoreset=autoreset, output=output)

    check_vector_env(factory)


def test_masked_moves_always_move():
    view = edit_view(AttackEnv(make_task("graph/karate-edge", per_node=1, queries=20), 6))
    view.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        mask = torch.as_tensor(view.action_masks())
        live, before = view.env.live, view.state
        action = torch.multinomial(mask.double() + 1e-12, 1, generator=generator).squeeze(1)
        view.step(action)
        tried = live & mask.any(1)
        assert bool(((view.state != before).flatten(1).any(1) | ~tried).all())


def test_large_tables_are_found_by_trying():
    batch = batch_of("graph/sbm-global", {"connected": True})
    assert batch.narrow * len(batch) < int(batch.mask().sum())
    assert torch.equal(edit_mask(batch, batch.null()), batch.mask())
