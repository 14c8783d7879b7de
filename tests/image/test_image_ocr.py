"""The recogniser of text lines: what is read off its frames, its preparation, and the real one where there is one."""

import importlib.util
import itertools

import pytest
import torch

from advgym import AdvgymError, attack, make_task
from advgym.core.kinds.sequences import SequenceGoal
from advgym.envs.image.data.lines import rendered
from advgym.envs.image.victims import ocr

torch.set_num_threads(1)
INSTALLED = all(importlib.util.find_spec(p) for p in ("onnxruntime", ocr.PACKAGE))


def test_what_is_written_is_the_greedy_ctc_reading():
    g = torch.Generator().manual_seed(0)
    logs = torch.randn(40, 9, 4, generator=g).log_softmax(2)
    goal = SequenceGoal(list("abc"), 6, joined="".join)
    said = goal.output(ocr.written(logs, 6))
    for row, out in zip(logs.argmax(2).tolist(), said.tolist(), strict=True):
        read = [k for k, _ in itertools.groupby(row) if k]
        assert [k for k in out if k >= 0] == read[:5]


def test_a_character_has_the_scores_of_the_frame_where_it_begins():
    logs = torch.full((1, 5, 3), -9.0)
    for frame, token in enumerate((0, 2, 2, 0, 1)):
        logs[0, frame, token] = -0.1 * frame
    out = ocr.written(logs, 4)
    assert out[0, 0, 2] == pytest.approx(-0.1) and out[0, 1, 1] == pytest.approx(-0.4)
    assert out[0, 2:].argmax(1).tolist() == [0, 0] and bool(out.isfinite().all())


def test_lines_are_prepared_as_the_model_wants_them():
    x = torch.rand(2, 3, 24, 50)
    y = ocr.prepared(x)
    assert y.shape == (2, 3, 48, 320) and bool((y[..., 100:] == 0).all())
    assert torch.allclose(ocr.prepared(torch.rand(1, 1, 48, 400)).amin(), torch.tensor(-1.0), atol=0.01)
    flat = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 48, 320)
    assert ocr.prepared(flat)[0, :, 0, 0].tolist() == pytest.approx([0.2, -0.2, -0.6], abs=1e-6)


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    with pytest.raises(AdvgymError, match="no model at"):
        ocr.recogniser("", source=str(tmp_path / "none.onnx"))
    monkeypatch.setattr(ocr.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AdvgymError, match="needs rapidocr_onnxruntime, which is not installed"):
        ocr.recogniser("", source="rec")
    with pytest.raises(AdvgymError, match="pixels wide"):
        rendered(["far too long a line " * 10])


@pytest.mark.skipif(not INSTALLED, reason="rapidocr-onnxruntime is not installed")
def test_the_real_one_reads_and_is_attacked_by_characters():
    task = make_task(
        "image/caption", victim="rapidocr:rec", samples=rendered(["Amsterdam", "Total due"]), knowledge="score",
        goal="error-rate", rate=0.3, eps="64/255", queries=12,
    )  # fmt: skip
    assert [task.goal.describe(r) for r in task.samples("test", [0, 1]).labels] == ["Amsterdam", "Total due"]
    result = attack(task, "square", episodes=2, lanes=2)
    assert result.clean_accuracy == 1 and result.queries_mean <= 12
