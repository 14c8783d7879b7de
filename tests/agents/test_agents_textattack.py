"""TextAttack's attacks under our meter: the same verdicts and queries as ours, sentence by sentence."""

import random

import numpy as np
import pytest
import torch

import advgym
from advgym import AdvgymError, attack
from advgym.agents.shared.libraries import textattack_parts
from advgym.agents.shared.libraries.lockstep import Lane, play
from advgym.agents.shared.libraries.sentences import Sentences
from advgym.judge.evaluator import evaluator

TASK = "text/synth-wordswap"


# -- many blocking searches, one forward -------------------------------------------------------------------------
def walker(log, name, length):
    def body(ask):
        for _ in range(length):
            log.append((name, random.random(), np.random.rand(), float(torch.rand(()))))
            ask([name])

    return body


def test_lanes_take_turns_and_draw_their_own_numbers():
    together, alone = [], []
    before = random.getstate()
    rounds = []

    def answer(asking):
        rounds.append(sorted(asking))
        return dict.fromkeys(asking, 0)

    play([Lane(walker(together, "a", 2), 1), Lane(walker(together, "b", 3), 2)], answer)
    play([Lane(walker(alone, "b", 3), 2)], answer)
    assert rounds == [[0, 1], [0, 1], [1], [0], [0], [0]]
    assert [row for row in together if row[0] == "b"] == alone
    assert random.getstate() == before, "the caller's random numbers are as they were"


def test_a_lane_without_an_answer_is_unwound_and_an_error_is_kept():
    seen = []

    def stubborn(ask):
        try:
            ask([1])
        except Exception:  # what foreign code writes
            seen.append("swallowed")
        finally:
            seen.append("unwound")

    def broken(ask):
        raise ValueError("of its own")

    lanes = [Lane(stubborn, 0), Lane(broken, 0)]
    play(lanes, lambda asking: {})
    assert seen == ["unwound"] and lanes[0].over and isinstance(lanes[1].error, ValueError)


# -- texts and edits ---------------------------------------------------------------------------------------------
def test_texts_become_the_edits_that_make_them():
    env = advgym.make(TASK, lanes=6, proposals=4)
    obs, _ = env.reset(seed=0)
    sentences = Sentences(env, obs["words"])
    p = env.threat.random(3)
    texts = evaluator(env).batch.inputs(p).strings()
    for lane, text in enumerate(texts):
        want = {tuple(e) for e in p[lane].tolist() if e[0] >= 0}
        assert set(sentences.edits(lane, text)) == want
    words = sentences.text(0).split()
    assert sentences.edits(0, " ".join(words[1:])) == [(sentences.site(0, 0), env.table.probes["deleted"])]
    assert sentences.edits(0, " ".join(["zebra", *words[1:]])) is None
    assert sentences.edits(0, "far too short") is None


# -- the bridge --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("search", ["wir-delete"])
def test_its_search_gives_our_verdicts_and_queries(search):
    """TextAttack's word importance ranking against ours: every sentence the same, queries too."""
    theirs = attack(TASK, f"textattack:{search}", episodes=30, lanes=30)
    ours = attack(TASK, "greedy", episodes=30, lanes=30)
    assert not theirs.flags and theirs.invalid_rate == 0 and 0 < theirs.success_rate < 1
    for a, b in zip(theirs.samples, ours.samples, strict=True):
        assert (a.id, a.success, a.queries_distinct) == (b.id, b.success, b.queries_distinct)
    alone = attack(TASK, f"textattack:{search}", episodes=30, lanes=7)
    assert [s.queries for s in alone.samples] == [s.queries for s in theirs.samples]


def test_random_searches_do_not_depend_on_their_neighbours():
    many = attack(TASK, "textattack:ga-word", episodes=6, lanes=6, queries=60)
    few = attack(TASK, "textattack:ga-word", episodes=6, lanes=2, queries=60)
    assert [(s.queries, s.success) for s in many.samples] == [(s.queries, s.success) for s in few.samples]
    assert max(s.queries for s in many.samples) <= 60


def test_a_recipe_of_its_own_is_charged_and_earns_nothing_outside_the_table():
    found = attack(TASK, "textattack:deepwordbug", episodes=4, lanes=4, settings={"space": "recipe"})
    assert found.queries_mean > 0 and found.invalid_rate == 0 and found.success_rate == 0


def test_goals_that_are_no_labels_are_played_by_the_objective():
    found = attack("text/synth-headline", "textattack:greedy-word-wir", episodes=4, lanes=4, queries=80)
    assert not [f for f in found.flags if "crashed" in f] and found.queries_mean > 0


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("textattack:pwsw", {}, "did you mean 'pwws'"),
        ("textattack:a2t", {}, "reads gradients"),
        ("textattack:pwws", {"space": "tables"}, "did you mean 'table'"),
        ("textattack:pwsw", {"space": "recipe"}, "did you mean 'pwws'"),
    ],
)
def test_wrong_names_say_what_is_right(name, settings, says):
    with pytest.raises(AdvgymError, match=says):
        attack(TASK, name, episodes=2, lanes=2, settings=settings)


def test_our_victim_is_a_model_of_theirs():
    textattack = textattack_parts.library()
    from advgym.envs.text.victims.textattack_model import model_wrapper

    model = model_wrapper("synth-bert")
    texts = ["the film is good", "the film is bad"]
    scores = model(texts)
    assert scores.shape == (2, 2) and not scores.requires_grad
    goal = textattack.goal_functions.UntargetedClassification(model)
    goal.init_attack_example(textattack.shared.AttackedText(texts[0]), int(scores[0].argmax()))
    assert goal.num_queries == 1
    grad = model.get_grad(texts[0])
    assert grad["gradient"].shape[0] == 4 and np.abs(grad["gradient"]).sum() > 0
