"""Attacks on signals: what they promise, against closed forms and by hand."""

import math

import pytest
import torch

from advgym import AdvgymError, attack, make, registry, verify
from advgym.agents.shared.signals import clean_of, convolved, extent, loudest, quieter, scaled
from advgym.agents.waveforms import tones
from advgym.agents.waveforms.kenansville import _bins, _spectrum
from advgym.judge.evaluator import evaluator

torch.set_num_threads(1)
KEYWORD, CTC = "speech/synth-keyword", "speech/synth-transcribe"


def opened(task=KEYWORD, lanes=4, **threat):
    env = make(task, lanes, threat.pop("proposals", None), **threat)
    obs, _ = env.reset(seed=0)
    return env, obs


# -- what they share ------------------------------------------------------------------------------------------------
def test_the_extent_is_where_a_change_counts():
    env, _ = opened()
    x, span = clean_of(env), extent(env)
    for row, (first, last) in zip(x, span.tolist(), strict=True):
        assert first == 0 and last < x.shape[1] and not bool(row[last:].any())


def test_the_loudest_version_of_a_change_is_valid_and_near_the_surface():
    env, _ = opened()
    change = torch.randn(env.threat.null().shape, generator=torch.Generator().manual_seed(0))
    p = loudest(env, change)
    assert bool(env.threat.check(p).all())
    assert bool((env.threat.distance(p) > 0.99 * env.threat.reach).all())
    assert not bool(env.threat.check(p * 1.01).any())


@pytest.mark.parametrize("norm", ["linf", "mask"])
def test_quieter_versions_reach_the_bound_from_inside(norm):
    env, _ = opened(norm=norm, eps=0.5, lanes=2)
    δ = env.threat.random(3)
    far = env.threat.distance(δ)
    τ = far * torch.tensor([0.3, 2.0])
    near = env.threat.distance(quieter(env, δ, τ))
    assert bool((near <= τ).all()) and near[0] > 0.6 * τ[0] and torch.isclose(near[1], far[1])


def test_a_filter_is_a_convolution():
    g = torch.Generator().manual_seed(1)
    x, h = torch.randn(2, 50, generator=g), torch.randn(2, 7, generator=g)
    want = torch.stack([torch.nn.functional.conv1d(a.view(1, 1, -1), b.flip(0).view(1, 1, -1), padding=6).flatten()
                        for a, b in zip(x, h, strict=True)])  # fmt: skip
    assert torch.allclose(convolved(x, h), want[:, :50], atol=1e-5)


def test_scaled_gradients():
    g = torch.tensor([[1.0, -3.0], [0.0, 0.0]])
    assert torch.equal(scaled(g), torch.tensor([[0.5, -1.5], [0.0, 0.0]]))


# -- kenansville ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("parts", "lags"), [(_bins, 0), (_spectrum, 16)])
def test_components_add_up_and_the_weakest_go_first(parts, lags):
    t = torch.arange(400.0)
    x = torch.stack([torch.sin(2 * math.pi * 0.05 * t) + 0.01 * torch.sin(2 * math.pi * 0.2 * t), torch.cos(0.3 * t)])
    removed, count = parts(x, lags)
    k = torch.zeros(2)
    assert torch.allclose(removed(k), torch.zeros_like(x), atol=1e-6)
    assert torch.allclose(removed(k + count), x, atol=1e-4)
    energy = [float(removed(k + n)[0].square().sum()) for n in range(0, count + 1, max(1, count // 8))]
    assert energy == sorted(energy)
    if parts is _bins:
        assert torch.allclose(removed(k + count - 1)[0], x[0] - torch.sin(2 * math.pi * 0.05 * t), atol=1e-3)


@pytest.mark.parametrize("method", ["dft", "ssa"])
def test_kenansville_leaves_out_and_searches_below_a_success(method):
    threat = {"norm": "snr", "snr": 8, "queries": 40}
    one = attack(KEYWORD, "kenansville", episodes=6, lanes=6, settings={"method": method}, **threat)
    least = attack(KEYWORD, "kenansville", episodes=6, lanes=6, settings={"method": method}, least=True, **threat)
    assert one.success_rate == least.success_rate > 0 and one.queries_mean <= 1
    assert 1 < least.queries_mean < 16 and verify(least) == []
    both = [(a, b) for a, b in zip(one.samples, least.samples, strict=True) if a.success]
    assert all(b.distance <= a.distance for a, b in both) and any(b.distance < a.distance for a, b in both)


# -- tones and the other black-box searches --------------------------------------------------------------------------
def test_a_step_is_within_its_window_and_what_its_kind_says():
    t = torch.arange(250)
    x = torch.sin(2 * math.pi * 0.1 * t).expand(4, -1).clone()
    own = tones.in_bands(x, 6, 0.01)
    assert torch.allclose(own.sum((1, 2)), x, atol=1e-4)
    held, span = torch.full((4, 250), 0.05), torch.tensor([[0, 200]] * 4)
    pitch = torch.full((4,), math.log(0.1 / 0.01) / math.log(50))
    steps = tones.Steps(torch.full((4,), 0.5), torch.full((4,), 0.25), pitch, torch.arange(4))
    p = tones.filled(held, steps, span, own.sign(), torch.full((4,), 0.1), torch.zeros(4, 2), 0.01)
    inside = (t - 100).abs() < 25
    assert torch.equal(p[:, ~inside], held[:, ~inside]) and not bool((p[:, inside] == held[:, inside]).all(1).any())
    tone = torch.sin(2 * math.pi * 0.1 * t)
    assert torch.allclose(p[0, inside], (0.05 + 0.1 * tone)[inside], atol=1e-4)
    assert set(p[1, inside].abs().unique().tolist()) <= {0.0, float(torch.tensor(0.1))}
    louder, softer = ((row - 0.05)[inside] @ x[0, inside] for row in p[2:])
    assert louder > 0 > softer


def test_the_table_learns_what_a_patch_is_worth():
    table = torch.zeros(2, tones.KINDS, 4, tones.PLACES)
    steps = tones.Steps(
        torch.tensor([0.5, 0.1]), torch.tensor([0.25, 0.25]), torch.tensor([0.3, 0.3]), torch.tensor([2, 0])
    )
    for _ in range(40):
        table = tones.learnt(table, steps, torch.tensor([1.5, -1.0]), 0.3, 4)
    for lane, worth in enumerate((1.5, -1.0)):
        many = tones.Steps(*(getattr(steps, f)[lane].view(1, 1) for f in ("centre", "width", "pitch", "kind")))
        row, cover = tones.looked_up(table[lane : lane + 1], many, 4)
        assert float((row * cover).sum()) == pytest.approx(worth, abs=1e-3)


@pytest.mark.parametrize(("name", "queries"), [("tones", 150), ("nes", 104), ("siren", 104)])
def test_black_box_searches_stay_in_the_ball_and_keep_what_is_best(name, queries):
    entry = registry.agent(name)
    env, obs = opened(lanes=4, proposals=entry.proposals, queries=queries, knowledge="score", goal="targeted")
    before = obs["objective"] if obs["objective"].dim() == 1 else obs["objective"][:, 0]
    held = entry.attack(env, seed=0)
    book = evaluator(env).book
    assert bool(env.threat.check(held).all()) and int(book.used.max()) <= queries
    assert bool((book.potential >= before.clamp_max(0) - 1e-6).all()) and bool((book.potential > before).any())


# -- gradients on transcripts ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", ["ctc", "margin"])
def test_cw_ctc_shrinks_what_succeeds(loss):
    threat = {"goal": "targeted", "eps": 0.2, "queries": 80, "gradients": 80}
    least = attack(CTC, "cw-ctc", episodes=4, lanes=4, settings={"loss": loss, "steps": 45}, least=True, **threat)
    assert least.success_rate > 0.5 and verify(least) == []
    assert least.distance_median < 0.25 * 0.4 * 0.2  # of where the bound starts


def test_imperceptible_ends_inside_the_mask():
    threat = {"goal": "targeted", "norm": "mask", "eps": 3.0, "least": True, "queries": 50, "gradients": 50}
    result = attack(CTC, "imperceptible", episodes=3, lanes=3, settings={"steps": 40}, **threat)
    assert result.success_rate > 0 and verify(result) == []
    assert all(s.distance <= 3.0 for s in result.samples)


def test_bounds_are_of_each_lane():
    """A lane's result is the same alone and beside others."""
    alone, beside = (
        attack(CTC, "cw-ctc", episodes=2, lanes=lanes, goal="targeted", eps=0.2, least=True, queries=15, gradients=15)
        for lanes in (1, 2)
    )
    assert [s.distance for s in alone.samples] == pytest.approx([s.distance for s in beside.samples], rel=0.05)


def test_settings_have_ranges():
    for name, wrong in (("cw-ctc", {"shrink": 1.5}), ("kenansville", {"method": "fft"}), ("nes", {"sigma": 0})):
        with pytest.raises(AdvgymError, match=next(iter(wrong))):
            attack(KEYWORD, name, episodes=1, settings=wrong)


# -- controls --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "more"), [("reverb", {}), ("background", {}), ("background", {"talkers": 3})])
def test_controls_fill_the_budget_and_are_keyed(name, more):
    entry = registry.agent(name)
    env, _ = opened(norm="snr", snr=20)
    p = entry.attack(env, seed=1, **more)
    assert bool(env.threat.check(p).all()) and bool((env.threat.distance(p) > 0.95 * env.threat.reach).all())
    again, _ = opened(norm="snr", snr=20)
    assert torch.equal(entry.attack(again, seed=1, **more), p)
    other, _ = opened(norm="snr", snr=20)
    same = torch.equal(entry.attack(other, seed=2, **more), p)
    assert not same
