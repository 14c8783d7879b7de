"""Workers and clients killed with -9 at random points; run as a program so that nothing of a test's threads is forked.

python store_kill.py URL ROOT ROUNDS SEED
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import psycopg  # noqa: F401  (once, before the forks)
from store_entries import made

from advgym.leaderboards.rules.board_tables import Quota
from advgym.leaderboards.store import jobs, rebuild, record, submissions
from advgym.leaderboards.store.db import open_store

QUOTA = Quota(per_day=10**6, total=10**6)
KEYS = 80  # submissions in all
LEASE = 0.25  # seconds
pipe = []  # the parent reads a byte from each child that is ready


def ready(store):
    """Tell the parent, where there is one, that the database is open."""
    if pipe:
        os.write(pipe[1], b".")
    return store


def client(url, root, name):
    """Hand in everything, again and again, as one that never saw an answer."""
    store = ready(open_store(url))
    for i in random.Random(name).sample(range(KEYS), KEYS):
        submissions.submit(store, "reds", "image", "dev", "attack", f"{i:064x}", {"name": f"a{i}"}, QUOTA, key=f"k{i}")
        time.sleep(0.004)


def worker(url, root, name, idle=10.0):
    """Work until nothing is left (for as long as nobody kills it)."""
    store, dice, quiet = ready(open_store(url)), random.Random(name), time.time()
    while time.time() - quiet < idle:
        rebuild.recover(store, root)
        job = jobs.claim(store, name, LEASE)
        if job is None:
            time.sleep(0.01)
            continue
        quiet = time.time()
        for done in range(3):
            time.sleep(dice.uniform(0, 0.006))
            if not jobs.heartbeat(store, job, name, LEASE, done, 3):
                break
        else:
            entry, rows = made(created=f"by {name}", blob=job.blob)  # two runs of one job differ: one alone may count
            jobs.finish(store, job, name, record.write_entry(root, entry, rows, job.id))


def reader(url, root, name):
    """A web server: it brings the database up to the record all the time."""
    store = ready(open_store(url))
    while True:
        faults = rebuild.refresh(store, root)
        if faults:
            os.write(2, f"{faults}\n".encode())
            os._exit(3)
        submissions.listing(store)


def spawn(role, url, root, name):
    pid = os.fork()
    if pid:
        return pid
    try:
        role(url, root, name)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def main(url, root, rounds, seed):
    dice = random.Random(seed)
    for number in range(rounds):
        pipe[:] = os.pipe()
        roles = {"w1": worker, "w2": worker, "c": client, "r": reader}
        alive = [spawn(role, url, root, f"{name}-{number}") for name, role in roles.items()]
        if number % 4:  # every fourth time they may die while they open the database
            for _ in alive:
                os.read(pipe[0], 1)
        time.sleep(dice.uniform(0, 0.1))
        for pid in alive:
            time.sleep(dice.uniform(0, 0.01))
            os.kill(pid, signal.SIGKILL)
        [os.close(end) for end in pipe]
        pipe.clear()
        ends = [os.waitpid(pid, 0)[1] for pid in alive]
        assert all(os.WIFSIGNALED(e) or os.WEXITSTATUS(e) == 0 for e in ends), f"round {number}: {ends}"
    client(url, root, "the last")
    time.sleep(2 * LEASE)
    worker(url, root, "the last", idle=2 * LEASE + 0.2)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
