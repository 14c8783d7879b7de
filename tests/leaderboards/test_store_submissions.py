"""The quota, the states, and what a team may see."""
# ruff: noqa: F811  (fixtures are imported by name)

import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_servers import clock, store, url  # noqa: F401

from advgym.errors import AdvgymError
from advgym.leaderboards.rules.board_tables import Quota
from advgym.leaderboards.rules.reasons import Refused
from advgym.leaderboards.store import jobs, submissions

SHA = "0" * 64
MANY = Quota(per_day=1000, total=1000)


def submit(store, team="reds", quota=MANY, board="image", phase="dev", **more):
    return submissions.submit(store, team, board, phase, "attack", SHA, {"name": "mine"}, quota, **more)


def test_a_submission_waits_in_the_queue(store):
    ids = [submit(store) for _ in range(3)]
    assert len(set(ids)) == 3
    assert [submissions.status(store, id).position for id in ids] == [1, 2, 3]
    found = submissions.status(store, ids[0])
    assert (found.state, found.team, found.name, found.blob, found.counted) == ("queued", "reds", "mine", SHA, True)
    assert (found.reason, found.text, found.log, found.entry, found.started, found.finished) == ("", "", "", "", 0, 0)
    assert submissions.status(store, "nothing") is None
    assert submissions.counts(store) == {"queued": 3, "running": 0, "scored": 0, "failed": 0, "cancelled": 0}
    assert submissions.counts(store, "text")["queued"] == 0
    msgspec.json.encode(found)


def test_the_quota_of_a_day_ends_at_midnight_utc(store, clock):
    clock.now = 1_800_000_000.0 // 86400 * 86400 + 80000
    quota = Quota(per_day=2, total=5)
    for _ in range(2):
        submit(store, quota=quota)
    with pytest.raises(Refused, match=r"2 of 2 today \(UTC\); the next is free in 1\.8 hours") as caught:
        submit(store, quota=quota)
    assert caught.value.code == "over-quota"
    clock.now += 6400
    assert submissions.spent(store, "reds", "image", "dev") == (0, 2)
    for _ in range(2):
        submit(store, quota=quota)
    clock.now += 86400
    submit(store, quota=quota)
    with pytest.raises(Refused, match="5 of 5 in this phase"):
        submit(store, quota=quota)
    assert submissions.counts(store)["queued"] == 5


def test_each_team_phase_and_board_has_its_own_quota(store):
    one = Quota(per_day=1, total=1)
    for team, board, phase in [("reds", "image", "dev"), ("blues", "image", "dev"), ("reds", "image", "test"),
                               ("reds", "text", "dev")]:  # fmt: skip
        submit(store, team, one, board, phase)
        with pytest.raises(Refused):
            submit(store, team, one, board, phase)


def test_the_same_key_finds_the_first_submission_and_takes_nothing(store):
    one = Quota(per_day=1, total=1)
    first = submit(store, quota=one, key="k\x00" * 500)
    assert submit(store, quota=one, key="k\x00" * 500) == first
    assert submissions.spent(store, "reds", "image", "dev") == (1, 1)
    assert submit(store, "blues", one, key="k\x00" * 500) != first
    with pytest.raises(Refused):
        submit(store, quota=one, key="another")


def test_threads_cannot_overdraw(store):
    quota, taken, refused = Quota(per_day=5, total=100), [], []

    def run():
        for _ in range(4):
            try:
                taken.append(submit(store, quota=quota))
            except Refused:
                refused.append(1)

    crowd = [threading.Thread(target=run) for _ in range(4)]
    [t.start() for t in crowd]
    [t.join() for t in crowd]
    assert len(taken) == 5 and len(refused) == 11
    assert submissions.counts(store)["queued"] == 5


def test_one_key_sent_by_many_threads_at_once_is_one_submission(store):
    found = []
    crowd = [threading.Thread(target=lambda: found.append(submit(store, key="same"))) for _ in range(6)]
    [t.start() for t in crowd]
    [t.join() for t in crowd]
    assert len(found) == 6 and len(set(found)) == 1


def test_cancelled_before_it_runs_gives_the_quota_back(store):
    one = Quota(per_day=1, total=1)
    id = submit(store, quota=one)
    assert submissions.cancel(store, id, "reds")
    assert not submissions.cancel(store, id, "reds")
    found = submissions.status(store, id)
    assert (found.state, found.reason, found.counted, found.position) == ("cancelled", "cancelled", False, 0)
    assert jobs.claim(store, "w", 60) is None
    submit(store, quota=one)


def test_cancelled_while_it_runs_gives_nothing_back_and_stops_the_worker(store):
    one = Quota(per_day=1, total=1)
    id = submit(store, quota=one)
    job = jobs.claim(store, "w", 60)
    assert submissions.cancel(store, id)
    assert not jobs.heartbeat(store, job, "w", 60)
    assert not jobs.fail(store, job, "w", "crashed")
    assert submissions.status(store, id).state == "cancelled"
    with pytest.raises(Refused):
        submit(store, quota=one)


def test_another_teams_submission_cannot_be_cancelled_nor_told_from_none(store):
    id = submit(store)
    words = []
    for wanted in (id, "s000000000000"):
        with pytest.raises(AdvgymError) as caught:
            submissions.cancel(store, wanted, "blues")
        words.append(str(caught.value).replace(wanted, "ID"))
    assert words[0] == words[1]
    assert submissions.status(store, id).state == "queued"


def test_a_hidden_phase_withholds_the_log_until_it_is_revealed(store, clock):
    open_, hidden = submit(store), submit(store, phase="test", hidden=True)
    for _ in range(2):
        job = jobs.claim(store, "w", 60)
        jobs.fail(store, job, "w", "crashed", "ValueError, agent.py line 3 " + "x" * 400, "labels: 3 1 4 1 5")
    assert submissions.status(store, open_).log == "labels: 3 1 4 1 5"
    clock.now += submissions.STEP_S
    found = submissions.status(store, hidden)
    assert found.log == "" and "ValueError, agent.py line 3" in found.text and len(found.text) < 160
    assert submissions.status(store, hidden, full=True).log == "labels: 3 1 4 1 5"
    assert [s.log for s in submissions.listing(store)] == ["", "labels: 3 1 4 1 5"]
    assert submissions.reveal(store, "image", "dev") == 0
    assert submissions.reveal(store, "image", "test") == 1
    assert submissions.status(store, hidden).log == "labels: 3 1 4 1 5"


def test_the_list_is_cut_by_team_board_and_state(store):
    a, b, c = submit(store), submit(store, "blues"), submit(store, board="text")
    jobs.claim(store, "w", 60)

    def ids(**cut):
        return [s.id for s in submissions.listing(store, **cut)]

    assert ids() == [c, b, a] and ids(limit=2) == [c, b]
    assert ids(team="blues") == [b] and ids(board="image") == [b, a] and ids(state="running") == [a]
    assert ids(team="' or 1=1 --") == []
    assert [s.position for s in submissions.listing(store)] == [2, 1, 0]
    for found in submissions.listing(store):
        assert found == submissions.status(store, found.id)


def test_logs_with_control_characters_are_kept_without_them(store):
    id = submit(store)
    job = jobs.claim(store, "w", 60)
    assert jobs.fail(store, job, "w", "crashed", "a\x00b", "line\n\x00\x1b[31m\ud800\ttail\x9b")
    assert submissions.status(store, id).log == "line\n[31m?\ttail"


@given(st.text(max_size=30000))
def test_a_log_keeps_its_first_and_last_4_kb(log):
    kept = jobs.cut(log)
    whole = submissions.clean(log)
    assert len(kept) <= 2 * jobs.LOG_PART + 60
    assert kept == whole or (kept.startswith(whole[:4096]) and kept.endswith(whole[-4096:]) and len(whole) > 8192)
    assert all(c in "\n\t" or c.isprintable() or ord(c) >= 0xA0 for c in kept)


def fail(store, job):
    return jobs.fail(store, job, "w", "crashed", "ValueError")


def score(store, job):
    return jobs.finish(store, job, "w", "e" * 16)


def lose(store, job):
    return jobs.fail(store, job, "w", "internal-error")


@pytest.mark.parametrize("step", [60, 240])
@pytest.mark.parametrize("end", [fail, score, lose])
def test_a_hidden_phase_tells_an_end_in_steps_of_time_and_no_progress(store, clock, end, step):
    """Whoever polls sees the same whenever in a step the job ended; the organiser sees all at once."""
    clock.now = 1_800_000_000.0 // 3600 * 3600
    tellings = set()
    for second in (1, 7, step // 2, step - 1):
        clock.now = clock.now // 86_400 * 86_400 + 86_400  # another day: refunds are capped by it
        began, id = clock.now, submit(store, phase="test", hidden=True)
        clock.now = began + 13
        job = jobs.claim(store, "w", 9999)
        jobs.heartbeat(store, job, "w", 9999, 3, 7)
        clock.now, seen = began + 2 * step + second, []
        assert end(store, job)
        whole = submissions.status(store, id, full=True)
        assert (whole.state, whole.finished, whole.done > 0) == (
            "scored" if end is score else "failed",
            clock.now,
            True,
        )
        while clock.now < began + 4 * step:
            s = submissions.status(store, id, steps=lambda board: step)
            assert (s.done, s.total, s.worker) == (0, 0, "")
            assert not (s.created % 60 or s.started % 60 or s.finished % 60)
            if clock.now < began + 3 * step:
                assert (s.state, s.finished, s.reason, s.text, s.blame, s.entry, s.counted) == (
                    "running", 0, "", "", "", "", True,
                )  # fmt: skip
            (listed,) = [x for x in submissions.listing(store, steps=lambda board: step) if x.id == id]
            assert listed == s
            seen.append((s.state, s.started - began, s.finished and s.finished - began, s.reason, s.counted))
            clock.now += 29 if clock.now % 30 == 0 else 0.5 if clock.now % 30 == 29 else 30 - clock.now % 30
        tellings.add(tuple(dict.fromkeys(seen)))
    assert len(tellings) == 1


def test_a_cancelled_job_is_so_at_once(store, clock):
    id = submit(store, phase="test", hidden=True)
    jobs.claim(store, "w", 60)
    assert submissions.cancel(store, id)
    assert submissions.status(store, id).state == "cancelled"


def test_of_a_job_on_a_hidden_phase_at_most_33_durations_are_told():
    import datetime as dt

    from advgym.leaderboards.rules.board import told_step
    from advgym.leaderboards.rules.board_tables import Board, Limits

    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for most in (60, 599, 600, 1920, 1921, 7200, 86_400, 604_800):
        step = told_step(Board("t", day, day, [], {}, limits=Limits(job_s=most)))
        assert step % 60 == 0
        starts = range(step)
        told = {(start + most) // step - start // step for start in starts} | {0}
        assert max(told) <= 32, "0 to 32 steps"
    assert 29 * 33 == 957 < 2**10
