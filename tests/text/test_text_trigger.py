"""Universal triggers: bundles of one class, texts behind a common front, gradients of empty places."""

import pytest
import torch

import advgym
from advgym import AdvgymError, attack, make_task
from advgym.envs.text.tasks.triggers import TriggerBatch

SMALL = {"texts": 4, "choices": 60}


@pytest.fixture(scope="module")
def task():
    return make_task("text/synth-trigger", **SMALL)


def test_bundles_hold_texts_of_one_class_and_no_text_twice(task):
    batch = task.samples("test", list(range(20)))
    assert isinstance(batch, TriggerBatch) and batch.members == 4 and batch.price == 4
    assert bool((batch.labels == batch.labels[:, :1]).all())
    assert set(batch.labels[:, 0].tolist()) == {0, 1}
    assert len(torch.unique(batch.texts.flatten(0, 1), dim=0)) > 70  # a few generated reviews say the same


def test_the_trigger_stands_before_every_member(task):
    batch = task.samples("test", [3])
    clean = batch.inputs(batch.null()).strings()
    form = torch.tensor([[[0, 5], [2, 7], [-1, -1]]])
    words = [batch.payload(0, 0, 5), batch.payload(0, 2, 7)]
    assert batch.inputs(form).strings() == [" ".join([*words, text]) for text in clean]


def test_relaxed_weights_of_one_are_the_trigger(task):
    batch, victim = task.samples("test", [0, 1]), task.victim
    form = batch.random(4)
    hard = victim(batch.inputs(form))
    soft = victim(batch.relaxed(form, (form[..., 0] >= 0).float()))
    torch.testing.assert_close(soft, hard, atol=1e-5, rtol=1e-5)


def test_the_gain_of_a_word_is_its_first_order_effect():
    """Against the gradient of the embedding of the filler, by hand."""
    task = make_task("text/synth-trigger", **SMALL)
    batch, module = task.samples("test", [0]), task.victim.module
    x, (weight,) = batch.leaves(batch.null())
    loss = task.victim(x)[:, 1].sum()
    (gain,) = torch.autograd.grad(loss, weight)
    assert gain[0, :, :60].abs().sum() > 0
    step, site, choice = 1e-2, 1, 11
    moved = weight.detach().clone()
    moved[0, site, choice] = step
    x.weight = moved.unsqueeze(1).expand(-1, 4, -1, -1).flatten(0, 1)
    x.weight = torch.cat([x.weight, x.weight.new_zeros(4, x.ids.shape[1] - 3, x.weight.shape[2])], 1)
    after = task.victim(x)[:, 1].sum()
    assert float((after - loss).detach()) / step == pytest.approx(float(gain[0, site, choice]), rel=0.15, abs=1e-3)
    assert module is not None


@pytest.mark.parametrize("agent", ["first-order", "greedy"])
def test_agents_find_triggers_and_the_file_is_true(agent):
    found = attack("text/synth-trigger", agent, episodes=4, lanes=4, queries=1600, **SMALL)
    assert not [f for f in found.flags if "crashed" in f] and advgym.verify(found) == []
    start = attack("text/synth-trigger", "random-search", episodes=4, lanes=4, queries=4, **SMALL)
    pairs = zip(found.samples, start.samples, strict=True)
    assert sum(a.objective > b.objective for a, b in pairs) >= 3, "better than one draw"
    assert all(s.queries % 4 == 0 for s in found.samples)


def test_some_trigger_turns_a_class():
    found = attack("text/synth-trigger", "greedy", episodes=2, lanes=2, texts=4)
    assert found.success_rate > 0 and found.members_rate > 0
    won = next(s for s in found.samples if s.success)
    assert sum(a != b for a, b in zip(won.before, won.after, strict=True)) >= 1


@pytest.mark.parametrize("knowledge", ["decision", "transfer"])
def test_less_knowledge_is_enough_to_play(knowledge):
    found = attack("text/synth-trigger", "random-search" if knowledge == "transfer" else "decision-search", episodes=2,
                   lanes=2, queries=160, knowledge=knowledge, **SMALL)  # fmt: skip
    assert not [f for f in found.flags if "crashed" in f] and found.queries_mean > 0


def test_bundles_larger_than_a_class_are_refused():
    with pytest.raises(AdvgymError, match="ask for fewer"):
        make_task("text/synth-trigger", texts=100_000)
