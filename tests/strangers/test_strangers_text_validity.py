"""What "kept" means stands beside it: a stated precision on what people judged, and a sentence where it is printed."""

import csv

import numpy as np
import pytest

import advgym
from advgym.cli import printing
from advgym.envs.text.measures import validity
from advgym.envs.text.measures.validity import Relations, default_relations, score
from advgym.judge import columns, results
from advgym.report.page import _measured

LINE = "her voice was clear and strong in the hall , and the audience was very fond of it from the first note on"


def test_the_sentence_stands_beside_the_rate(tmp_path):
    file = str(tmp_path / "r.json")
    advgym.attack("text/synth-wordswap", "greedy", episodes=8, lanes=8, queries=40, out=file)
    result = results.load(file)
    printed = "\n".join(printing.column_lines(result))
    page = dict(_measured(result))["Kept"]
    for said in (printed, page, page.lower()):
        assert "0.58" in said and "% of held-out pairs of claims were judged kept" in said
        assert "nobody of ten judges accepts 40 %" in said
    assert printed.index("success with kept") < printed.index("nobody of ten judges") < printed.index("means over")
    assert [c.bar for _, c in columns.barred(result)] == [validity.bar()] == [0.58]
    assert advgym.verify(file) == []


def test_a_shared_synset_is_no_evidence():
    """Of any sense: the word is known, so it is no slip of the keyboard, and the change is a hard one."""
    known = Relations({"clear": ["plain"]}, {"voice": ["articulation"]})
    mild, listed, hard = score([LINE] * 3, [LINE.replace(*s) for s in
                               (("clear", "plain"), ("voice", "articulation"), ("hall", "zebra"))], known)  # fmt: skip
    assert mild > 0.58 > 0.4 > listed == hard


@pytest.mark.realdata
def test_voice_is_no_articulation(data_dir):
    """.82 once, and called kept."""
    assert score(["her voice was clear"], ["her articulation was clear"])[0] < 0.4
    assert {"counter-fitted", "wordnet"} <= set(default_relations().sources)


@pytest.mark.realdata
def test_the_bar_has_its_precision(data_dir):
    with (data_dir / "text" / "validity" / "pairs-dev.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = np.array([float(r["label"]) == 0 for r in rows])
    called = score([r["original"] for r in rows], [r["adversarial"] for r in rows]) >= validity.bar()
    found = validity.calibration()["bar"]
    assert kept[called].mean() >= found["asked"] == 0.95 and kept[called].mean() == pytest.approx(
        found["precision"], abs=0.03
    )
    assert called.sum() == pytest.approx(found["pairs"], abs=8)
