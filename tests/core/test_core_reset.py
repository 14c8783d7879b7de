"""Reset: dealing, options, evaluators' fixed samples, autoreset."""

import numpy as np
import pytest
import torch
import toy
from gymnasium.vector import AutoresetMode
from test_core_contract import opened

from advgym import AdvgymError, Malformed, Victim, VictimError, make
from advgym.judge.evaluator import evaluator


def right():
    return [i for i in range(toy.SAMPLES) if i % 10]


def test_deals_only_what_the_victim_has_right():
    env = make(toy.task(), 7)
    seen = set()
    for _ in range(10):
        env.reset()
        seen |= set(evaluator(env).batch.ids.tolist())
        assert env.live.all()
    assert seen == set(right())


def test_a_seed_fixes_the_deal_and_none_goes_on():
    env = make(toy.task(), 5)
    ids = []
    for seed in (0, None, 0, 1):
        env.reset(seed=seed)
        ids.append(evaluator(env).batch.ids.tolist())
    assert ids[0] == ids[2] and ids[0] != ids[1] and ids[0] != ids[3]


@pytest.mark.parametrize("seed", [3, np.int64(3), [3, 4], np.array([3, 4]), (3,)])
def test_seeds_of_every_sort(seed):
    env, same = make(toy.task(), 2), make(toy.task(), 2)
    env.reset(seed=seed)
    same.reset(seed=3)
    assert torch.equal(evaluator(env).batch.ids, evaluator(same).batch.ids)


def test_reset_gives_the_clean_answer_at_no_cost():
    env, obs, info = opened(lanes=3)
    x = toy.samples()[evaluator(env).batch.ids]
    assert torch.allclose(obs["scores"], toy.linear()(x), atol=1e-6)
    assert torch.equal(obs["output"], obs["scores"].argmax(1)) and (obs["objective"] < 0).all()
    assert not obs["evaluated"].any() and obs["valid"].all() and not obs["success"].any()
    assert (obs["queries_left"] == 20).all() and info == {}


def test_named_samples_in_order_and_wrong_ones_arrive_finished():
    env = make(toy.task(), 3)
    obs, _ = env.reset(options={"samples": [20, 3, 10]})
    assert (
        evaluator(env).batch.ids.tolist() == [20, 3, 10] and env.live.tolist() == [False, True, False] and not env.done
    )
    obs, reward, terminated, _, info = env.step(env.threat.random(0))
    assert terminated[0] and terminated[2] and reward[0] == 0 and obs["queries_left"].tolist() == [20, 19, 20]
    assert "_final_info" not in info or info["_final_info"].tolist()[::2] == [False, False]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"samples": [1, 2]}, "3 lanes"),
        ({"samples": [1, 2, 40]}, "no sample 40"),
        ({"samples": [1, 2, -1]}, "no sample -1"),
        ({"sample": [1, 2, 3]}, "did you mean 'samples'"),
        ({"targets": [0, 0, 0]}, "takes no targets"),
    ],
)
def test_wrong_options_say_so(options, word):
    with pytest.raises(AdvgymError, match=word):
        make(toy.task(), 3).reset(options=options)


def test_targets():
    env = make(toy.task(goal="targeted"), 3)
    env.reset(options={"samples": [1, 2, 3]})
    ref = evaluator(env).episodes.ref
    drawn = evaluator(env).episodes.target
    assert (drawn != ref).all() and ((drawn >= 0) & (drawn < toy.CLASSES)).all()
    named = (ref + 1) % 3
    obs, _ = env.reset(options={"samples": [1, 2, 3], "targets": named.tolist()})
    scores = obs["scores"]
    own = scores.gather(1, named.unsqueeze(1)).squeeze(1)
    other = scores.scatter(1, named.unsqueeze(1), -torch.inf).amax(1)
    assert torch.allclose(obs["objective"], own - other, atol=1e-6)
    obs, _ = env.reset(options={"samples": [1, 2, 3], "targets": ref.tolist()})
    assert env.done, "there is nothing to attack where the clean answer is the target"
    for bad in ([0, 0], [0, 0, 3], [0, 0, -1]):
        with pytest.raises(AdvgymError):
            env.reset(options={"samples": [1, 2, 3], "targets": bad})


def test_targets_are_keyed_by_seed_and_sample():
    a, b = (make(toy.task(goal="targeted"), 3) for _ in range(2))
    a.reset(seed=4, options={"samples": [1, 2, 3]})
    b.reset(seed=4, options={"samples": [3, 1, 2]})
    assert torch.equal(evaluator(a).episodes.target[[2, 0, 1]], evaluator(b).episodes.target)


def test_reset_mask_restarts_only_these():
    env, _, _ = opened(lanes=3, queries=5)
    first = env.step(env.threat.random(0))[0]
    ids = evaluator(env).batch.ids.clone()
    mask = np.array([False, True, False])
    obs, _ = env.reset(options={"reset_mask": mask})
    assert obs["queries_left"].tolist()[1] == 5
    assert torch.equal(evaluator(env).batch.ids[[0, 2]], ids[[0, 2]])
    for lane in (0, 2):
        assert obs["queries_left"][lane] == first["queries_left"][lane]
        assert torch.equal(obs["perturbation"][lane], first["perturbation"][lane])
    assert torch.equal(obs["perturbation"][1], env.threat.null()[1])
    obs, _ = env.reset(options={"reset_mask": mask, "samples": [7]})
    assert evaluator(env).batch.ids[1] == 7
    for _t in range(5):
        env.step(torch.zeros(3, toy.SIZE))
    assert env.done


def test_a_restarted_lane_gets_its_full_number_of_steps():
    env, _, _ = opened(lanes=2, queries=4)
    null = env.threat.null()
    for _ in range(3):
        env.step(null)
    env.reset(options={"reset_mask": torch.tensor([False, True])})
    ends = [env.step(env.threat.null())[2].tolist() for _ in range(4)]
    assert ends == [[True, False], [True, False], [True, False], [True, True]]


@pytest.mark.parametrize("mask", [[True, False], [False] * 3, [1, 0, 0]])
def test_a_wrong_reset_mask_raises(mask):
    env, _, _ = opened(lanes=3)
    with pytest.raises(Malformed):
        env.reset(options={"reset_mask": mask})


def test_the_first_reset_takes_no_mask():
    with pytest.raises(AdvgymError, match="first reset"):
        make(toy.task(), 2).reset(options={"reset_mask": [True, False]})


def test_a_victim_that_has_nothing_right_says_so():
    always = 1 - torch.eye(toy.CLASSES)[toy.linear()(toy.samples()).argmax(1)]  # never the label, whatever it is
    labels = toy.task().samples("test", list(range(toy.SAMPLES))).labels
    always[torch.arange(toy.SAMPLES), labels] = -1
    known = toy.samples()

    def contrary(x):
        return always[(x.unsqueeze(1) == known).all(2).int().argmax(1)]

    env = make(toy.task(victim=Victim(contrary, name="contrary")), 2)
    with pytest.raises(AdvgymError, match="nothing to attack"):
        env.reset()


# -- assigned ----------------------------------------------------------------------------------------------------
def test_assigned_samples_come_back_as_spent():
    env = make(toy.task(), assigned=[5, 10, 7])
    obs, _ = env.reset(seed=0)
    assert env.num_envs == 3 and evaluator(env).batch.ids.tolist() == [5, 10, 7] and not env.live[1]
    env.step(env.threat.random(0))
    held = evaluator(env).book.held.clone()
    for seed, options in ((1, None), (None, {"samples": [1, 2, 3]}), (2, {"reset_mask": [True] * 3})):
        obs, _ = env.reset(seed=seed, options=options)
        assert evaluator(env).batch.ids.tolist() == [5, 10, 7]
        assert obs["queries_left"].tolist() == [19, 20, 19]
        assert torch.equal(obs["perturbation"], held)


def test_options_change_nothing_on_the_first_reset_of_assigned_samples():
    a = make(toy.task(goal="targeted"), assigned=[1, 2, 3])
    b = make(toy.task(goal="targeted"), assigned=[1, 2, 3])
    a.reset(seed=0)
    easy = [(int(r) + 1) % 3 for r in evaluator(a).episodes.ref]
    hard = [(int(r) + 2) % 3 for r in evaluator(a).episodes.ref]
    chosen = easy if evaluator(a).episodes.target.tolist() != easy else hard
    b.reset(seed=0, options={"samples": [4, 5, 6], "targets": chosen})
    assert torch.equal(evaluator(a).episodes.target, evaluator(b).episodes.target) and torch.equal(
        evaluator(a).batch.ids, evaluator(b).batch.ids
    )


# -- autoreset ---------------------------------------------------------------------------------------------------
def test_autoreset_is_attribute_and_metadata():
    for name, mode in (("disabled", AutoresetMode.DISABLED), ("same-step", AutoresetMode.SAME_STEP)):
        env = make(toy.task(), 2, autoreset=name)
        assert env.autoreset_mode is mode and env.metadata["autoreset_mode"] is mode
    env.reset()
    view = env.view()
    assert view.autoreset_mode is AutoresetMode.DISABLED and view.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    with pytest.raises(AdvgymError, match="did you mean 'same-step'"):
        make(toy.task(), autoreset="same_step")


@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("proposals", [None, 3])
def test_same_step_autoreset(kind, proposals):
    env, _, _ = opened(kind, lanes=4, proposals=proposals, autoreset="same-step", queries=3)
    plain, _, _ = opened(kind, lanes=4, proposals=proposals, queries=3)
    assert torch.equal(evaluator(env).batch.ids, evaluator(plain).batch.ids)
    p = env.threat.random(0, proposals)
    obs, reward, terminated, truncated, info = env.step(p)
    want = plain.step(p)
    assert torch.equal(reward, want[1]) and torch.equal(terminated, want[2])
    for t in range(1, 8):
        if terminated.any():
            over = terminated
            final = {k: v[over] for k, v in info["final_obs"].items()}
            assert (info["_final_obs"] == over.numpy()).all() and (info["_final_info"] == over.numpy()).all()
            assert (obs["queries_left"][over] == 3).all() and not obs["evaluated"][over].any()
            spent = 3 - info["final_info"]["queries"][over]
            assert torch.equal(final["queries_left"], spent)
            assert torch.equal(obs["perturbation"][over], env.threat.null()[over])
        assert env.live.all()
        p = env.threat.random(t, proposals)
        obs, reward, terminated, truncated, info = env.step(p)
        x = env.threat.apply(p[:, 0] if proposals else p)
        assert len(x) == 4
    assert not truncated.any()


def test_a_lane_that_ends_outside_step_is_dealt_anew():
    env, _, _ = opened("edits", lanes=2, queries=1, autoreset="same-step")
    env.rank()  # spends the only query
    _, _, terminated, _, info = env.step(env.threat.random(0))
    assert terminated.all() and env.live.all() and "final_info" in info


def test_a_lane_that_ends_outside_step_reports_once():
    env, _, _ = opened("edits", lanes=2, queries=1)
    env.rank()
    infos = [env.step(env.threat.random(0))[4] for _ in range(2)]
    assert "final_info" in infos[0] and "final_info" not in infos[1]


def test_victim_errors_name_the_victim_and_the_shapes():
    with pytest.raises(VictimError, match=r"'broad'.*\(4,\).*\(3,\)"):
        opened(victim=Victim(lambda x: torch.zeros(len(x), 4), name="broad"))
    with pytest.raises(VictimError, match=r"'narrow'.*\(1, 3\)"):
        opened(victim=Victim(lambda x: torch.zeros(1, 3), name="narrow"))
    with pytest.raises(VictimError, match=r"'nan'.*NaN"):
        opened(victim=Victim(lambda x: torch.full((len(x), 3), torch.nan), name="nan"))
    with pytest.raises(VictimError, match="words"):
        opened(victim=Victim(lambda x: ["a"] * len(x), name="words"))
