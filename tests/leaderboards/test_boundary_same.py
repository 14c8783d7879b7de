"""An attack gives the same through the boundary as in process: every agent, and a task of each kind in each domain."""

import pytest
import torch
from boundary_pair import referee

from advgym import AdvgymError, make_task, registry
from advgym.core.env import AttackEnv
from advgym.core.offers import fits
from advgym.judge.evaluator import evaluator
from advgym.leaderboards.boundary import mirror

TASKS = [
    "image/digits-linf", "image/digits-l2", "image/digits-pixel", "image/digits-l1", "image/digits-l0",
    "image/digits-flow", "image/digits-colour", "image/digits-jpeg", "image/digits-perceptual", "image/digits-patch",
    "image/digits-universal", "text/synth-wordswap", "text/synth-headline",
    "text/synth-paraphrase", "text/synth-joint", "text/synth-insert", "text/synth-reduction", "text/synth-trigger",
    "graph/karate-edge", "graph/sbm-feature", "graph/mutag-edge", "speech/synth-keyword", "speech/synth-transcribe",
    "speech/synth-rooms", "speech/synth-universal", "speech/synth-prepend", "speech/synth-bands", "speech/synth-verify",
]  # fmt: skip
EMBEDDED = [t for t in TASKS if not t.startswith("graph/mutag")]
KIND = {
    t: "field"
    for t in TASKS
    if t.startswith(("image/", "speech/")) and t not in ("image/digits-pixel", "speech/synth-bands")
}


CHEAP = {"field": "image/digits-l2", "edits": "graph/karate-edge"}  # where every agent is tried
QUERIES = {"speech/synth-universal": 160, "speech/synth-prepend": 160}  # a proposal costs one for each member
TRYING = {"field": ("pgd", "square"), "edits": ("first-order", "random-search")}  # who tries every other task


def pairs():
    own = {name: entry for name, entry in registry.agents().items() if not entry.argument}  # a bridge plays words alone
    made = {kind: make_task(task) for kind, task in CHEAP.items()}
    found = [(CHEAP[kind], name) for name, entry in own.items() for kind, task in made.items() if fits(entry, task)]
    found += [(task, agent) for task in EMBEDDED for agent in TRYING[KIND.get(task, "edits")]]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(("task", "agent"), pairs())
def test_the_same_through_the_boundary(task, agent):
    entry = registry.agent(agent)
    made = make_task(task, knowledge=entry.knowledge, queries=QUERIES.get(task, 24))

    def env():
        found = AttackEnv(made, proposals=entry.proposals, assigned=range(4))
        found.reset(seed=5)
        return found

    here, there = env(), env()
    evaluator(here).hand_in(entry.attack(here, seed=5))
    said, channel, error = referee(there, entry.attack)
    assert error is None and said is not None
    for name in ("held", "queries_left", "gradients_left", "potential", "live", "reason", "first_success"):
        assert torch.equal(getattr(evaluator(here).book, name), getattr(evaluator(there).book, name)), name
    if task not in CHEAP.values():
        assert referee(env(), entry.attack)[1].transcript == channel.transcript


@pytest.mark.parametrize("task", EMBEDDED)
def test_a_mirrored_batch_does_the_same_and_holds_no_label(task):
    batch = make_task(task).samples("test", list(range(6)))
    batch.labels = torch.full_like(batch.labels, 3)
    undeclared = {name for name in batch.__dict__ if not name.startswith("_")} - set(batch.public())
    assert undeclared == {"labels"}, "declare what an attacker may see in `shown`, or begin its name with _"
    batch.secret = batch.labels
    twin = mirror.unpack(mirror.pack(batch))
    p, q = batch.random(3), twin.random(3)
    assert torch.equal(p, q)
    assert torch.equal(batch.look(p).digest, twin.look(q).digest)
    assert torch.equal(batch.project(p), twin.project(q))
    assert not {"labels", "secret"} & set(twin.__dict__)
    assert batch.view().keys() == twin.view().keys()


def test_shared_objects_cross_once():
    task = make_task("text/synth-wordswap")
    batch = task.samples("test", [0, 1])
    x = batch.inputs(batch.look(batch.null()).form)
    sent, kept = {}, {}
    first, second = mirror.pack(x, sent), mirror.pack(x, sent)
    assert sum(a.nbytes for a in second) < sum(a.nbytes for a in first) / 3
    one, two = mirror.unpack(first, kept), mirror.unpack(second, kept)
    assert one.vocabulary is two.vocabulary and one.strings() == two.strings() == x.strings()


def test_an_object_without_a_public_form_is_named():
    class Secret:
        pass

    with pytest.raises(TypeError, match="Secret has no public form"):
        mirror.pack({"x": Secret()})


def test_an_open_table_grows_on_both_sides():
    made = make_task("text/synth-wordswap", slots=4)

    def append(env, *, seed):
        env.reset()
        site = int(env.table.site_mask()[0].nonzero()[0])
        word = env.table.payload[:, site, 0].clamp_min(0).unsqueeze(1)
        choice = env.append(word)
        assert bool((choice >= 0).all())
        p = env.threat.null()
        p[:, 0, 0], p[:, 0, 1] = site, choice
        env.step(env.threat.project(p))

    pair = []
    for through in (False, True):
        env = AttackEnv(made, assigned=range(3))
        env.reset(seed=1)
        if through:
            assert referee(env, append)[2] is None
        else:
            append(env, seed=1)
        pair.append(evaluator(env).book)
    assert torch.equal(pair[0].held, pair[1].held) and torch.equal(pair[0].queries_left, pair[1].queries_left)


def test_raw_inputs_and_their_gradient_cross():
    made = make_task("image/digits-linf", knowledge="white-box")
    found = []

    def ask(env, *, seed):
        x = env.threat.apply(env.threat.null()).requires_grad_()
        scores = env.victim(x, torch.arange(3))
        (g,) = torch.autograd.grad(scores[:, 0].sum(), x)
        found.append((scores.detach(), g))

    for through in (False, True):
        env = AttackEnv(made, assigned=range(3))
        env.reset(seed=1)
        if through:
            assert referee(env, ask)[2] is None
        else:
            ask(env, seed=1)
        assert (
            evaluator(env).book.queries_left.tolist() == [499] * 3
            and evaluator(env).book.gradients_left.tolist() == [499] * 3
        )
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6) and torch.allclose(found[0][1], found[1][1], atol=1e-6)


def test_a_second_reset_refunds_nothing_and_views_share_the_meters():
    made = make_task("image/digits-linf", knowledge="score", queries=10)

    def twice(env, *, seed):
        env.reset(seed=seed)
        env.step(env.threat.random(1))
        obs, _ = env.reset(seed=99, options={"samples": [7, 8]})
        assert obs["queries_left"].tolist() == [9, 9, 9]
        view = env.view([0, 2], proposals=2)
        view.step(view.threat.random(3, 2))
        obs, _ = env.reset()
        assert obs["queries_left"].tolist() == [7, 9, 7]

    env = AttackEnv(made, assigned=range(3))
    env.reset(seed=1)
    _, _, error = referee(env, twice)
    assert error is None, error


def test_a_remote_environment_has_no_evaluators_side():
    said = []

    def attack(env, *, seed):
        with pytest.raises(AdvgymError, match="RemoteEnv has no evaluator's side"):
            evaluator(env)
        said.append(seed)

    env = AttackEnv(make_task("image/digits-linf"), assigned=range(2))
    env.reset(seed=0)
    assert referee(env, attack, seed=4)[2] is None and said == [4]
