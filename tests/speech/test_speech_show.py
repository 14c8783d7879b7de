"""What the report shows of a recording: valid pictures and sounds, safe text."""

import base64
import io
import re
import wave
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from advgym.cli.app import main
from advgym.core.task import make_task
from advgym.envs.speech.show import recording as show
from advgym.envs.speech.show.aligned import alignment, table
from advgym.lib.media import png


@pytest.fixture(scope="module")
def shown() -> str:
    task = make_task("speech/synth-transcribe")
    batch = task.samples("test", [0, 1])
    form = batch.look(batch.random(0)).form
    out = task.goal.output(task.victim(form))
    return task.show(batch, 1, form[1], out[1], out[0])


def test_fragments_are_self_contained_and_well_formed(shown):
    assert "script" not in shown and "http" not in shown
    tree = ElementTree.fromstring(shown.replace(" controls ", ' controls="" '))
    images, sounds = tree.findall(".//image"), tree.findall(".//audio")
    assert len(images) == len(sounds) == 3 and len(tree.findall(".//svg/title")) == 4
    assert all(s.get("aria-label") for s in sounds) and tree.find(".//svg/title") is not None
    assert {i.get("href")[:22] for i in images} == {"data:image/png;base64,"}
    with wave.open(io.BytesIO(base64.b64decode(sounds[0].get("src").split(",")[1]))) as sound:
        assert (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) == (8000, 2, 1)
    assert len(shown) < 250_000


def test_pictures_have_axes(shown):
    said = re.findall(r"<text[^>]*>([^<]*)</text>", shown)
    assert {"1 kHz", "4 kHz", "0.5 s", "no change", "+30 dB"} <= set(said)


def test_changed_words_are_marked_and_aligned():
    html = table([("clean", "one two six"), ("perturbed", "<b>nine one two")])
    tree = ElementTree.fromstring(html)
    cells = [["".join(c.itertext()) for c in row] for row in tree.iter("tr")]
    assert cells == [["clean", "", "one", "two", "six"], ["perturbed", "<b>nine", "one", "two", "–"]]
    assert [m.text for m in tree.iter("mark")] == ["<b>nine"]
    assert table([("a", ""), ("b", "")]) and alignment([], ["x"]) == [("", "x")]


def test_the_signed_scale_is_grey_where_nothing_changes():
    x = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    from matplotlib import image

    def colours(y):
        loudest = float(show.power_db(x, 8000).max())
        return image.imread(io.BytesIO(show.change_picture(x, y, 8000, loudest)), format="png")[..., :3].mean((0, 1))

    same, more, less = colours(x), colours(x * 4), colours(x / 4)
    assert np.ptp(same) < 0.03 and more[0] > more[2] + 0.2 and less[2] > less[0] + 0.2


@pytest.mark.parametrize("name", ["speech/synth-universal", "speech/synth-prepend"])
def test_bundles_are_shown_and_listed(name):
    task = make_task(name, utterances=2)
    batch = task.judged("test", [0])
    form = batch.look(batch.random(0)).form
    out = task.goal.output(task.victim(batch.inputs(form)).view(1, 2, *task.goal.inner.scores_shape))
    shown = task.show(batch, 0, form[0], out[0], out[0])
    ElementTree.fromstring(shown.replace(" controls ", ' controls="" '))
    assert "the other 1 clips" in shown and shown.count("<audio") == 3
    assert task.line(batch, 0, form[0]).startswith("2 clips of bundle 0")


def test_pairs_are_saved_as_they_were_heard(tmp_path):
    task = make_task("speech/synth-keyword")
    batch = task.samples("test", [7, 4])
    form = batch.look(batch.random(0)).form
    files = task.save(tmp_path / "new", batch, 1, form[1])
    assert [f.name for f in files] == ["00004-clean.wav", "00004-adversarial.wav", "00004-difference.wav"]
    read = []
    for path in files:
        with wave.open(str(path)) as sound:
            assert (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) == (8000, 2, 1)
            read.append(np.frombuffer(sound.readframes(10**6), "<i2").astype(int))
    assert len(read[0]) == int(batch.length[1]) and np.array_equal(read[1] - read[0], read[2])
    assert np.array_equal(read[1], np.round(form[1, : len(read[0])].numpy() * 32768).astype(int))


def test_the_command_line_saves_pairs_and_refuses_other_domains(tmp_path, capsys):
    folder = tmp_path / "clips"
    told = ["attack", "speech/synth-keyword", "--agent", "noise", "--episodes", "2", "--clean", "2"]
    assert main([*told, "--save-audio", str(folder)]) == 0
    assert len(list(folder.iterdir())) == 6
    assert main(["attack", "image/digits-linf", "--agent", "noise", "--save-audio", str(folder)]) == 2
    assert "image/digits-linf has none" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "file").write_text("")
    assert main([*told, "--save-audio", str(tmp_path / "file")]) == 2


def test_texts_are_escaped():
    task = make_task("speech/synth-keyword")
    task.goal.labels = ["<b>&"] * 10
    batch = task.samples("test", [0])
    shown = task.show(batch, 0, batch.x[0], torch.tensor(0), torch.tensor(1))
    assert "<b>" not in shown and "&lt;b&gt;&amp;" in shown and "unchanged" in shown


def test_wav_is_exact():
    x = np.array([-32768, -1, 0, 7, 32767], np.int16)
    with wave.open(io.BytesIO(show.wav(x.astype(np.float32) / 32768, 8000))) as sound:
        assert np.array_equal(np.frombuffer(sound.readframes(5), "<i2"), x)


def test_png_is_a_picture():
    from matplotlib import image

    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = np.stack([np.arange(256)] * 3, 1).astype(np.uint8)
    read = image.imread(io.BytesIO(png(pixels, palette)), format="png")
    assert np.array_equal(np.round(read[..., 0] * 255).astype(np.uint8), pixels)


def test_a_tone_is_bright_at_its_frequency():
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000).astype(np.float32)
    power = show.power_db(tone, 8000)
    assert power.shape[0] == 129 and (power[:, 20:60].argmax(0) == 32).all()


def test_lines():
    task = make_task("speech/synth-keyword")
    batch = task.samples("test", [4])
    two = torch.tensor(2)
    assert task.line(batch, 0, batch.x[0], two, two) == "two -> two, unchanged"
    asked = task.victim.model.register_forward_hook(lambda *_: pytest.fail("a line is no query"))
    assert task.line(batch, 0, batch.x[0] / 10).startswith("clip 4, 0.")
    asked.remove()
