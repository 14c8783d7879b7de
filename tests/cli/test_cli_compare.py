"""`advgym compare`, and the columns that `advgym attack` prints."""

import json

import pytest

TASK = "image/digits-linf"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from advgym import attack

    folder = tmp_path_factory.mktemp("compared")
    for agent in ("random-search", "noise"):
        attack(TASK, agent, episodes=12, lanes=12, out=folder / f"{agent}.json", queries=10)
    attack(TASK, "noise", episodes=6, lanes=12, out=folder / "fewer.json", queries=10)
    return folder


def test_two_agents_side_by_side(advgym, files):
    answer = advgym("compare", files / "random-search.json", files / "noise.json")
    assert answer.code == 0, answer.err
    for word in ("random-search", "noise", "McNemar", "Newcombe", "sign test", "both", "A alone"):
        assert word in answer.out


def test_json_alone_on_stdout(advgym, files):
    answer = advgym("compare", files / "random-search.json", files / "noise.json", "--json")
    found = json.loads(answer.out)
    assert found["attacked"] == len(found["samples"]) and 0 <= found["mcnemar_p"] <= 1
    assert found["difference_ci"][0] <= found["difference"] <= found["difference_ci"][1]


def test_what_cannot_be_paired_is_said(advgym, files, tmp_path):
    answer = advgym("compare", files / "noise.json", files / "fewer.json")
    assert answer.code == 2 and "attacked samples" in answer.err and "fewer.json" in answer.err
    assert advgym("compare", files / "noise.json", tmp_path / "none.json").code == 2


def test_attack_prints_valid_success_and_the_report_has_it(advgym, tmp_path):
    page = tmp_path / "r.html"
    answer = advgym("attack", "text/synth-wordswap", "--agent", "greedy", "--episodes", 6, "--lanes", 6,
                    "--set", "queries=60", "--report", page)  # fmt: skip
    assert (
        answer.code == 0
        and "success with kept of at least 0.58" in answer.out
        and "nobody of ten judges" in answer.out
        and "words_changed" in answer.out
    )
    assert " at 25, " in answer.out
    assert "success, kept ≥ 0.5" in page.read_text() and "Words changed" in page.read_text()


@pytest.mark.parametrize(
    ("measure", "words"), [("perplexity", "COLUMN=MODEL"), ("=x", "COLUMN=MODEL"), ("beauty=x", "unknown measure")]
)
def test_bad_measures_are_explained(advgym, measure, words):
    answer = advgym("attack", "text/synth-wordswap", "--agent", "noise", "--episodes", 2, "--measure", measure)
    assert answer.code == 2 and words in answer.err
