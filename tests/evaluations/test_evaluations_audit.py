"""An audit from its plan to its files: worst case per sample, kept rows, exit codes, the verifier."""

import csv
import json

import msgspec
import pytest
import yaml

import advgym
from advgym import AdvgymError
from advgym.cli.audit import code
from advgym.evaluations import report
from advgym.evaluations.again import check
from advgym.evaluations.groups import _parts
from advgym.judge import results
from advgym.lib.rates import wilson


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    found = advgym.audit("synth-bag", budget="quick", episodes=40, out=folder, command="advgym audit synth-bag")
    return found, folder


def test_the_worst_case_is_per_sample(made):
    found, folder = made
    rows = {r.name: results.load(folder / r.file) for r in found.rows}
    assert list(rows) == ["white-box", "score", "transfer"]
    held = {s.id for s in rows["white-box"].samples}
    for result in rows.values():
        held -= {s.id for s in result.samples if s.success}
    assert found.robust_accuracy == len(held) / 40 and found.robust_ci == wilson(len(held), 40)
    assert found.robust_accuracy <= min(r.robust_accuracy for r in found.rows)
    groups = [g for g in found.groups if g.by == "class"]
    assert sum(g.held for g in groups) == len(held) and sum(g.samples for g in groups) == 40


def test_what_lies_in_the_folder(made):
    found, folder = made
    assert report.load(folder / "audit.json") == found
    with (folder / "samples.csv").open() as lines:
        table = list(csv.DictReader(lines))
    assert len(table) == 40 and sum(row["robust"] == "True" for row in table) == round(found.robust_accuracy * 40)
    assert (folder / "samples.parquet").stat().st_size > 100
    card = (folder / "model-card.md").read_text()
    about = yaml.safe_load(card.split("---")[1])["model-index"][0]
    assert about["results"][0]["metrics"][1]["value"] == round(found.robust_accuracy, 4)
    page = (folder / "audit.html").read_text()
    assert "How robust is synth-bag" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_a_second_run_keeps_the_rows_and_another_seed_does_not(made):
    found, folder = made
    heard: list[str] = []
    again = advgym.audit("synth-bag", budget="quick", episodes=40, out=folder, told=heard.append,
                         command="advgym audit synth-bag")  # fmt: skip
    assert sum("kept from before" in line for line in heard) == 3
    assert again.robust_accuracy == found.robust_accuracy and again.rows == found.rows
    other = advgym.audit("synth-bag", budget="quick", episodes=8, seed=5)
    assert other.seed == 5 and {f.check for f in other.findings} >= {"few"}


def test_the_verifier_reads_it(made, tmp_path):
    _, folder = made
    assert check(folder / "audit.json")[1] == []
    told = msgspec.json.decode((folder / "audit.json").read_bytes())
    (tmp_path / "rows").mkdir()
    for row in told["rows"]:
        (tmp_path / row["file"]).write_bytes((folder / row["file"]).read_bytes())
    told["robust_accuracy"] = 0.9
    told["rows"][0]["success_rate"] = 0.1
    (tmp_path / "audit.json").write_bytes(msgspec.json.encode(told))
    wrong = check(tmp_path / "audit.json")[1]
    assert len(wrong) == 2 and any("robust accuracy" in line for line in wrong)
    file = tmp_path / told["rows"][1]["file"]
    row = json.loads(file.read_text())
    row["samples"][0]["success"] = not row["samples"][0]["success"]
    file.write_text(json.dumps(row))
    assert any(line.startswith("score: sample") for line in check(tmp_path / "audit.json")[1])


def test_exit_codes(made):
    found, _ = made
    low = found.robust_ci[0]
    assert code(found, None) == 0 and code(found, low) == 0 and code(found, low + 0.01) == 1
    assert code(found, found.robust_accuracy, point=True) == 0
    void = msgspec.structs.replace(found, void=True)
    assert code(void, None) == 2 and code(void, 0.0) == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [({"budget": "enormous"}, "unknown budget"), ({"episodes": 0}, "at least 1"), ({"split": "moon"}, "split")],
)
def test_plain_errors(more, words):
    with pytest.raises(AdvgymError, match=words):
        advgym.audit("digits-cnn", **more)


def test_a_query_that_costs_more_than_the_budget():
    with pytest.raises(AdvgymError, match="one query of"):
        advgym.audit("synth-bag", task="text/synth-trigger", budget="quick", texts=128)


def test_a_task_tells_what_its_samples_are():
    made = advgym.make_task("graph/sbm-edge")
    told = made.tells("test", [0, 1, 2])
    graph, target = made.context["edge_index"], made.samples("test", [0, 1, 2]).target
    assert told["degree"] == [int((graph[0] == t).sum()) for t in target]
    assert all(0 <= share <= 1 for share in told["homophily"])
    assert advgym.make_task("text/synth-wordswap").tells("test", [0])["words"][0] > 3


def test_numbers_are_cut_into_thirds():
    named, order = _parts([5, 1, 3, 2, 4, 6], numbers=True)
    assert order == ["1 to 2", "3 to 4", "5 to 6"] and named[0] == "5 to 6"
    assert _parts([1, 1, 1], numbers=True)[1] == ["1"]
    assert _parts(["b", "a"], numbers=False) == (["b", "a"], ["a", "b"])
