import base64
import re
import struct
import zlib

import numpy as np
import pytest
import torch

from advgym.core.task import make_task
from advgym.envs.image.show.pictures import signed
from advgym.lib.media import png, uri


def unpack(address):
    """The pixels of a PNG data URI with filter 0 in every row, its checksums checked."""
    raw = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    at, parts = 8, {}
    while at < len(raw):
        (size,), kind = struct.unpack(">I", raw[at : at + 4]), raw[at + 4 : at + 8]
        body, crc = raw[at + 8 : at + 8 + size], raw[at + 8 + size : at + 12 + size]
        assert zlib.crc32(kind + body) == int.from_bytes(crc, "big")
        parts[kind], at = body, at + 12 + size
    w, h, depth, colour, *_ = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert depth == 8
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(h, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(h, w, {0: 1, 2: 3, 6: 4}[colour])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_round_trip(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    assert np.array_equal(unpack(uri("image/png", png(pixels))), pixels)


def test_signed_difference_has_sign_as_hue_and_size_as_opacity():
    change = torch.tensor([[[0.0, 0.5], [-1.0, 1.0]]])
    rgba = signed(change, 1.0)
    assert rgba[..., 3].tolist() == [[0, 128], [255, 255]]
    assert rgba[0, 1, :3].tolist() == rgba[1, 1, :3].tolist() != rgba[1, 0, :3].tolist()
    assert not signed(change * 0, 0.0)[..., 3].any()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("image/digits-linf", r"^2/16 in L-infinity on \d+ of 64 pixels$"),
        ("image/digits-l2", r"^0\.\d+ in L2 on \d+ of 64 pixels$"),
        ("image/digits-pixel", r"^[1-5] of 64 pixels set$"),
    ],
)
def test_lines_and_pictures(name, words):
    task = make_task(name)
    batch = task.samples("test", [4, 5])
    form = batch.look(batch.random(1)).form
    line = task.line(batch, 1, form[1])
    assert re.match(words, line)
    seven, three = torch.tensor(7), torch.tensor(3)
    assert task.line(batch, 1, form[1], seven, three) == f"7 -> 3, {line}"
    html = task.show(batch, 1, form[1], seven, three)
    images = [unpack(uri) for uri in re.findall(r'src="([^"]+)"', html)]
    assert len(images) == 3 == html.count("alt=") == html.count("image-rendering:pixelated")
    seen = batch.inputs(form)[1, 0]
    assert np.array_equal(images[1][..., 0], (seen * 255).round().byte().numpy())
    assert np.array_equal(images[2][..., 3] > 0, (seen != batch.x[1, 0]).numpy())
    assert line in html and "var(--bad)" in html and "<script" not in html and len(html) < 6000
    same = task.show(batch, 1, form[1], seven, seven)
    assert "var(--good)" in same and "var(--bad)" not in same


def test_the_null_perturbation_and_colour_images_are_shown_too():
    samples = [(torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)), 0)]
    for name in ("image/linf", "image/l2", "image/pixel"):
        task = make_task(name, victim=lambda x: x.flatten(1)[:, :2], samples=samples)
        batch = task.samples("test", [0])
        form = batch.look(batch.null()).form
        assert "nan" not in task.show(batch, 0, form[0], torch.tensor(0), torch.tensor(0))
        assert task.line(batch, 0, form[0]).split(" of ")[0].endswith("0")
