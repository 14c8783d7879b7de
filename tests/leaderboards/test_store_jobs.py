"""The queue: leases, attempts, one end for each job; and a machine that tries everything in any order."""
# ruff: noqa: F811  (fixtures are imported by name)

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from store_servers import Clock, clock, fresh, store, url  # noqa: F401

from advgym.errors import AdvgymError
from advgym.leaderboards.rules.board_tables import Quota
from advgym.leaderboards.rules.reasons import Refused
from advgym.leaderboards.store import jobs, submissions
from advgym.leaderboards.store.db import open_store

SHA = "0" * 64


def submit(store, team="reds", per_day=1000, **more):
    quota = Quota(per_day=per_day, total=1000)
    return submissions.submit(store, team, "image", "dev", "attack", SHA, {"name": "mine", "kind": ["field"]}, quota,
                              **more)  # fmt: skip


def test_jobs_are_claimed_in_the_order_they_came(store, clock):
    ids = [submit(store) for _ in range(3)]
    claimed = [jobs.claim(store, f"w{i}", 60) for i in range(4)]
    assert [j and j.id for j in claimed] == [*ids, None]
    job = claimed[0]
    assert (job.board, job.phase, job.track, job.team, job.blob, job.attempt) == (
        "image", "dev", "attack", "reds", SHA, 1,
    )  # fmt: skip
    assert job.card == {"name": "mine", "kind": ["field"]} and job.hidden is False
    assert submissions.status(store, ids[0]).state == "running"
    assert submissions.status(store, ids[0]).started == clock.now


def test_no_job_is_claimed_twice_by_many_threads(url):
    shared = open_store(url)
    ids = {submit(shared) for _ in range(60)}
    got, lock = [], threading.Lock()

    def work(name):
        own = open_store(url)
        while job := jobs.claim(own, name, 60):
            with lock:
                got.append(job.id)
            assert jobs.finish(own, job, name, "0" * 16)
        own.close()

    crowd = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    [t.start() for t in crowd]
    [t.join() for t in crowd]
    assert len(got) == 60 and set(got) == ids
    assert submissions.counts(shared)["scored"] == 60
    shared.close()


def test_a_heartbeat_keeps_the_lease_and_tells_how_far(store, clock):
    id = submit(store)
    job = jobs.claim(store, "w", 60)
    for done in range(5):
        clock.now += 59
        assert jobs.heartbeat(store, job, "w", 60, done, 5)
        assert jobs.requeue_expired(store) == 0
    found = submissions.status(store, id)
    assert (found.done, found.total, found.worker) == (4, 5, "w")
    (work,) = jobs.working(store)
    assert (work.worker, work.job, work.done, work.seen, work.lease) == ("w", id, 4, clock.now, clock.now + 60)


def test_a_lost_worker_is_replaced_twice_and_then_the_quota_is_given_back(store, clock):
    id, other = submit(store, per_day=2), submit(store, per_day=2)
    for attempt in (1, 2, 3):
        job = jobs.claim(store, f"w{attempt}", 60)
        assert (job.id, job.attempt) == (id, attempt)  # back at its old place, before `other`
        clock.now += 61
        assert jobs.requeue_expired(store) == 1
        assert jobs.requeue_expired(store) == 0
    found = submissions.status(store, id)
    assert (found.state, found.reason, found.blame, found.counted) == ("failed", "worker-lost", "platform", False)
    assert submissions.spent(store, "reds", "image", "dev") == (1, 1)
    assert jobs.claim(store, "w", 60).id == other


def test_who_lost_the_lease_can_do_nothing_more(store, clock):
    id = submit(store)
    old = jobs.claim(store, "same-name", 60)
    clock.now += 61
    jobs.requeue_expired(store)
    new = jobs.claim(store, "same-name", 60)  # a worker started anew under the same name
    assert not jobs.heartbeat(store, old, "same-name", 60)
    assert not jobs.finish(store, old, "same-name", "a" * 16)
    assert not jobs.fail(store, old, "same-name", "crashed")
    assert not jobs.release(store, old, "same-name")
    assert not jobs.finish(store, new, "other", "a" * 16)
    assert submissions.status(store, id).state == "running"
    assert jobs.finish(store, new, "same-name", "b" * 16)
    assert submissions.status(store, id).entry == "b" * 16


def test_finish_is_once_for_ever(store, clock):
    id = submit(store)
    job = jobs.claim(store, "w", 60)
    with pytest.raises(AdvgymError, match="needs the id"):
        jobs.finish(store, job, "w", "")
    assert jobs.finish(store, job, "w", "a" * 16, "hello")
    then = submissions.status(store, id)
    clock.now += 5
    assert jobs.finish(store, job, "w", "a" * 16, "hello")
    assert not jobs.finish(store, job, "w", "b" * 16)
    assert not jobs.fail(store, job, "w", "crashed")
    assert submissions.status(store, id) == then
    assert (then.state, then.entry, then.log, then.reason) == ("scored", "a" * 16, "hello", "")


def test_cancelled_after_its_entry_was_written_is_scored(store):
    id = submit(store)
    job = jobs.claim(store, "w", 60)
    submissions.cancel(store, id, "reds")
    assert jobs.finish(store, job, "w", "a" * 16)
    found = submissions.status(store, id)
    assert (found.state, found.reason, found.counted) == ("scored", "", True)


@pytest.mark.parametrize(("code", "kept"), [("crashed", True), ("sandbox-error", False), ("internal-error", False)])
def test_the_platforms_fault_gives_the_quota_back(store, code, kept):
    id = submit(store)
    job = jobs.claim(store, "w", 60)
    assert jobs.fail(store, job, "w", code, "the detail", "the log")
    assert not jobs.fail(store, job, "w", code)
    found = submissions.status(store, id)
    assert (found.state, found.reason, found.counted, found.log) == ("failed", code, kept, "the log")
    assert "the detail" in found.text


def test_an_unknown_reason_is_refused(store):
    submit(store)
    with pytest.raises(AdvgymError, match="did you mean 'crashed'"):
        jobs.fail(store, jobs.claim(store, "w", 60), "w", "crash")


def test_a_worker_that_stops_puts_its_job_back(store):
    id, other = submit(store), submit(store)
    job = jobs.claim(store, "w", 60)
    assert jobs.release(store, job, "w") and not jobs.release(store, job, "w")
    again = jobs.claim(store, "v", 60)
    assert (again.id, again.attempt) == (id, 1)
    assert jobs.claim(store, "v", 60).id == other


# -- anything, in any order ------------------------------------------------------------------------------------------
class Anything(RuleBasedStateMachine):
    """The store against a model in plain dictionaries."""

    backend = "sqlite"
    TEAMS, WORKERS, LEASE, PER_DAY, TOTAL = ("reds", "blues"), ("w1", "w2"), 60.0, 3, 6

    def __init__(self):
        super().__init__()
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock(1_800_000_000.0 // 86400 * 86400)
        self.store = open_store(fresh(self.backend, Path(self.folder.name)), self.clock)
        self.model = {}  # id -> what it should be, in the order handed in
        self.held = []  # (job, worker) ever claimed
        self.scored = {}

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    def lives(self, job, worker):
        row = self.model[job.id]
        return row["worker"] == worker and row["attempts"] == job.attempt

    @rule(team=st.sampled_from(TEAMS))
    def submit(self, team):
        day = self.clock.now // 86400
        mine = [r for r in self.model.values() if r["team"] == team and r["counted"]]
        room = len(mine) < self.TOTAL and sum(r["day"] == day for r in mine) < self.PER_DAY
        try:
            id = submissions.submit(
                self.store, team, "image", "dev", "attack", SHA, {}, Quota(self.PER_DAY, self.TOTAL)
            )
        except Refused:
            assert not room
        else:
            assert room
            self.model[id] = {"team": team, "day": day, "counted": True, "state": "queued", "worker": "",
                              "attempts": 0, "lease": 0.0, "entry": ""}  # fmt: skip

    @rule(worker=st.sampled_from(WORKERS))
    def claim(self, worker):
        first = next((id for id, r in self.model.items() if r["state"] == "queued"), None)
        job = jobs.claim(self.store, worker, self.LEASE)
        assert (job and job.id) == first
        if job:
            row = self.model[first]
            row.update(state="running", worker=worker, attempts=row["attempts"] + 1, lease=self.clock.now + self.LEASE)
            assert job.attempt == row["attempts"]
            self.held.append((job, worker))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), what=st.sampled_from(["heartbeat", "finish", "crash", "fault", "release"]))
    def act(self, data, what):
        job, worker = data.draw(st.sampled_from(self.held))
        row, lives = self.model[job.id], self.lives(job, worker)
        running = lives and row["state"] == "running"
        if what == "heartbeat":
            assert jobs.heartbeat(self.store, job, worker, self.LEASE) == running
            if running:
                row["lease"] = self.clock.now + self.LEASE
        elif what == "finish":
            entry = f"entry-{job.id}"  # the record gives each submission one
            ok = (lives and row["state"] in ("running", "cancelled")) or row["state"] == "scored"
            assert jobs.finish(self.store, job, worker, entry) == ok
            if ok:
                row.update(state="scored", entry=entry, counted=True)
        elif what == "release":
            assert jobs.release(self.store, job, worker) == running
            if running:
                row.update(state="queued", worker="", attempts=row["attempts"] - 1)
        else:
            code = "crashed" if what == "crash" else "victim-error"
            assert jobs.fail(self.store, job, worker, code) == running
            if running:
                row.update(state="failed", counted=row["counted"] and what == "crash")

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def cancel(self, data):
        id = data.draw(st.sampled_from(list(self.model)))  # ids are random, their order is not
        row = self.model[id]
        assert submissions.cancel(self.store, id) == (row["state"] in ("queued", "running"))
        if row["state"] in ("queued", "running"):
            row.update(state="cancelled", counted=row["counted"] and row["state"] == "running")

    @rule(seconds=st.sampled_from([1.0, 59.0, 61.0, 86400.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule()
    def requeue(self):
        lost = [r for r in self.model.values() if r["state"] == "running" and r["lease"] < self.clock.now]
        assert jobs.requeue_expired(self.store) == len(lost)
        for row in lost:
            if row["attempts"] < 3:
                row.update(state="queued", worker="")
            else:
                row.update(state="failed", counted=False)

    @invariant()
    def the_store_is_the_model(self):
        found = {s.id: s for s in submissions.listing(self.store, limit=1000)}
        assert set(found) == set(self.model)
        queue = [id for id, r in self.model.items() if r["state"] == "queued"]
        for id, row in self.model.items():
            s = found[id]
            assert (s.state, s.counted, s.attempts, s.entry) == (
                row["state"], row["counted"], row["attempts"], row["entry"],
            )  # fmt: skip
            assert s.position == (queue.index(id) + 1 if id in queue else 0)
        for team in self.TEAMS:
            mine = [r for r in self.model.values() if r["team"] == team and r["counted"]]
            today = sum(r["day"] == self.clock.now // 86400 for r in mine)
            assert submissions.spent(self.store, team, "image", "dev") == (today, len(mine))


class AnythingOnPostgres(Anything):
    backend = "postgresql"


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestAnythingOnPostgres = AnythingOnPostgres.TestCase
TestAnythingOnPostgres.settings = settings(max_examples=6, stateful_step_count=40, deadline=None)
