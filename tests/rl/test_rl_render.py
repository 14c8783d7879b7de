"""What `render` shows in every domain and kind; videos, windows and pickles of the Gymnasium environment."""

import pickle
import sys
import types

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import AddRenderObservation, RecordVideo, RenderCollection

import advgym
from advgym.lib.canvas import SIZE, STRIP, captioned, shorten, words

NAMES = (  # one task of each domain and kind, and each way of drawing
    "image.digits-linf", "image.digits-pixel", "image.digits-patch-universal", "text.synth-wordswap",
    "text.synth-joint", "text.synth-trigger", "graph.karate-edge", "graph.sbm-feature", "graph.sbm-continuous",
    "graph.karate-global", "graph.karate-rewire", "graph.karate-inject", "graph.sbm-edge",
    "speech.synth-keyword", "speech.synth-bands",
)  # fmt: skip
SHAPE = (SIZE[1] + STRIP, SIZE[0], 3)


def steps(env, many=3, seed=0):
    """(what render showed at the start and after each step, the last observation)."""
    obs, info = env.reset(seed=seed)
    env.action_space.seed(seed)
    shown = [env.render()]
    for _ in range(many):
        action = env.action_space.sample(info["action_mask"]) if "action_mask" in info else env.action_space.sample()
        obs, _, over, _, info = env.step(action)
        shown.append(env.render())
        if over:
            break
    return shown, obs


@pytest.mark.parametrize("name", NAMES)
def test_frames_have_one_size_and_show_the_change(name):
    shown, _ = steps(gym.make(f"advgym/{name}-v0", render_mode="rgb_array"))
    assert {f.shape for f in shown} == {SHAPE} and {f.dtype for f in shown} == {np.dtype(np.uint8)}
    assert (shown[0] != shown[-1]).any() and shown[0].std() > 5
    again, _ = steps(gym.make(f"advgym/{name}-v0", render_mode="rgb_array"))
    assert all((a == b).all() for a, b in zip(shown, again, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_checker_of_gymnasium_passes(name):
    check_env(gym.make(f"advgym/{name}-v0", queries=60).unwrapped)


def test_text_marks_what_changed_and_the_answer():
    shown, _ = steps(gym.make("advgym/text.synth-wordswap-v0", render_mode="ansi"), 2)
    first, last = (text.split("\n") for text in (shown[0], shown[-1]))
    assert "(->" not in first[0] and "(->" in last[0]
    assert first[1].startswith("answer ") and "0 of 500 queries" in first[1] and "2 of 500 queries" in last[1]


def test_an_answer_that_turned_is_told():
    env = gym.make("advgym/text.synth-wordswap-v0", render_mode="ansi")
    for seed in range(20):
        shown, obs = steps(env, 8, seed)
        if obs["success"][0]:
            assert " -> " in shown[-1].split("\n")[1] and "(success)" in shown[-1]
            return
    raise AssertionError("no random play succeeded")


def test_a_vector_renders_every_lane():
    for mode, kind in (("ansi", str), ("rgb_array", np.ndarray)):
        env = gym.make_vec("advgym/graph.karate-edge-v0", num_envs=3, render_mode=mode)
        env.reset(seed=0)
        shown = env.render()
        assert len(shown) == 3 and all(isinstance(s, kind) for s in shown)
    assert {s.shape for s in shown} == {SHAPE}


def test_wrappers_of_gymnasium_take_the_frames(tmp_path, monkeypatch):
    name, films = "advgym/graph.karate-edge-v0", []

    class Clip:  # moviepy's writer, in its place
        def __init__(self, frames, fps):
            films.append((np.stack(frames), fps))

        def write_videofile(self, path, logger=None):
            films.append(path)

    module = types.ModuleType("moviepy.video.io.ImageSequenceClip")
    module.ImageSequenceClip = Clip
    for part in ("moviepy", "moviepy.video", "moviepy.video.io"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    env = RecordVideo(gym.make(name, render_mode="rgb_array"), str(tmp_path), episode_trigger=lambda _: True)
    shown, _ = steps(env, 4)
    env.close()
    assert films[0][0].shape == (len(shown), *SHAPE) and films[0][1] == 4 and films[1].endswith(".mp4")

    env = RenderCollection(gym.make(name, render_mode="rgb_array"))
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert len(env.render()) == 2
    env = AddRenderObservation(gym.make(name, render_mode="rgb_array"), render_only=False, render_key="frame")
    obs, _ = env.reset(seed=0)
    assert obs["frame"].shape == SHAPE and env.observation_space.contains(obs)


# -- windows ---------------------------------------------------------------------------------------------------------
class Screen(types.ModuleType):
    """A pygame that keeps what it is shown."""

    def __init__(self):
        super().__init__("pygame")
        self.seen, self.open = [], False
        self.display = types.SimpleNamespace(
            init=lambda: None, set_caption=lambda text: None, set_mode=self.start, flip=lambda: None, quit=self.stop
        )
        self.surfarray = types.SimpleNamespace(make_surface=lambda pixels: pixels)
        self.event = types.SimpleNamespace(pump=lambda: None)

    def start(self, size):
        self.open = True
        return types.SimpleNamespace(blit=lambda pixels, at: self.seen.append(pixels))

    def stop(self):
        self.open = False


def test_a_window_follows_by_itself(monkeypatch):
    screen = Screen()
    monkeypatch.setitem(sys.modules, "pygame", screen)
    monkeypatch.setenv("DISPLAY", ":9")
    env = gym.make("advgym/graph.karate-edge-v0", render_mode="human")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.render() is None and screen.open and len(screen.seen) == 3
    assert screen.seen[0].shape == (SHAPE[1], SHAPE[0], 3) and "human" in env.unwrapped.metadata["render_modes"]
    env.close()
    assert not screen.open
    several = gym.make_vec("advgym/graph.karate-edge-v0", num_envs=6, render_mode="human")
    several.reset(seed=0)
    several.render()
    assert screen.seen[-1].shape == (2 * SHAPE[1], 2 * SHAPE[0], 3)  # the first four lanes


def test_no_window_is_a_plain_error(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(advgym.AdvgymError, match=r"no screen.*rgb_array"):
        gym.make("advgym/graph.karate-edge-v0", render_mode="human")
    with pytest.raises(advgym.AdvgymError, match="unknown render_mode 'rgb_aray'; did you mean 'rgb_array'"):
        gym.make("advgym/graph.karate-edge-v0", render_mode="rgb_aray")


# -- pickles and specs -----------------------------------------------------------------------------------------------
def test_environments_pickle_as_their_arguments():
    """Nothing of the episode or its label goes over; what comes out plays the same from its first reset on."""
    single = gym.make("advgym/text.synth-wordswap-v0", queries=7)
    vector = gym.make_vec("advgym/text.synth-wordswap-v0", num_envs=2, queries=7)
    core = advgym.make("text/synth-wordswap", lanes=2, queries=7, output="numpy")
    for env in (single, vector, core):
        env.reset(seed=3)
        written = pickle.dumps(env)
        assert len(written) < 6000 and b"labels" not in written
        twin = pickle.loads(written)
        if env is single:
            assert twin.spec.max_episode_steps == 7
        for key, value in env.reset(seed=4)[0].items():
            np.testing.assert_array_equal(value, twin.reset(seed=4)[0][key], err_msg=key)
    with pytest.raises(advgym.AdvgymError, match="cannot be pickled"):
        pickle.dumps(core.view())
    with pytest.raises(advgym.AdvgymError, match="cannot be pickled"):
        pickle.dumps(advgym.make(advgym.make_task("text/synth-wordswap")))


@pytest.mark.slow
def test_an_async_vector_by_spawn():
    env = gym.make_vec(
        "advgym/graph.karate-edge-v0",
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"context": "spawn"},
        queries=5,
    )
    try:
        obs, _ = env.reset(seed=[0, 1])
        assert obs["perturbation"].shape[0] == 2
        assert env.step(np.array([1, 2]))[0]["queries_left"].tolist() == [[4], [4]]
    finally:
        env.close()


def test_specs_say_the_most_steps():
    assert gym.make("advgym/image.digits-linf-v0").spec.max_episode_steps == 500
    assert gym.make("advgym/image.digits-linf-v0", queries=30).spec.max_episode_steps == 30
    two = gym.make("advgym/graph.sbm-edge-v0", queries=4)  # a site, then a choice
    assert two.spec.max_episode_steps == 8
    _, info = two.reset(seed=0)
    over = count = 0
    while not over:
        _, _, over, cut, info = two.step(two.action_space.sample(info["action_mask"]))
        count += 1
        assert not cut
    assert count <= 8


# -- the canvas ------------------------------------------------------------------------------------------------------
def test_a_long_text_ends_in_an_ellipsis_and_keeps_the_size():
    for text in ("", "short", "word " * 2000, "x" * 3000):
        panel = words([(text, ""), ("gone", "gone"), ("new", "added")])
        assert panel.shape == (SIZE[1], SIZE[0], 3)
        assert captioned(panel, text or "t", text, True, text).shape == SHAPE
    assert shorten("some words that are long", 12, 60).endswith("...")
