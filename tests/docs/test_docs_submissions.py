"""The table of reason codes in the documentation is the one in force."""

from pathlib import Path

from advgym.leaderboards.rules.reasons import table

PAGE = Path(__file__).parents[2] / "docs" / "submissions.md"


def test_every_reason_is_documented_as_it_is():
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `") and line.count("|") == 4]
    said = {line.split("`")[1]: line for line in rows if line.split("`")[1] in table()}
    assert list(said) == list(table())
    for code, reason in table().items():
        assert f"| {reason.blame} |" in said[code]
        assert reason.say.replace("{detail}", "…") in said[code]
