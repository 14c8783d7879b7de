"""Loaders: exact samples, honest errors."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from advgym.envs.speech import symbols
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.data import own
from advgym.errors import AdvgymError, DataError


def write(folder: Path, name: str, wave: np.ndarray, rate: int = 8000) -> Path:
    soundfile.write(str(folder / name), wave, rate, subtype="PCM_16")
    return folder / name


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two speakers, ten digits, one test and one training take each."""
    rng = np.random.default_rng(0)
    for speaker in ("ann", "bob_2"):
        for digit in range(10):
            for index in (0, 7):
                wave = (rng.normal(0, 500, 1000 + 300 * digit)).astype(np.int16)
                write(tmp_path, f"{digit}_{speaker}_{index}.wav", wave)
    write(tmp_path, "notes.wav", np.zeros(10, np.int16))
    return tmp_path


def test_a_folder_of_recordings(recordings):
    assert data.word_sizes(str(recordings)) == {"train": 20, "test": 20}
    clips = data.keywords(str(recordings), "test")
    assert clips.wave.shape == (20, 8000) and clips.wave.dtype == torch.int16
    assert clips.labels.tolist() == sorted([*range(10)] * 2)
    assert clips.length[:4].tolist() == [1000, 1000, 1300, 1300]
    assert not clips.wave[0, 1000:].any()
    peak = clips.wave.int().abs().amax(1)
    assert (peak - round(0.9 * 32767)).abs().max() <= 1


def test_waves_are_read_exactly(tmp_path):
    wave = np.array([-32768, -1, 0, 1, 32767], np.int16)
    assert np.array_equal(data.read_wave(write(tmp_path, "0_a_0.wav", wave)), wave)


def test_broken_and_foreign_files_are_named(tmp_path, recordings):
    (tmp_path / "1_ann_0.wav").write_bytes(b"RIFF of nothing")
    with pytest.raises(DataError, match=r"1_ann_0.wav"):
        data.fsdd_words(str(tmp_path), "test")
    for name, rate, wave in (("fast", 16000, np.ones(9, np.int16)), ("wide", 8000, np.ones((9, 2), np.int16))):
        path = write(tmp_path, f"{name}.wav", wave, rate)
        with pytest.raises(DataError, match=f"{name}.wav is .*want mono at 8000 Hz"):
            data.read_wave(path)
    with pytest.raises(DataError, match=r"missing.wav"):
        data.read_wave(tmp_path / "missing.wav")


def test_missing_data_says_what_works_instead(tmp_path, monkeypatch):
    monkeypatch.delenv("ADVGYM_DATA", raising=False)
    with pytest.raises(DataError, match=r"ADVGYM_DATA is not set.*synth"):
        data.word_sizes("fsdd")
    monkeypatch.setenv("ADVGYM_DATA", str(tmp_path))
    with pytest.raises(DataError, match="speech/fsdd is not a folder"):
        data.word_sizes("fsdd")
    with pytest.raises(AdvgymError, match="did you mean 'fsdd'"):
        data.word_sizes("fsd")
    with pytest.raises(DataError, match="is not a folder"):
        data.word_sizes(str(tmp_path / "nowhere"))
    write(tmp_path, "hello.wav", np.zeros(10, np.int16))
    with pytest.raises(DataError, match=r"digit.*speaker.*index"):
        data.word_sizes(str(tmp_path))


def test_utterances_are_words_of_one_speaker(recordings):
    words = data.fsdd_words(str(recordings), "test")
    waves, texts = data.connect(words, 30, 16000, 0)
    again = data.connect(words, 30, 16000, 0)
    assert texts == again[1] and all(map(np.array_equal, waves, again[0]))
    assert {len(t.split()) for t in texts} == {2, 3}
    for wave, text in zip(waves, texts, strict=True):
        assert len(wave) <= 16000
        first = symbols.DIGITS.index(text.split()[0])
        start = np.flatnonzero(wave)[0]
        assert 0 < start < 900
        assert any(
            np.array_equal(wave[k : k + len(w.wave)], w.wave)
            for w in words
            if w.digit == first
            for k in range(max(0, start - 9), start + 1)
        )


def test_words_too_long_to_join(recordings):
    assert data.line_sizes(str(recordings)) == data.LINES
    with pytest.raises(DataError, match="to join into utterances"):
        data.connect([data.Word(np.zeros(9000, np.int16), 1, "ann")], 3, 16000, 0)


def test_synthetic_utterances_fit_and_repeat():
    clips = data.utterances("synth-digits", "test")
    assert len(clips) == data.LINES["test"] and clips.wave.shape[1] == data.LINE_SAMPLES["synth-digits"]
    assert {len(t.split()) for t in clips.texts} == {2, 3}
    assert all(not clips.wave[i, n:].any() for i, n in enumerate(clips.length.tolist()))


def test_own_recordings_in_every_form():
    wave = np.array([0.5, -1.0, 1.0], np.float64)
    entries = [(wave, 1), (torch.tensor([0.25, 0.25]), np.int64(0)), (np.array([5, -5], np.int16), torch.tensor(2))]
    clips = own.own_clips(entries, transcripts=False)
    assert clips.wave.tolist() == [[16384, -32768, 32767], [8192, 8192, 0], [5, -5, 0]]
    assert clips.length.tolist() == [3, 2, 2] and clips.labels.tolist() == [1, 0, 2]
    assert own.own_clips([(wave, " nine  two ")], transcripts=True).texts == ("nine two",)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (3, r"samples\[0\] is not a pair"),
        ((np.zeros((2, 2)), 1), "one axis"),
        ((np.zeros(0), 1), "one axis"),
        ((np.array([2.0]), 1), r"floats in \[-1, 1\]"),
        ((np.array([np.nan]), 1), r"floats in \[-1, 1\]"),
        ((np.array([7], np.int32), 1), "want int16"),
        ((np.zeros(3), "one"), "want a class"),
        ((np.zeros(3), -1), "want a class"),
        ((np.zeros(3), 0.5), "want a class"),
    ],
)
def test_own_recordings_that_are_none(entry, said):
    with pytest.raises(DataError, match=said):
        own.own_clips([entry], transcripts=False)


def test_own_transcripts_that_are_none():
    for label in (3, "", "  "):
        with pytest.raises(DataError, match="want a transcript"):
            own.own_clips([(np.zeros(3), label)], transcripts=True)
    with pytest.raises(DataError, match="empty"):
        own.own_clips([], transcripts=True)
    with pytest.raises(DataError, match="4 at most"):
        own.own_clips([(np.zeros(5), 1)], transcripts=False, length=4)


@pytest.mark.realdata
def test_free_spoken_digits(data_dir):
    assert data.word_sizes("fsdd") == {"train": 2700, "test": 300}
    clips = data.keywords("fsdd", "test")
    assert clips.wave.shape == (300, 8000)
    assert torch.bincount(clips.labels).tolist() == [30] * 10
    lines = data.utterances("fsdd", "test")
    assert lines.wave.shape == (200, 16000) and {len(t.split()) for t in lines.texts} == {2, 3}
    name = sorted((data_dir / "speech" / "fsdd").glob("*.wav"))[0]
    assert np.array_equal(data.read_wave(name), soundfile.read(str(name), dtype="int16")[0])
