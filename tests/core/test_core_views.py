"""The edit views, the single lane and Stable-Baselines3's: spaces, exact masks, undo and replace."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
import toy
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from advgym import AdvgymError, Malformed, make
from advgym.clients.views import EditView, TwoStepView, edit_view, make_vector
from advgym.core.spaces import LazyBox
from advgym.judge.evaluator import evaluator

TASKS = ["image/digits-pixel", "image/digits-linf"]


def view_of(kind="edits", lanes=3, two=False, output="numpy", autoreset="disabled", **threat):
    env = make(toy.task(kind, **threat), lanes, output=output, autoreset=autoreset)
    return (TwoStepView if two else edit_view)(env)


def cell(site, choice):
    return site * (toy.LEVELS + 1) + choice


def sets(view):
    return [{tuple(e) for e in p.tolist() if e[0] >= 0} for p in view.state]


def level_of(view):
    return (toy.samples()[evaluator(view.env).batch.ids] * (toy.LEVELS - 1)).round().long()


# -- transitions -----------------------------------------------------------------------------------------------------
def test_an_edit_adds_replaces_and_undoes():
    view = view_of(lanes=2, eps=0.1, knowledge="score", least=True)
    view.reset(seed=0)
    own = level_of(view)
    a = torch.tensor([(int(own[i, 0]) + 1) % 5 for i in range(2)])
    b = torch.tensor([(int(own[i, 0]) + 2) % 5 for i in range(2)])
    first = view._last["objective"].clone()
    obs, *_ = view.step(cell(0, a).numpy())
    assert sets(view) == [{(0, int(a[i]))} for i in range(2)] and obs["distance"].tolist() == [[1], [1]]
    obs, *_ = view.step(cell(0, b).numpy())
    assert sets(view) == [{(0, int(b[i]))} for i in range(2)] and obs["distance"].tolist() == [[1], [1]]
    obs, *_ = view.step(cell(0, b).numpy())
    assert sets(view) == [set(), set()]
    assert np.allclose(obs["objective"][:, 0], first) and obs["queries_left"].tolist() == [[18], [18]], "clean is free"


def test_the_observation_is_of_the_current_state():
    view = view_of(lanes=4, knowledge="score", least=True)
    obs, info = view.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(12):
        scores = toy.linear()(view.env.threat.apply(view.state))
        assert np.allclose(obs["scores"], scores.numpy(), atol=1e-5)
        assert np.array_equal(obs["perturbation"], view.state.numpy())
        assert np.array_equal(obs["distance"][:, 0], [len(s) for s in sets(view)])
        obs, _, _, _, info = view.step(np.array([rng.choice(np.flatnonzero(m)) for m in info["action_mask"]]))


def test_the_limit_bounds_the_net_set():
    view = view_of(lanes=1, limit=2, least=True, queries=50)
    view.reset(seed=0)
    own = level_of(view)[0]
    other = [(int(own[s]) + 1) % 5 for s in range(toy.SIZE)]
    for s in (0, 1):
        view.step(np.array([cell(s, other[s])]))
    full = sets(view)
    for s in (2, 3):
        before = view._last["queries_left"].item()
        obs, reward, *_ = view.step(np.array([cell(s, other[s])]))
        assert sets(view) == full and reward[0] == 0 and obs["queries_left"].item() == before - 1
    view.step(np.array([cell(0, other[0])]))  # room again
    view.step(np.array([cell(2, other[2])]))
    assert sets(view) == [{(1, other[1]), (2, other[2])}]


def test_illegal_edits_are_charged_and_move_nothing():
    view = view_of(lanes=1, limit=2)
    obs, _ = view.reset(seed=0)
    own = int(level_of(view)[0, 0])
    for action in (cell(0, own), cell(0, toy.LEVELS)):  # the level it has; the probe
        assert not view.action_masks()[0, action]
        before = obs["queries_left"].item()
        obs, reward, *_ = view.step(np.array([action]))
        assert sets(view) == [set()] and reward[0] == 0 and obs["queries_left"].item() == before - 1


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_masks_are_exact(output):
    """Each open action leads to another valid set; each closed one moves nothing."""
    view = view_of(lanes=2, limit=2, least=True, queries=500, output=output)
    view.reset(seed=1)
    rng = np.random.default_rng(1)
    for _ in range(3):
        mask = view.action_masks()
        for action in range(view.single_action_space.n):
            twin = copy.copy(view)
            twin.env = copy.copy(view.env)
            edit = torch.tensor([action // (toy.LEVELS + 1), action % (toy.LEVELS + 1)]).expand(2, -1)
            move, able = twin._with(edit)
            lands = view.env.threat.check(move) & able & (move != view.state).flatten(1).any(1)
            assert mask[:, action].tolist() == lands.tolist(), action
        view.step(np.array([rng.choice(np.flatnonzero(m)) for m in mask]))


def test_closed_actions_really_do_nothing():
    view = view_of(lanes=1, limit=1, least=True, queries=500)
    obs, info = view.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(40):
        mask = info["action_mask"][0]
        assert np.array_equal(mask, obs["action_mask"][0]) and np.array_equal(mask, view.action_masks()[0])
        action = rng.integers(len(mask))
        before = sets(view)
        obs, reward, _, _, info = view.step(np.array([action]))
        assert (sets(view) != before) == bool(mask[action])
        if not mask[action]:
            assert reward[0] == 0


def test_field_increments_compose_and_project():
    view = view_of("field", lanes=3, least=True, lattice=None, eps=0.25)
    view.reset(seed=0)
    reach = view.env.threat.reach.view(-1, 1)
    want = torch.zeros(3, toy.SIZE)
    rng = np.random.default_rng(0)
    for _ in range(5):
        action = rng.uniform(-1, 1, (3, toy.SIZE)).astype(np.float32)
        want = view.env.threat.project(want + torch.from_numpy(action) * reach)
        view.step(action)
        assert torch.allclose(view.state, want, atol=1e-6) and view.env.threat.check(view.state).all()
    view.step(np.full((3, toy.SIZE), 50.0, np.float32))  # clipped to the space
    assert view.env.threat.check(view.state).all()


def test_malformed_actions_raise():
    view = view_of(lanes=2)
    view.reset()
    for bad in (np.array([0]), np.array([0.0, 1.0]), np.array([0, 36]), np.array([-1, 0]), np.array([[0], [1]])):
        with pytest.raises(Malformed):
            view.step(bad)
    field = view_of("field", lanes=2)
    field.reset()
    for bad in (np.zeros((2, 5), np.float32), np.zeros((2, 6), np.int64)):
        with pytest.raises(Malformed):
            field.step(bad)
    with pytest.raises(AdvgymError):
        field.action_masks()
    with pytest.raises(AdvgymError, match="proposals"):
        edit_view(make(toy.task("edits"), 2, 3))


def test_nan_actions_move_nothing_and_do_no_harm():
    view = view_of("field", lanes=2)
    view.reset()
    view.step(np.full((2, toy.SIZE), np.nan, np.float32))
    assert view.state.isfinite().all()


def test_only_queries_end_the_episode():
    view = view_of(lanes=2, queries=4, least=True)
    view.reset(seed=0)
    ends = [view.step(np.full(2, cell(0, toy.LEVELS)))[2].all() for _ in range(4)]
    assert ends == [False, False, False, True]


# -- spaces ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["edits", "field"])
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("knowledge", ["white-box", "decision"])
@pytest.mark.parametrize("autoreset", ["same-step", "disabled"])
def test_spaces_contain_what_is_returned(kind, two, knowledge, autoreset):
    if kind == "field" and two:
        return
    view = view_of(kind, two=two, knowledge=knowledge, autoreset=autoreset, queries=6)
    obs, info = view.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(15):
        assert obs in view.observation_space
        for lane in range(3):
            assert {k: v[lane] for k, v in obs.items()} in view.single_observation_space
        if kind == "edits":
            action = np.array([rng.choice(np.flatnonzero(m)) if m.any() else 0 for m in view.action_masks()])
        else:
            action = rng.uniform(-1, 1, (3, toy.SIZE)).astype(np.float32)
        assert action in view.action_space and action[0] in view.single_action_space
        obs, reward, terminated, truncated, info = view.step(action)
        assert reward.shape == terminated.shape == truncated.shape == (3,)
        if "final_obs" in info:
            assert info["final_obs"] in view.observation_space


def test_no_space_starts_elsewhere():
    view = view_of()
    assert view.single_action_space.start == 0
    assert view.action_space.start.sum() == 0 if hasattr(view.action_space, "start") else True


def test_lazy_boxes_are_boxes():
    lazy, plain = LazyBox(-1, 1, (2, 3)), gym.spaces.Box(-1, 1, (2, 3))
    assert lazy == plain and plain == lazy and lazy.sample() in plain and plain.sample() in lazy
    again = copy.deepcopy(lazy)
    assert again == lazy and again.stretched((4,)).shape == (4,)
    import pickle

    assert pickle.loads(pickle.dumps(lazy)) == lazy
    assert LazyBox(-1, 9, (2,), np.int64).sample().dtype == np.int64
    assert gym.spaces.flatdim(lazy) == 6
    big = LazyBox(0, 1, (256, 3, 224, 224))
    assert big.low.strides == (0, 0, 0, 0)
    lazy.seed(3), plain.seed(3)
    assert np.array_equal(lazy.sample(), plain.sample())


# -- two steps -------------------------------------------------------------------------------------------------------
def test_two_steps_make_one_edit():
    view, flat = view_of(two=True, lanes=2, least=True), view_of(lanes=2, least=True)
    obs, _ = view.reset(seed=0)
    flat.reset(seed=0)
    assert obs["phase"].tolist() == [[0], [0]] and obs["site"].tolist() == [[-1], [-1]]
    rng = np.random.default_rng(0)
    for _ in range(6):
        left = view._last["queries_left"].clone()
        site = np.array([rng.choice(np.flatnonzero(m)) for m in view.action_masks()])
        obs, reward, *_ = view.step(site)
        assert (reward == 0).all() and obs["phase"].tolist() == [[1], [1]]
        assert np.array_equal(obs["site"][:, 0], site) and torch.equal(view._last["queries_left"], left)
        choice = np.array([rng.choice(np.flatnonzero(m)) for m in view.action_masks()])
        obs, reward, *_ = view.step(choice)
        want = flat.step(cell(site, choice))
        assert torch.equal(view.state, flat.state) and np.array_equal(reward, want[1])
        for name in ("scores", "objective", "queries_left", "distance"):
            assert np.array_equal(obs[name], want[0][name]), name


def test_two_step_masks_are_exact():
    view = view_of(two=True, lanes=1, limit=1, least=True, queries=500)
    view.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        sites = view.action_masks()[0]
        site = rng.integers(len(sites))
        before = sets(view)
        view.step(np.array([site]))
        choices = view.action_masks()[0]
        if not sites[site]:
            assert not choices.any()
        else:
            assert choices.any()
        choice = rng.integers(len(choices))
        view.step(np.array([choice]))
        assert (sets(view) != before) == bool(choices[choice])


def test_large_tables_get_two_steps():
    class Wide(toy.Cells):
        sites, choices = 300, 300

    env = make(toy.task("edits"), 1)
    assert type(edit_view(env)) is EditView
    env.__dict__["_prototype"] = object.__new__(Wide)
    env._prototype.__dict__.update(toy.task("edits").samples("test", [1]).__dict__)
    assert type(edit_view(env)) is TwoStepView


def test_a_partial_reset_comes_between_edits():
    view = view_of(two=True, lanes=2)
    view.reset(seed=0)
    view.step(np.array([0, 0]))
    with pytest.raises(AdvgymError, match="between edits"):
        view.reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize("two", [False, True])
def test_partial_resets(two):
    view = view_of(two=two, lanes=2, least=True)
    obs, info = view.reset(seed=0)
    for _ in range(2):
        obs, *_, info = view.step(np.array([np.flatnonzero(m)[0] for m in info["action_mask"]]))
    state = view.state.clone()
    obs, _ = view.reset(options={"reset_mask": np.array([False, True])})
    assert torch.equal(view.state[0], state[0]) and (view.state[1] == -1).all()
    assert obs["queries_left"][1, 0] == 20 and obs["queries_left"][0, 0] < 20


# -- Gymnasium -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("knowledge", ["white-box", "decision"])
def test_gymnasium_accepts_it(task, knowledge):
    env = gym.make(f"advgym/{task.replace('/', '.')}-v0", queries=20, knowledge=knowledge)
    check_env(env.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("task", TASKS)
def test_stable_baselines_accepts_it(task):
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env as check

    check(gym.make(f"advgym/{task.replace('/', '.')}-v0", queries=20).unwrapped, warn=True)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("autoreset", ["same-step", "disabled"])
def test_make_vec(task, autoreset):
    env = gym.make_vec(f"advgym/{task.replace('/', '.')}-v0", num_envs=3, autoreset=autoreset, queries=4)
    mode = {"same-step": AutoresetMode.SAME_STEP, "disabled": AutoresetMode.DISABLED}[autoreset]
    assert env.metadata["autoreset_mode"] is mode and env.num_envs == 3
    obs, _ = env.reset(seed=0)
    env.action_space.seed(0)
    ended = np.zeros(3, bool)
    for _ in range(9):
        obs, _reward, terminated, _truncated, _info = env.step(env.action_space.sample())
        assert obs in env.observation_space
        ended |= terminated
        if autoreset == "disabled" and terminated.any():
            env.reset(options={"reset_mask": terminated})
    assert ended.all()
    env.close()


def test_gym_make_with_wrappers():
    env = gym.make("advgym/image.digits-pixel-v0", queries=30, max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends[-1][1] and not ends[0][1], "outer time limits truncate"
    env = gym.wrappers.FlattenObservation(gym.make("advgym/image.digits-pixel-v0", queries=5))
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    assert gym.make(spec).reset(seed=0)[0].shape == obs.shape


def test_the_single_lane():
    env = gym.make("advgym/image.digits-pixel-v0", queries=5, render_mode="ansi")
    obs, info = env.reset(seed=3)
    same, _ = env.reset(seed=3)
    assert all(np.array_equal(obs[k], same[k]) for k in obs)
    done, steps = False, 0
    while not done:
        action = int(np.flatnonzero(env.unwrapped.action_masks())[0])
        obs, reward, done, truncated, info = env.step(action)
        assert isinstance(reward, float) and type(done) is bool and type(truncated) is bool
        assert isinstance(env.render(), str)
        steps += 1
    assert steps <= 5 and {"sample", "success", "queries", "perturbation", "reason"} <= set(info["final_info"])


# -- Stable-Baselines3 -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", TASKS)
def test_the_vec_env(task):
    pytest.importorskip("stable_baselines3")
    from advgym.clients.sb3 import AdvgymVecEnv

    env = AdvgymVecEnv(task, 3, seed=0, queries=3)
    obs = env.reset()
    single = env.observation_space
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(8):
        if task.endswith("pixel"):
            masks = np.stack(env.env_method("action_masks"))
            action = np.array([rng.choice(np.flatnonzero(m)) for m in masks])
        else:
            action = rng.uniform(-1, 1, (3, *env.action_space.shape)).astype(np.float32)
        obs, reward, done, infos = env.step(action)
        assert reward.dtype == np.float32 and done.dtype == bool and len(infos) == 3
        for i in range(3):
            assert {k: v[i] for k, v in obs.items()} in single
            assert ("terminal_observation" in infos[i]) == done[i]
            if done[i]:
                assert infos[i]["terminal_observation"] in single and isinstance(infos[i]["is_success"], bool)
                assert infos[i]["terminal_observation"]["queries_left"][0] < 3 and obs["queries_left"][i, 0] == 3
                ended += 1
    assert ended >= 3
    env.seed(5)
    first = env.reset()
    env.seed(5)
    assert all(np.array_equal(first[k], v) for k, v in env.reset().items())
    assert env.env_is_wrapped(object) == [False] * 3 and env.has_attr("action_masks")


@pytest.mark.slow
def test_masked_ppo_learns_a_step():
    contrib = pytest.importorskip("sb3_contrib")
    from advgym.clients.sb3 import AdvgymVecEnv

    env = AdvgymVecEnv("image/digits-pixel", 4, seed=0, queries=8)
    model = contrib.MaskablePPO("MultiInputPolicy", env, n_steps=8, batch_size=16, n_epochs=1, seed=0)
    model.learn(64)
    assert model.num_timesteps >= 64


def test_vectors_are_one_forward():
    sizes = []
    layer = toy.linear()
    from advgym import Victim

    def spy(x):
        sizes.append(len(x))
        return layer(x)

    view = view_of(lanes=5, victim=Victim(spy))
    view.reset(seed=0)
    sizes.clear()
    view.step(np.array([np.flatnonzero(m)[0] for m in view.action_masks()]))
    assert sizes == [5]


def test_make_vector_takes_names_only():
    view = make_vector(2, task="image/digits-pixel", queries=3)
    assert view.numpy and view.autoreset_mode is AutoresetMode.SAME_STEP


@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("knowledge", ["decision", "white-box"])
def test_targets_are_in_every_observation_and_space(kind, knowledge):
    """In the core, the edit view, a single lane and after an autoreset; and nowhere without a target."""
    env = make(toy.task(kind, goal="targeted", knowledge=knowledge, queries=3), 3, autoreset="same-step")
    obs, _ = env.reset(seed=0)
    wanted = (obs["output"] + 1) % toy.CLASSES
    evaluator(env).deal(evaluator(env).batch.ids.tolist(), wanted.tolist(), 0)
    obs, _, _, _, _ = env.step(env.threat.random(1))
    assert torch.equal(obs["target"], wanted) and env.observation_space["target"].shape == (3,)
    for t in range(4):
        obs, *_ = env.step(env.threat.random(t))
    assert obs["target"].tolist() == evaluator(env).targets
    view = edit_view(make(toy.task(kind, goal="targeted", knowledge=knowledge), 2, output="numpy"))
    obs, _ = view.reset(seed=0)
    assert obs["target"].shape == (2, 1) and obs["target"] in view.observation_space["target"]
    plain, _ = make(toy.task(kind, knowledge=knowledge), 2).reset(seed=0)
    assert "target" not in plain


@pytest.mark.parametrize(("task", "shape"), [("text/synth-headline", (7,)), ("speech/synth-transcribe", (91,)),
                                             ("graph/sbm-edge", ()), ("image/digits-linf", ())])  # fmt: skip
def test_targets_of_every_domain_fit_their_space(task, shape):
    goal = "keyword" if task == "text/synth-headline" else "targeted"
    env = make(task, 2, goal=goal, queries=4)
    obs, _ = env.reset(seed=1)
    assert obs["target"].shape == (2, *shape) and obs["target"].numpy() in env.observation_space["target"]
