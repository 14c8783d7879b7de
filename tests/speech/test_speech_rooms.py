"""The room simulator against closed forms, and the victim behind it."""

import math

import pytest
import torch

from advgym import attack, make, make_task, verify
from advgym.envs.speech.perturb import rooms
from advgym.envs.speech.perturb.air import OverAir

torch.set_num_threads(1)
ROOM, SOURCE, MIC = ([[5.0, 4.0, 3.0]], [[1.0, 1.5, 1.2]], [[3.5, 2.0, 1.6]])


def three(*values):
    return tuple(torch.tensor(v) for v in values)


def test_the_first_images_are_the_mirrored_sources():
    room, source = three(ROOM, SOURCE)
    place, met = rooms.images(room, source, (1, 1, 1))
    first = {tuple(round(v, 4) for v in p) for p, k in zip(place[0].tolist(), met.tolist(), strict=True) if k == 1}
    assert first == {(-1.0, 1.5, 1.2), (9.0, 1.5, 1.2), (1.0, -1.5, 1.2), (1.0, 6.5, 1.2), (1.0, 1.5, -1.2),
                     (1.0, 1.5, 4.8)}  # fmt: skip
    assert (met == 0).sum() == 1 and place[0][met == 0].tolist()[0] == pytest.approx([1.0, 1.5, 1.2])


def test_the_direct_path_has_its_delay_and_its_gain():
    room, source, mic = three(ROOM, SOURCE, MIC)
    far = math.dist(SOURCE[0], MIC[0])
    h = rooms.respond(room, source, mic, torch.ones(1), rate=8000, samples=400)[0]  # walls that swallow everything
    at = far / rooms.SPEED * 8000
    assert h.nonzero().flatten().tolist() == [math.floor(at), math.floor(at) + 1]
    assert h.sum().item() == pytest.approx(1 / (4 * math.pi * far), rel=1e-5)
    assert (h * torch.arange(400)).sum().item() / h.sum().item() == pytest.approx(at, rel=1e-5)


def test_a_reflection_loses_what_the_wall_absorbs():
    room, source, mic = three(ROOM, SOURCE, MIC)
    path, gain, direct = rooms.arrivals(room, source, mic, torch.tensor([0.36]), (1, 1, 1))
    place, met = rooms.images(room, source, (1, 1, 1))
    want = 0.8 ** met.double() / (4 * math.pi * (place[0] - mic[0]).double().norm(dim=1))
    torch.testing.assert_close(gain[0].double(), want, rtol=1e-5, atol=0)
    assert direct.item() == pytest.approx(path[0][met == 0].item())


def test_no_image_within_the_response_is_missing():
    room, source, mic = three(ROOM, SOURCE, MIC)
    absorb = torch.tensor([0.3])
    some = rooms.respond(room, source, mic, absorb, rate=8000, samples=500)
    more = rooms.respond(room, source, mic, absorb, rate=8000, samples=500, order=(9, 10, 12))
    torch.testing.assert_close(some, more)


@pytest.mark.parametrize("absorb", [0.15, 0.3])
def test_the_reverberation_time_is_sabines(absorb):
    """Within 25 per cent, as a diffuse field asks for a room that is not too dead (Kuttruff 2016)."""
    room, source, mic = three([[5.2, 4.1, 3.3]], SOURCE, MIC)
    walls = torch.tensor([absorb])
    want = rooms.sabine(room, walls).item()
    found = rooms.decay_time(rooms.respond(room, source, mic, walls, rate=4000, samples=int(4000 * want * 0.7)), 4000)
    assert found.item() == pytest.approx(want, rel=0.25)
    assert want == pytest.approx(0.161 * 5.2 * 4.1 * 3.3 / (absorb * 2 * (5.2 * 4.1 + 4.1 * 3.3 + 3.3 * 5.2)), rel=2e-3)


def test_drawn_rooms_are_aligned_differ_and_do_not_depend_on_each_other():
    keys = torch.tensor([5, -3, 2**60])
    h = rooms.drawn(keys, 8000)
    assert h.shape == (3, 800) and (h[:, 0] >= 1 - 1e-4).all() and torch.isfinite(h).all()
    torch.testing.assert_close(rooms.drawn(keys[1:2], 8000), h[1:2])
    assert (h[0] - h[1]).abs().max() > 0.01
    assert (h[:, 400:].square().sum(1) < 0.1 * h.square().sum(1)).all()


def test_convolution_is_the_sum():
    x, h = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)), torch.rand(2, 7)
    want = torch.stack([torch.nn.functional.conv1d(a.view(1, 1, -1), b.flip(0).view(1, 1, -1), padding=6)[0, 0, :50]
                        for a, b in zip(x, h, strict=True)])  # fmt: skip
    torch.testing.assert_close(rooms.convolved(x, h), want)


def test_the_task_draws_rooms_and_the_verdict_is_in_new_ones():
    task = make_task("speech/synth-rooms", goal="silence", rooms=2)
    assert task.victim.keyed and task.victim.draws == 2 and isinstance(task.victim.model, OverAir)
    env = make("speech/synth-rooms", lanes=2, queries=4)
    obs, _ = env.reset(seed=0)
    d = env.threat.null().requires_grad_()
    obs, *_ = env.step(d)
    (g,) = torch.autograd.grad(obs["surrogate"].sum(), d)
    assert (g.abs().amax(1) > 0).all() and env.keyed
    again, *_ = env.step(d)
    assert not torch.allclose(obs["scores"], again["scores"]), "the same clip is heard in another room"
    result = attack("speech/synth-rooms", "pgd", episodes=2, lanes=2, clean=2, queries=6)
    assert verify(result) == []


def test_a_surrogate_is_heard_over_the_air_too():
    task = make_task("speech/synth-rooms", knowledge="transfer")
    assert task.surrogate.keyed and task.surrogate.name.endswith("over the air")
