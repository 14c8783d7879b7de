"""Recordings and recognisers as strangers bring them: a named error, or a result that says what was done."""

import json

import numpy as np
import pytest
import soundfile
import torch

import advgym
from advgym.core.task import make_task
from advgym.core.victim import Victim
from advgym.errors import AdvgymError, DataError, VictimError


def tone(samples: int = 800, peak: float = 0.4) -> np.ndarray:
    return peak * np.sin(2 * np.pi * 300 * np.arange(samples) / 8000)


class Letters(torch.nn.Module):
    """Says "ab" to what is loud, nothing to silence; eight frames, blank first, letters " ab"."""

    def forward(self, x):
        loud = (x.square().mean(1) * 100).clamp(max=3).unsqueeze(1)
        quiet = torch.ones_like(loud)
        frames = [torch.cat([quiet, 0 * loud, *pair], 1) for pair in ((loud, 0 * loud), (0 * loud, loud))]
        rest = torch.cat([quiet, 0 * loud, 0 * loud, 0 * loud], 1)
        return torch.stack([frames[0], frames[1], *[rest] * 6], 1)


def louder(x):
    level = x.square().mean(1)
    return torch.stack([0.01 - level, level - 0.01], 1)


def transcribe(samples, **options):
    return make_task("speech/transcribe", victim=Letters(), alphabet=" ab", samples=samples, **options)


@pytest.mark.parametrize(
    ("wave", "said"),
    [
        (np.zeros(0), "at least one"),
        (np.zeros((0, 2)), "at least one"),
        (np.full(100, np.nan), "values up to nan"),
        (np.array([0.1, np.inf]), "values up to inf"),
        (np.full(100, 1.5), r"values up to 1.5; want floats in \[-1, 1\]"),
        (np.full(100, 20000, np.int32), "is int32; want int16"),
        (np.zeros((3, 4, 5)), "one axis of samples"),
        (np.zeros((900, 900)), "one axis of samples"),
        ("nowhere.wav", "there is no file nowhere.wav"),
        (b"not a sound", "cannot be read as a sound file"),
    ],
)
def test_waveforms_that_are_none(wave, said):
    with pytest.raises(DataError, match=rf"samples\[1\].*{said}"):
        make_task("speech/keyword", victim=louder, samples=[(tone(), 0), (wave, 1)])


def test_files_without_a_sample(tmp_path):
    soundfile.write(str(tmp_path / "empty.wav"), np.zeros(0), 8000)
    with pytest.raises(DataError, match="the recording is empty"):
        make_task("speech/keyword", victim=louder, samples=[(str(tmp_path / "empty.wav"), 0)])


def test_stereo_at_another_rate_is_mixed_resampled_and_said(tmp_path):
    left = np.stack([tone(4410), np.zeros(4410)], 1)
    soundfile.write(str(tmp_path / "cd.wav"), left, 44100, subtype="PCM_24")
    found = advgym.attack(
        "speech/keyword", "noise", victim=Victim(louder, card={"rate": 16000}), samples=[(str(tmp_path / "cd.wav"), 1)],
        queries=3,
    )  # fmt: skip
    task = make_task("speech/keyword", victim=Victim(louder, card={"rate": 16000}),
                     samples=[(str(tmp_path / "cd.wav"), 1)])  # fmt: skip
    assert set(task.notes) == {
        "1 recording(s) of 44100 Hz are resampled to 16000 Hz",
        "1 recording(s) of several channels are mixed down to their mean",
    }
    assert found.attacked == 1 and task.samples("test", [0]).x.shape == (1, 1600)


def test_a_clipped_recording_stays_within_full_scale():
    clipped = np.clip(tone(peak=3.0), -1, 1)
    task = make_task("speech/keyword", victim=louder, samples=[(clipped, 1)], eps=0.3)
    assert "1 recording(s) are clipped: 4 samples or more in a row at full scale" in task.notes
    batch = task.samples("test", [0])
    form = batch.look(torch.full_like(batch.x, 0.3)).form
    assert form.max() <= 32767 / 32768 and form.min() >= -1


def test_silence_as_clean_input():
    silent = [(np.zeros(800), 0), (tone(), 1)]
    task = make_task("speech/keyword", victim=louder, samples=silent)
    assert "1 recording(s) are silent" in task.notes
    found = advgym.attack("speech/keyword", "noise", victim=louder, samples=silent, queries=5, eps=0.3)
    assert found.attacked == 2 and json.dumps(found.success_rate)
    for norm in ("snr", "dbx"):
        with pytest.raises(DataError, match=r"samples 0.*silent"):
            make_task("speech/keyword", victim=louder, samples=silent, norm=norm)
    with pytest.raises(DataError, match="want a transcript"):
        transcribe([(np.zeros(800), "")])
    task = transcribe([(np.zeros(800), "ab"), (tone(), "ab")])  # says nothing to it: not right, so not attacked
    batch = task.samples("test", [0, 1])
    assert task.goal.right(task.victim(batch.x), batch.labels).tolist() == [False, True]


def test_clips_of_a_few_samples():
    task = make_task("speech/keyword", victim=louder, samples=[(tone(3), 0), (tone(1), 0)])
    assert "2 recording(s) are shorter than 25 ms" in task.notes
    assert task.samples("test", [0, 1]).length.tolist() == [3, 1]
    for norm, value in (("linf", {}), ("snr", {"snr": 5.0})):
        short = [(np.full(3, 0.4), 0), (tone(), 1)]
        found = advgym.attack(
            "speech/keyword", "pgd", victim=torch.nn.Sequential(Loud()), samples=short, norm=norm, queries=5, **value
        )
        assert found.attacked == 2
    with pytest.raises(VictimError, match=r"fails on a float32 batch of waveforms \(1, 3\)"):
        make_task("speech/synth-keyword", victim=Net(), dataset=None, samples=[(tone(3), 0)])


class Loud(torch.nn.Module):
    def forward(self, x):
        return louder(x)


class Net(torch.nn.Module):
    """Needs 400 samples, as many front ends do."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(1, 10, 400)

    def forward(self, x):
        return self.conv(x.unsqueeze(1)).mean(2)


def test_letters_and_lengths_that_a_recogniser_has_not():
    samples = [(tone(), "ab"), (tone(700), "a b")]
    with pytest.raises(AdvgymError, match=r"samples\[0\]: no symbol for 'x'"):
        transcribe([(tone(), "x")])
    with pytest.raises(AdvgymError, match=r"samples\[0\].*at most 8"):
        transcribe([(tone(), "ab ab ab ab")])
    task = transcribe(samples, goal="targeted")
    with pytest.raises(AdvgymError, match="no symbol for 'z'"):
        task.goal.parse_target("zoo")
    with pytest.raises(AdvgymError, match="more than the 8 frames"):
        task.goal.parse_target("aaaaa")  # five letters and four blanks between them
    for target, said in (("zoo", "no symbol"), ("ababababab", "frames")):
        with pytest.raises(AdvgymError, match=said):
            advgym.attack("speech/transcribe", "pgd", victim=Letters(), alphabet=" ab", samples=samples,
                          goal="targeted", targets=[target, "b"], queries=3)  # fmt: skip


@pytest.mark.parametrize("rate", [0, -1, float("nan"), "fast", 8000.5])
def test_rates_that_are_none(rate):
    with pytest.raises(AdvgymError, match="whole number of samples per second"):
        make_task("speech/keyword", victim=louder, samples=[(tone(), 0)], rate=rate)
    with pytest.raises(AdvgymError, match="the rate of victim 'own'"):
        make_task("speech/keyword", victim=Victim(louder, card={"rate": rate}), samples=[(tone(), 0)])


def test_a_model_of_transformers_plays_and_its_result_is_verified(tmp_path):
    transformers = pytest.importorskip("transformers")
    from advgym.judge.verdict import verify

    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "|": 1, "A": 2, "B": 3}))
    transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_kernel=(10, 8), conv_stride=(5, 40), num_feat_extract_layers=2, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, vocab_size=4, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(1)
    model = transformers.Wav2Vec2ForCTC(config)
    model.lm_head.weight.data.mul_(60)
    model.save_pretrained(tmp_path)
    waves = [np.random.default_rng(i).normal(0, 0.1, 1600 - 300 * i).clip(-1, 1) for i in range(3)]
    name = f"transformers:{tmp_path}"
    probe = make_task("speech/transcribe", victim=name, samples=[(w, "a") for w in waves])
    assert probe.context["rate"] == 16000 and probe.goal.alphabet == " AB"
    said = probe.goal.output(probe.victim(probe.samples("test", [0, 1, 2]).x)).tolist()
    samples = [(w, probe.goal.text(ids).lower()) for w, ids in zip(waves, said, strict=True) if any(i > 1 for i in ids)]
    assert samples
    found = advgym.attack("speech/transcribe", "pgd", victim=name, samples=samples, queries=12, eps=0.1)
    assert found.attacked == len(samples) and found.victim["name"] == f"speech-{name}"
    task = make_task("speech/transcribe", victim=name, samples=samples, queries=12, eps=0.1)
    assert verify(found, task=task) == []
