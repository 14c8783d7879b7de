"""A recogniser of text lines as a victim: an image of one line in, characters out; ONNX Runtime, scores alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core.kinds.sequences import END
from advgym.core.victim import Victim
from advgym.errors import AdvgymError, DataError
from advgym.lib.extras import missing, need

PACKAGE, MODEL = "rapidocr_onnxruntime", "ch_PP-OCRv4_rec_infer.onnx"
HEIGHT, WIDTH = 48, 320  # of what the model reads: this height, at least this width
LOW = -30.0  # of what is not written where the text has ended; log-probabilities are cut there


class Recogniser:
    """x (n, C, H, W) in [0, 1] to log-probabilities (n, T, 1 + V) of the characters that are read.

    Args:
        path: a CTC recogniser of the PaddleOCR family as ONNX, its characters in its metadata.
        length: T, the end among them; what is read beyond is cut.

    Raises:
        AdvgymError: without ONNX Runtime.
        DataError: for a file that is no such model.
    """

    def __init__(self, path: Path, length: int) -> None:
        onnxruntime = need("onnxruntime", "rapidocr:MODEL")
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise DataError(f"{path} is no ONNX model that can be read: {str(error).splitlines()[0]}") from error
        said = self.session.get_modelmeta().custom_metadata_map.get("character", "")
        if not said:
            raise DataError(f"{path} does not name its characters (metadata `character`, one a line)")
        self.characters, self.length = [*said.split("\n"), " "], length
        self.asked = self.session.get_inputs()[0].name

    def __call__(self, x: Tensor) -> Tensor:
        (found,) = self.session.run(None, {self.asked: prepared(x).cpu().numpy()})[:1]
        logs = torch.from_numpy(found).to(x.device).clamp_min(1e-13).log()
        if logs.shape[2] != len(self.characters) + 1:
            raise DataError(f"the model scores {logs.shape[2]} tokens and names {len(self.characters)} characters")
        return written(logs, self.length)


def prepared(x: Tensor) -> Tensor:
    """What the model is given: (n, 3, 48, W), blue first, in [-1, 1], grey to the right of a short line."""
    x = x.detach().float()
    x = (x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x).flip(1)
    wide = max(round(HEIGHT * x.shape[3] / x.shape[2]), 1)
    if x.shape[2:] != (HEIGHT, wide):
        x = F.interpolate(x, (HEIGHT, wide), mode="bilinear", align_corners=False)
    return F.pad(2 * x - 1, (0, max(WIDTH - wide, 0)))


def written(logs: Tensor, length: int) -> Tensor:
    """Frames (n, F, 1 + V), token 0 the blank, to scores (n, T, 1 + V) of the characters of the greedy reading.

    Character k has the scores of the frame where it begins. After the last one stands the end, and nothing else.
    """
    best = logs.argmax(2)
    begins = (best != END) & (best != F.pad(best, (1, 0), value=END)[:, :-1])
    place = begins.cumsum(1) - 1
    out = logs.new_full((len(logs), length, logs.shape[2]), LOW)
    out[..., END] = 0.0
    lane, frame = (begins & (place < length - 1)).nonzero(as_tuple=True)
    out[lane, place[lane, frame]] = logs[lane, frame]
    return out


def recogniser(name: str, *, source: str, length: int = 32) -> Victim:
    """The recogniser of RapidOCR (`rapidocr:rec`), or another one of its kind (`rapidocr:FILE.onnx`).

    One character is one word of its output, so that `error-rate` is a rate of characters.

    Raises:
        AdvgymError: where the package is missing, or the file.
    """
    if source == "rec":
        found = importlib.util.find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise missing(PACKAGE, "rapidocr:rec, unless it is rapidocr:FILE.onnx,") or AdvgymError(PACKAGE)
        path = Path(found.submodule_search_locations[0]) / "models" / MODEL
    else:
        path = Path(source)
    if not path.is_file():
        raise DataError(f"no model at {path}: rapidocr:rec is the one of the package, rapidocr:FILE.onnx your own")
    model = Recogniser(path, length)
    card = {"source": path.name, "architecture": "CTC", "words": model.characters, "length": length, "joined": ""}
    return Victim(model, name=name or source, access="scores", card=card)
