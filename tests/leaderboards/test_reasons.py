"""Reason codes: the table is whole, and a refusal says what its author needs."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advgym.errors import AdvgymError
from advgym.leaderboards.rules import reasons
from advgym.leaderboards.rules.reasons import LONGEST, Refused, find, table, text, tidy

# What the rest of the house raises, by blame.
PLATFORM = {"worker-lost", "no-device", "victim-error", "sandbox-error", "internal-error"}


def test_the_platform_is_to_blame_for_its_own_faults_alone():
    assert {code for code, row in table().items() if row.blame == "platform"} == PLATFORM
    assert not any(
        "given back" in table()[code].say for code in table()
    )  # what became of the quota is said by the state


@pytest.mark.parametrize("code", table())
def test_every_sentence_takes_any_detail(code):
    said = text(code, "{evil} {0} %s {detail.__class__}")
    assert ("{evil}" in said) == ("{detail}" in find(code).say)
    assert "\n" not in said and said == said.strip()
    assert not text(code).endswith((": ", ":")) and "{" not in text(code)


def test_an_unknown_code_is_an_error_that_names_the_nearest():
    with pytest.raises(AdvgymError, match="did you mean 'bad-card'"):
        Refused("bad-crad")


def test_a_refusal_carries_code_blame_and_text():
    error = Refused("crashed", "ValueError\nat agent.py, line 3\x1b[31m")
    assert (error.code, error.blame) == ("crashed", "participant")
    assert error.detail == "ValueError at agent.py, line 3 [31m"
    assert str(error) == error.text == "the code raised ValueError at agent.py, line 3 [31m"
    assert isinstance(error, AdvgymError)
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # worker processes send it home
        assert (other.code, other.detail, str(other)) == (error.code, error.detail, str(error))


@given(st.text(max_size=3 * LONGEST))
def test_tidy_is_one_printable_line_and_settles(detail):
    line = tidy(detail)
    assert len(line) <= LONGEST and line.isprintable() and line == line.strip()
    assert tidy(line) == line


def test_the_table_refuses_a_blame_that_is_none(tmp_path, monkeypatch):
    (tmp_path / "reasons.toml").write_text('[x]\nblame = "nobody"\nsay = "y"\n')
    monkeypatch.setattr(reasons, "__file__", str(tmp_path / "reasons.py"))
    with pytest.raises(Exception, match="nobody"):
        table.__wrapped__()
