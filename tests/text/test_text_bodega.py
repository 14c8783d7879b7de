"""BODEGA's submission files: read, and scored again from our own originals."""

import json

import pytest

from advgym import DataError
from advgym.envs.text.measures.bodega import HEADER, Claim, read_originals, read_submission, rescore, rescore_files

ORIGINALS = ["the film is good", "a dull and lifeless story", "it works\nsomehow", "a fine cast"]


def victim(texts):
    """1 for praise by its words."""
    return [[0.0, 1.0] if {"good", "fine", "works"} & set(t.split()) else [1.0, 0.0] for t in texts]


def claims():
    return [
        Claim(True, 12, ORIGINALS[0], "the film is great"),  # holds
        Claim(True, 3, "a dull story", "a dull and lifeless tale"),  # the answer stays; another original
        Claim(False, 99, ORIGINALS[2], "ATTACK FAILED"),
        Claim(True, 1, ORIGINALS[3], "A  FINE  CAST"),  # case alone: no edit to BODEGA
    ]


def write(path, rows, header=True, tab="\t"):
    lines = ["\t".join(HEADER) + tab] if header else []
    escaped = [[str(r.succeeded), str(r.queries), r.original, r.modified] for r in rows]
    lines += ["\t".join(c.replace("\n", "\\n") for c in row) + tab for row in escaped]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    attack = tmp_path / "attack.tsv"
    attack.write_text("".join(f"1\tsource {i}\t{t}\n" for i, t in enumerate(x.replace("\n", "\\n") for x in ORIGINALS)))
    return write(tmp_path / "submission.tsv", claims()), attack


@pytest.mark.parametrize(("header", "tab"), [(True, "\t"), (False, ""), (True, "")])
def test_a_file_is_read_as_it_was_written(tmp_path, header, tab):
    assert read_submission(write(tmp_path / "s.tsv", claims(), header, tab)) == claims()


def test_paired_originals_are_joined(tmp_path):
    path = tmp_path / "attack.tsv"
    path.write_text("0\tx\tone\ttwo\n1\ty\tthree\tfour\n")
    assert read_originals(path) == ["one ~ two", "three ~ four"]


def test_what_the_file_claims_is_only_compared(files):
    from advgym import Victim

    found = rescore(read_submission(files[0]), read_originals(files[1]), Victim(victim, access="scores"))
    assert (found.texts, found.claimed, found.verified) == (4, 3, 2)
    assert found.false_claims == [1] and found.altered_originals == [1]
    assert found.success_rate == 0.5 and found.success_ci[0] < 0.5 < found.success_ci[1]
    case = found.rows[3]
    assert case.character == 1.0 and case.before == 1 and case.after == 0 and case.kept > 0.5
    assert found.score == pytest.approx(sum(r.kept * r.character for r in found.rows if r.success) / 4)
    assert rescore_files(*files, Victim(victim, access="scores")) == found


def test_an_original_that_suits_its_author_changes_nothing(files, tmp_path):
    """The task's scorer took the original from the file: a near copy of the modified text scored highly."""
    from advgym import Victim

    suited = [Claim(c.succeeded, 1, c.modified, c.modified) for c in claims()]
    path = write(tmp_path / "suited.tsv", suited)
    plain, cheat = (rescore_files(p, files[1], Victim(victim, access="scores")) for p in (files[0], path))
    assert [r.score for r in cheat.rows] == [r.score for r in plain.rows]
    assert cheat.altered_originals == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("True\t1\ta\n", "line 1: 3 columns"),
        ("maybe\t1\ta\tb\n", "line 1: succeeded is true or false"),
        ("True\tmany\ta\tb\n", "line 1: num_queries is a whole number"),
        ("\t".join(HEADER) + "\n", "holds no lines"),
    ],
)
def test_broken_files_name_the_line(tmp_path, text, says):
    path = tmp_path / "s.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        read_submission(path)


def test_missing_files_and_other_lengths(files, tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_submission(tmp_path / "none.tsv")
    with pytest.raises(DataError, match="3 lines for 4 originals"):
        rescore(claims()[:3], ORIGINALS, victim)
    (tmp_path / "latin.tsv").write_bytes(b"True\t1\t\xe9\tb\n")
    with pytest.raises(DataError, match="not utf-8"):
        read_submission(tmp_path / "latin.tsv")


def test_the_command_prints_json_alone(files, capsys):
    from advgym.cli.app import main

    code = main(["rescore", str(files[0]), "--originals", str(files[1]), "--victim", "synth-bag", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 1 and found["texts"] == 4 and len(found["rows"]) == 4


def test_a_format_that_nobody_reads_is_named(files, capsys):
    from advgym.cli.app import main

    assert main(["rescore", str(files[0]), "--originals", str(files[1]), "--victim", "synth-bag", "--format", "bodge"])
    assert "did you mean 'bodega'" in "".join(capsys.readouterr())
