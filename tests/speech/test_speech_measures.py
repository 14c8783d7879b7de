"""STOI, segmental SNR and the columns: closed forms, properties, and sums over sums."""

import numpy as np
import pytest
import torch

from advgym import attack, make_task, verify
from advgym.core.columns import Said
from advgym.envs.speech.measures import levels
from advgym.envs.speech.measures.columns import read
from advgym.envs.speech.measures.stoi import _bands, stoi
from advgym.envs.speech.symbols import encode

torch.set_num_threads(1)


def speech(n=4):
    batch = make_task("speech/synth-transcribe").samples("test", list(range(n)))
    return batch.x, batch.length


def noise(x, seed=0):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def test_stoi_of_a_clip_and_itself_is_one_at_any_loudness():
    x, length = speech()
    for gain in (1.0, 0.1):
        torch.testing.assert_close(stoi(x, gain * x, length, 8000), torch.ones(4), atol=1e-5, rtol=0)


def test_stoi_falls_with_noise_and_ends_near_none():
    x, length = speech()
    rms = x.square().mean(1, keepdim=True).sqrt()
    found = torch.stack([stoi(x, x + noise(x) * rms * k, length, 8000) for k in (0.03, 0.3, 1.0, 3.0, 30.0)])
    assert (found.diff(dim=0) < 0).all() and (found[0] > 0.95).all()
    assert (stoi(x, noise(x), length, 8000).abs() < 0.45).all()


def test_stoi_does_not_hear_the_padding_nor_the_other_rows():
    x, length = speech()
    y = x + 0.05 * noise(x) * (torch.arange(x.shape[1]) < length[:, None])
    together = stoi(x, y, length, 8000)
    torch.testing.assert_close(stoi(x[1:2], y[1:2], length[1:2], 8000), together[1:2])
    wide = [torch.nn.functional.pad(t, (0, 4000)) for t in (x, y)]
    torch.testing.assert_close(stoi(*wide, length, 8000), together, atol=2e-3, rtol=0)


def test_what_is_too_short_has_a_stated_value():
    x, length = speech(1)
    assert stoi(x[:, :2000], x[:, :2000], length.clamp_max(2000), 8000).item() == -1.0
    assert stoi(x, x, torch.tensor([2500]), 8000, short=-2.0).item() == -2.0


def test_the_bands_are_third_octaves_from_150_hz():
    bands = _bands(torch.device("cpu"))
    hertz = torch.arange(257) * 10_000 / 512
    assert bands.shape == (257, 15) and (bands.sum(1) <= 1).all()
    for k in range(15):
        inside = hertz[bands[:, k] > 0]
        centre = 150 * 2 ** (k / 3)
        assert abs(inside[0] - centre * 2 ** (-1 / 6)) < 10 and abs(inside[-1] + 19.5 - centre * 2 ** (1 / 6)) < 10


def test_segmental_snr_by_hand():
    x = torch.zeros(3, 1024)
    x[:, :512] = 1.0
    d = torch.zeros(3, 1024)
    d[0, :256], d[0, 256:512] = 0.1, 0.01  # 20 dB, 40 dB (clamped), then two silent and unchanged ones
    d[1, 512:] = 1.0  # unchanged twice, then noise in silence
    found = levels.segmental_snr_db(x, d, torch.tensor([1024, 1024, 10]), 8000)
    assert found.tolist() == pytest.approx([(20 + 35 * 3) / 4, (35 * 2 - 10 * 2) / 4, 35.0])


def test_transcripts_are_counted_against_truth_and_target():
    def ids(*texts):
        return torch.tensor([encode(t, width=20) for t in texts])

    said = Said(ids("one two", "six"), ids("one two", "six"), ids("one six", ""), ids("one six", "two two"))
    found = read(None, said, space=1)
    assert found["word_edits"] == [1, 1] and found["words"] == [2, 1] and found["clean_word_edits"] == [0, 0]
    assert found["target_word_edits"] == [0, 2] and found["target_words"] == [2, 2]
    assert found["char_edits"] == [3, 3] and found["chars"] == [7, 3]
    bundle = Said(*(t.unsqueeze(0) for t in said[:3]), ids("two"))
    found = read(None, bundle, space=1)
    assert found["word_edits"] == [2] and found["words"] == [3] and found["target_word_edits"] == [3]


@pytest.fixture(scope="module")
def result():
    return attack("speech/synth-transcribe", "pgd", episodes=4, lanes=4, goal="targeted", clean=4, queries=8)


def test_rates_are_sums_over_sums_and_verified(result):
    rows = result.samples
    for name, top, base in (("wer", "word_edits", "words"), ("target_cer", "target_char_edits", "target_chars"),
                            ("stoi", "stoi_part", "stoi_clips")):  # fmt: skip
        column = result.columns[name]
        assert column.ratio == (top, base)
        assert column.mean == pytest.approx(sum(r.columns[top] for r in rows) / sum(r.columns[base] for r in rows))
    assert verify(result) == []
    assert all(np.isfinite(list(r.columns.values())).all() for r in rows)


@pytest.mark.parametrize("name", ["word_edits", "mask_excess", "snr"])
def test_a_wrong_column_is_found(result, name):
    row = result.samples[0]
    kept = dict(row.columns)
    row.columns[name] += 1
    try:
        assert any(name in line for line in verify(result))
    finally:
        row.columns.update(kept)


def test_a_wrong_rate_is_found(result):
    kept = result.columns["wer"].mean
    result.columns["wer"].mean = kept + 0.1
    try:
        assert any("summary of the columns" in line for line in verify(result))
    finally:
        result.columns["wer"].mean = kept


def test_no_change_and_silence_have_finite_columns():
    task = make_task("speech/keyword", victim=lambda x: torch.stack([x.sum(1), -x.sum(1)], 1),
                     samples=[(np.zeros(900), 0), (np.full(900, 0.1), 0)])  # fmt: skip
    batch = task.samples("test", [0, 1])
    for form in (batch.x, batch.look(batch.random(0)).form):
        found = task.columns.compute(batch, form)
        assert all(np.isfinite(v).all() for v in found.values()) and found["stoi_clips"] == [0.0, 0.0]
    assert task.columns.compute(batch, batch.x)["snr"] == [120.0, 120.0]
