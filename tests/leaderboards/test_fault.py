"""What a failure says of itself: everything to its author, a class at most while samples are hidden."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advgym.leaderboards.boundary.fault import CLASSES, OTHER, Fault, known
from advgym.leaderboards.rules import reasons

# Reasons that a submission can bring about after it was dealt samples; with "crashed" goes one of the classes.
LATER = (
    "crashed", "malformed", "bad-request", "exited", "cpu-limit", "wall-limit", "memory-limit", "process-limit",
    "output-limit", "job-limit",
)  # fmt: skip
MINUTES = 33  # durations that are told apart at most (docs/cheats.md)


@pytest.mark.parametrize(
    ("fault", "said", "told"),
    [
        (Fault(code="crashed", kind="ZeroDivisionError", text="division by zero", file="agent.py", line=3, dealt=True),
         "ZeroDivisionError: division by zero (agent.py, line 3)", "ZeroDivisionError"),
        (Fault(code="crashed", kind="OSError", text="on import: /secret", file="agent.py", line=1),
         "OSError: on import: /secret (agent.py, line 1)", "OSError (agent.py, line 1)"),
        (Fault(code="crashed", kind="Label3OfSample7", text="x", file="agent.py", line=3, dealt=True),
         "Label3OfSample7: x (agent.py, line 3)", OTHER),
        (Fault(code="crashed", text="labels are: 3 1 4 1 5 9", dealt=True), "labels are: 3 1 4 1 5 9", ""),
        (Fault(code="crashed", text="pixels of hidden sample 0 are 0077", dealt=True),
         "pixels of hidden sample 0 are 0077", ""),
        (Fault(code="memory-limit", text="2056 MB used, 2048 MB allowed", dealt=True),
         "2056 MB used, 2048 MB allowed", ""),
        (Fault(code="syntax-error", text="invalid syntax", file="agent.py", line=9),
         "invalid syntax (agent.py, line 9)", "agent.py, line 9"),
    ],
)  # fmt: skip
def test_what_is_said_and_what_is_told(fault: Fault, said: str, told: str) -> None:
    assert fault.said() == said and fault.told() == told


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60), st.integers(-(2**40), 2**40))
def test_no_word_of_a_stranger_leaves_once_samples_were_dealt(kind: str, text: str, file: str, line: int) -> None:
    told = Fault(code="crashed", kind=kind, text=text, file=file, line=line, dealt=True).told()
    assert told in (*CLASSES, "")


def test_a_submission_tells_at_most_ten_bits_beside_its_score() -> None:
    """Reasons and classes, one for what fails before anything was dealt, two ways of being scored; times durations."""
    assert len(CLASSES) == len(set(CLASSES)) == 16
    assert all(reasons.find(code).blame == "participant" for code in LATER)
    ways = len(CLASSES) + len(LATER) - 1 + 1 + 2
    assert math.log2(ways * MINUTES) <= 10


def test_subclasses_are_told_by_their_nearest() -> None:
    assert [known(k) for k in ("ModuleNotFoundError", "UnicodeDecodeError", "RecursionError", "TimeoutError")] == [
        "ImportError", "ValueError", "RuntimeError", "OSError"
    ]  # fmt: skip
    assert known("print") == known("KeyboardInterrupt") == known("") == OTHER
