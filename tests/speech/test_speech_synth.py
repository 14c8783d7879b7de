"""The synthesiser: the same words from the same numbers, and shaped like speech."""

import numpy as np
import pytest

from advgym.envs.speech import symbols
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.data import synth

PLANS = [(word, voice, 0) for voice in (0, 1, 1003) for word in symbols.DIGITS]


@pytest.fixture(scope="module")
def spoken() -> list[np.ndarray]:
    return synth.speak(PLANS)


def test_same_plan_same_samples_whatever_is_made_beside_it(spoken):
    some = [17, 3, 29]
    for i, wave in zip(some, synth.speak([PLANS[i] for i in some]), strict=True):
        assert np.array_equal(wave, spoken[i])
    many = synth.speak(PLANS * 4)  # more than one block
    assert all(np.array_equal(a, b) for a, b in zip(many[-30:], spoken, strict=True))


def test_voices_and_takes_differ():
    first, take, voice = synth.speak([("one", 4, 0), ("one", 4, 1), ("one", 5, 0)])
    assert not np.array_equal(first, take) and not np.array_equal(first, voice)


def test_words_are_16_bit_of_one_peak_and_fit_their_clip(spoken):
    for wave in spoken:
        assert wave.dtype == np.int16 and 1600 < len(wave) < data.WORD_SAMPLES["synth-digits"]
        assert abs(int(np.abs(wave.astype(int)).max()) / 32768 - synth.PEAK) < 0.02


def test_voicing_hiss_and_silence_are_where_they_belong(spoken):
    """A vowel is periodic at the voice's pitch; the s of six is high; its k is preceded by a closure."""
    words = dict(zip([(w, v) for w, v, _ in PLANS], spoken, strict=True))
    for number in (0, 1, 1003):
        x = words["one", number] / 32768
        middle = x[len(x) // 2 - 400 : len(x) // 2 + 400]
        echo = np.correlate(middle, middle, "full")[len(middle) - 1 :]
        lags = np.arange(int(8000 / 300), int(8000 / 65))
        pitch = 8000 / lags[echo[lags].argmax()]
        assert echo[lags].max() > 0.5 * echo[0]
        assert 0.6 < pitch / synth.voice(number).f0 < 1.4

        six = words["six", number] / 32768
        spectrum = np.abs(
            np.fft.rfft(np.lib.stride_tricks.sliding_window_view(six, 256)[::80] * np.hanning(256), axis=1)
        )
        high = (spectrum[:, 80:] ** 2).sum(1) / (spectrum**2).sum(1)  # above 2.5 kHz
        power = (spectrum**2).sum(1)
        loud = power > 0.01 * power.max()
        assert high[loud][:3].min() > 0.5 and high[loud].min() < 0.1


def test_splits_share_no_voice():
    assert not set(data.VOICES["train"]) & set(data.VOICES["test"])
    assert not set(range(160)) & set(data.VOICES["test"])  # nor do the voices that victims learn from
