"""What the report shows of a recording: valid pictures and sounds, safe text."""

import base64
import io
import re
import wave
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from advgym.core.task import make_task
from advgym.envs.speech.show import recording as show
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
    tree = ElementTree.fromstring(re.sub(r"(<img [^>]*)>", r"\1/>", shown).replace(" controls ", ' controls="" '))
    images, sounds = tree.findall(".//img"), tree.findall(".//audio")
    assert len(images) == len(sounds) == 2 and all(i.get("alt") for i in images)
    assert all(s.get("aria-label") for s in sounds) and tree.find(".//svg/title") is not None
    assert {i.get("src")[:22] for i in images} == {"data:image/png;base64,"}
    with wave.open(io.BytesIO(base64.b64decode(sounds[0].get("src").split(",")[1]))) as sound:
        assert (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) == (8000, 2, 1)
    assert len(shown) < 150_000


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
