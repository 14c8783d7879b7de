"""Recordings of any origin: layouts, rates, channels, depths, and what is said of them."""

import json

import numpy as np
import pytest
import soundfile
import torch

from advgym.core.task import make_task
from advgym.core.victim import Victim
from advgym.envs.speech import symbols
from advgym.envs.speech.data import readers
from advgym.envs.speech.data.clips import LEVELS, pack
from advgym.envs.speech.data.decoding import Said, at_rate, check_rate, one_row, resampled, tell
from advgym.errors import AdvgymError, DataError


def tone(rate: int = 16000, seconds: float = 0.1, hertz: float = 440.0, peak: float = 0.5) -> np.ndarray:
    return peak * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def write(path, wave=None, rate=16000, subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), tone(rate) if wave is None else wave, rate, subtype=subtype)
    return path


def loud(x: torch.Tensor) -> torch.Tensor:
    """Two classes by loudness."""
    level = x.square().mean(1)
    return torch.stack([0.01 - level, level - 0.01], 1)


def classifier(rate: int | None = 16000, **card):
    return Victim(loud, card={**card, **({} if rate is None else {"rate": rate})})


def read(dataset, **options):
    return readers.read(str(dataset), transcripts=options.pop("transcripts", False))


# -- layouts -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
def test_tables(tmp_path, kind):
    write(tmp_path / "a.wav"), write(tmp_path / "sub" / "b.flac", rate=8000)
    rows = [{"path": "a.wav", "text": "yes", "label": 1}, {"path": "sub/b.flac", "text": "no, no", "label": 0}]
    table = tmp_path / f"clips.{kind}"
    if kind in ("csv", "tsv"):
        mark = "\t" if kind == "tsv" else ","
        lines = [mark.join(rows[0]), *(mark.join(f'"{v}"' for v in row.values()) for row in rows)]
        table.write_text("\n".join(lines))
    else:
        table.write_text(json.dumps(rows) if kind == "json" else "\n".join(json.dumps(r) for r in rows))
    for where in (table, tmp_path):
        found = read(where, transcripts=True)
        assert [r.label for r in found] == ["yes", "no, no"] and found[1].sound == tmp_path / "sub" / "b.flac"
        pairs, said = readers.waves(read(where), rate=16000)
        assert [int(v) for _, v in pairs] == [1, 0] and [len(w) for w, _ in pairs] == [1600, 1600]
        assert said.notes(16000) == ("1 recording(s) of 8000 Hz are resampled to 16000 Hz",)


def test_librispeech_and_folders_of_labels(tmp_path):
    libri, words = tmp_path / "libri", tmp_path / "words"
    write(libri / "1" / "2" / "1-2-0000.flac"), write(libri / "1" / "2" / "1-2-0001.flac")
    (libri / "1" / "2" / "1-2.trans.txt").write_text("1-2-0000 HELLO THERE\n1-2-0001 GOOD BYE\n")
    assert [r.label for r in read(libri, transcripts=True)] == ["HELLO THERE", "GOOD BYE"]
    for name in ("yes/a.wav", "yes/b.wav", "no/c.wav", "_background_noise_/hum.wav"):
        write(words / name)
    assert [r.label for r in read(words)] == ["no", "yes", "yes"]
    assert len(read(f"{words}?limit=2")) == 2
    (words / "testing_list.txt").write_text("yes/b.wav\n")
    (words / "validation_list.txt").write_text("")
    assert [r.sound.name for r in read(words)] == ["b.wav"]
    assert [r.sound.name for r in read(f"{words}?split=train")] == ["c.wav", "a.wav"]
    write(tmp_path / "split" / "test" / "on" / "x.wav"), write(tmp_path / "split" / "train" / "off" / "x.wav")
    assert [r.label for r in read(tmp_path / "split")] == ["on"]
    task = make_task("speech/keyword", victim=classifier(), dataset=f"{words}?split=train")
    assert task.sizes == {"test": 2} and "labels are numbered in alphabetical order: 0 no, 1 yes" in task.notes
    named = make_task("speech/keyword", victim=classifier(names=["Yes", "No"]), dataset=f"{words}?split=train")
    assert named.samples("test", [0, 1]).labels.tolist() == [1, 0]


def test_objects_of_torchaudio_and_datasets(tmp_path):
    import datasets
    import pyarrow

    (
        write(tmp_path / "SpeechCommands" / "v" / "yes" / "a.wav"),
        write(tmp_path / "SpeechCommands" / "v" / "no" / "b.wav"),
    )
    paths = [("v/yes/a.wav", 16000, "yes", "sp", 0), ("v/no/b.wav", 16000, "no", "sp", 0)]

    class Commands(list):  # as torchaudio's SPEECHCOMMANDS: paths relative to its archive
        _archive = str(tmp_path / "SpeechCommands")

        def get_metadata(self, i):
            return self[i]

    found = readers.rows_of(Commands(paths), "samples", transcripts=False)
    assert [(r.sound.name, r.label) for r in found] == [("a.wav", "yes"), ("b.wav", "no")]
    features = datasets.Features({"audio": datasets.Audio(), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"audio": [{"bytes": None, "path": str(r.sound)} for r in found], "label": [1, 0]}
    schema = features.arrow_schema  # through arrow: encoding a column anew needs FFmpeg
    table = datasets.Dataset(datasets.table.InMemoryTable(pyarrow.Table.from_pydict(rows, schema=schema)))
    assert [r.label for r in readers.rows_of(table, "samples", transcripts=False)] == ["yes", "no"]
    assert make_task("speech/keyword", victim=classifier(), samples=table).sizes == {"test": 2}
    table.save_to_disk(str(tmp_path / "saved"))
    table.to_parquet(str(tmp_path / "t.parquet"))
    for where in (tmp_path / "saved", tmp_path / "t.parquet"):
        pairs, _ = readers.waves(read(where), rate=16000)
        assert [v for _, v in pairs] == ["yes", "no"] and len(pairs[0][0]) == 1600
    decoded = [{"audio": {"array": tone(), "sampling_rate": 8000}, "text": "a b"}]
    pairs, said = readers.waves(readers.rows_of(decoded, "samples", transcripts=True), rate=16000)
    assert len(pairs[0][0]) == 3200 and said.rates == {8000: 1}
    triples = [(torch.zeros(1, 100), 8000, "yes", "speaker", 3)]
    assert len(readers.waves(readers.rows_of(triples, "samples", transcripts=False), rate=16000)[0][0][0]) == 200


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "path,text\nx.wav", "line 2: 1 fields"),
        ("a.csv", "where,what\nx.wav,a", r"\?path=COLUMN"),
        ("a.csv", "path,what\nx.wav,a", r"\?text=COLUMN"),
        ("a.csv", "path,text\nx.wav,a", "line 2: there is no file .*x.wav"),
        ("a.csv", "path,text\na.csv,a", "cannot be read as a sound file"),
        ("a.csv", "path,text\n", "holds no recording"),
        ("a.jsonl", '{"path": 1', "line 1: not JSON"),
        ("a.jsonl", "[1]", "line 1: want"),
        ("a.json", "[{]", "not JSON"),
        ("a.jsonl", '{"path": "x.wav", "text": null}', "missing or empty"),
        ("a.txt", "x", "kind of table"),
    ],
)
def test_tables_that_are_none(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(AdvgymError, match=said):
        readers.waves(read(tmp_path / name, transcripts=True), rate=8000)


def test_folders_and_names_that_are_none(tmp_path):
    with pytest.raises(DataError, match=r"no transcripts; want a \.csv"):
        read(tmp_path, transcripts=True)
    with pytest.raises(DataError, match="no recordings in folders"):
        read(tmp_path)
    with pytest.raises(DataError, match="no file or folder"):
        read("/nowhere/at/all")
    with pytest.raises(DataError, match="limit is a whole number"):
        read(f"{write(tmp_path / 'yes' / 'a.wav').parents[1]}?limit=none")
    with pytest.raises(AdvgymError, match="did you mean 'label'"):
        read(f"{tmp_path}?labels=x")
    (tmp_path / "libri.trans.txt").write_text("1-1 HELLO\n")
    with pytest.raises(DataError, match="line 1: no recording 1-1"):
        read(tmp_path, transcripts=True)


# -- rates, channels, depths ---------------------------------------------------------------------------------------
def test_a_tone_keeps_its_pitch_and_level_at_another_rate():
    said = Said()
    for old, new in ((44100, 16000), (8000, 16000), (16000, 8000)):
        found = at_rate(tone(old, 1.0), old, new, said)
        assert found.dtype == np.int16 and abs(len(found) - new) <= 1
        power = np.abs(np.fft.rfft(found[: new - 1] / LEVELS))
        assert power.argmax() * new / (new - 1) == pytest.approx(440, abs=1.1)
        assert np.abs(found[100:-100]).max() / LEVELS == pytest.approx(0.5, abs=0.01)
    assert said.rates == {44100: 1, 8000: 1, 16000: 1}
    same = np.array([1, -2], np.int16)
    assert at_rate(same, 8000, 8000, said) is same


def test_clips_at_another_rate_keep_their_padding():
    waves = [np.full(n, 9000, np.int16) for n in (800, 500)]
    found = resampled(pack(waves, 900, ["", ""]), 8000, 16000)
    assert found.wave.shape == (2, 1800) and found.length.tolist() == [1600, 1000]
    assert not found.wave[1, 1000:].any() and found.wave.dtype == torch.int16


def test_depths_and_channels(tmp_path):
    wave = tone()
    exact, _ = readers.waves([readers.Row("a", write(tmp_path / "a.wav"), None, 0)], rate=16000)
    assert exact[0][0].dtype == np.int16
    deep = readers.Row("b", write(tmp_path / "b.wav", wave, subtype="PCM_24"), None, 0)
    pairs, _ = readers.waves([deep], rate=16000)
    assert np.abs(pairs[0][0] - wave).max() < 2**-22
    both = np.stack([wave, np.zeros_like(wave)], 1)
    pairs, said = readers.waves([readers.Row("c", write(tmp_path / "c.wav", both), None, 0)], rate=16000)
    assert said.mixed == 1 and np.abs(pairs[0][0] - wave / 2 * LEVELS).max() < 1.01
    for shape in (both, both.T, torch.from_numpy(both)):
        assert np.allclose(one_row(shape, "x", Said()), wave / 2)
    task = make_task(
        "speech/keyword", victim=classifier(8000), samples=[(str(tmp_path / n), 0) for n in ("b.wav", "c.wav")]
    )
    assert set(task.notes) == {
        "2 recording(s) of 16000 Hz are resampled to 8000 Hz",
        "1 recording(s) of several channels are mixed down to their mean",
    }
    deep_alone = make_task("speech/keyword", victim=classifier(), samples=[(str(tmp_path / "b.wav"), 0)])
    assert deep_alone.notes == ("waveforms are rounded to 16 bits",)


def test_what_is_odd_is_told():
    said = Said()
    tell(np.zeros(4000, np.int16), 16000, said)
    tell(np.full(4000, 32767, np.int16), 16000, said)
    tell(np.array([0.5, 1.0, 1.0, 0.2]), 16000, said)
    assert (said.silent, said.clipped, said.short) == (1, 1, 1)
    assert len(said.notes(8000)) == 3


@pytest.mark.parametrize("rate", [0, -8000, float("nan"), float("inf"), 8000.5, "fast", None, True, 10**9])
def test_rates_that_are_none(rate):
    with pytest.raises(AdvgymError, match="whole number of samples per second"):
        check_rate(rate, "rate")


def test_the_victims_rate_decides(tmp_path):
    path = write(tmp_path / "a.wav", rate=44100)
    for rate in (8000, 16000):
        task = make_task("speech/keyword", victim=classifier(rate), samples=[(str(path), 0), (tone(rate), 1)])
        assert task.context["rate"] == rate and task.samples("test", [0]).x.shape[1] == rate // 10
        assert f"1 recording(s) of 44100 Hz are resampled to {rate} Hz" in task.notes
    said = make_task("speech/keyword", victim=classifier(16000), samples=[(tone(8000), 0)], rate=8000)
    assert said.samples("test", [0]).x.shape[1] == 1600
    plain = make_task("speech/keyword", victim=classifier(None), samples=[(tone(16000), 0)], rate=16000)
    assert plain.context["rate"] == 16000 and plain.samples("test", [0]).x.shape[1] == 1600
    embedded = make_task("speech/synth-keyword", victim=Victim(lambda x: x[:, :10], card={"rate": 16000}))
    assert embedded.samples("test", [0]).x.shape == (1, 12800) and embedded.context["rate"] == 16000
    assert any("8000 Hz are resampled to 16000" in note for note in embedded.notes)
    for bad in (0, float("nan"), "x"):
        with pytest.raises(AdvgymError, match="samples per second"):
            make_task("speech/keyword", victim=classifier(None), samples=[(tone(), 0)], rate=bad)
    with pytest.raises(AdvgymError, match="rate of victim"):
        make_task("speech/keyword", victim=classifier(-1), samples=[(tone(), 0)])


# -- letters -------------------------------------------------------------------------------------------------------
def test_transcripts_are_written_in_the_victims_letters():
    assert symbols.spelled("Hello, world - it's", " 'ABDEHILORSTW") == "HELLO WORLD IT'S"
    assert symbols.spelled("Six.", symbols.ALPHABET) == "six" and symbols.spelled("aB.", "aB.") == "aB."
    with pytest.raises(AdvgymError, match="no symbol for 'É'"):
        symbols.encode("café", "ACF")

    def recogniser(x):
        out = torch.zeros(len(x), 12, 4)
        out[:, :, 0] = 1
        out[:, 1, 2] = out[:, 3, 3] = 2  # "AB"
        return out

    card = {"alphabet": " AB", "blank": 0, "rate": 8000}
    task = make_task("speech/transcribe", victim=Victim(recogniser, card=card), samples=[(tone(8000), "ab.")],
                     goal="targeted")  # fmt: skip
    assert task.goal.alphabet == " AB"
    batch = task.samples("test", [0])
    assert task.goal.right(task.victim(batch.x), batch.labels).all()
    assert task.goal.text(task.goal.parse_target("b, a").tolist()) == "B A"
    own = make_task("speech/transcribe", victim=Victim(recogniser, card=card), samples=[(tone(8000), "xy")],
                    alphabet=" xy")  # fmt: skip
    assert own.goal.alphabet == " xy"  # what the caller says comes first
