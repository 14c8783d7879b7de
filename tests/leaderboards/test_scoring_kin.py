"""Copies are named with who was first; the gap between public and hidden phases is shown."""

import msgspec
import pytest
from scored import entry

from advgym.leaderboards.entries.kin import copies, gap


def team(name, when, **over):
    hashes = {"submission": f"files-{name}", "code": f"code-{name}", "transcript": f"moves-{name}"}
    return msgspec.structs.replace(entry(0.5, name=name, created=f"2026-01-{when:02}"), team=name, **{**hashes, **over})


@pytest.mark.parametrize(
    ("field", "says"), [("submission", "same files"), ("code", "same code"), ("transcript", "same moves")]
)
def test_a_copy_is_named_and_the_first_is_not(field, says):
    first, second = team("ann", 1), team("bob", 2)
    second = msgspec.structs.replace(second, **{field: getattr(first, field)})
    for order in ([first, second], [second, first]):
        found = copies(order)
        assert list(found) == [second.id] and says in found[second.id][0] and "'ann' of ann" in found[second.id][0]


def test_a_team_may_repeat_itself_and_empty_hashes_are_not_alike():
    again = team("ann", 2, submission="files-ann")
    assert copies([team("ann", 1), again]) == {}
    assert copies([team("ann", 1, code="", submission="", transcript=""),
                   team("bob", 2, code="", submission="", transcript="")]) == {}  # fmt: skip


def test_moves_are_compared_within_a_phase():
    one, two = team("ann", 1), team("bob", 2, transcript="moves-ann", phase="test")
    assert copies([one, two]) == {}


def test_a_lowered_or_marked_version_keeps_its_time():
    first, copier = team("ann", 1), team("bob", 2, code="code-ann")
    marked = msgspec.structs.replace(first, created="2026-01-09", footnote="x", supersedes=first.id)
    assert list(copies([first, copier, marked])) == [copier.id]
    assert list(copies([copier, marked])) == [marked.id]  # without the first version nobody can know


def test_the_gap_is_between_dev_and_the_rest():
    dev, other = team("ann", 1), team("ann", 3, phase="test")
    dev = msgspec.structs.replace(dev, headline=msgspec.structs.replace(dev.headline, value=0.9))
    assert gap(other, [dev, other]) == pytest.approx(0.4)
    assert gap(dev, [dev, other]) is None and gap(team("bob", 1, phase="test"), [dev]) is None
