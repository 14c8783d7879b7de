"""Both sides of the boundary in one process, a thread each: the protocol without the sandbox."""

import socket
import threading
from contextlib import contextmanager

from advgym.judge.evaluator import evaluator
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary import mirror
from advgym.leaderboards.boundary.player import RemoteEnv
from advgym.leaderboards.boundary.referee import Session
from advgym.leaderboards.boundary.wire import HARD_CAP, Channel, Gone


def referee(env, attack, seed=5, proposals=None):
    """Play `attack` against `env` over a socket; (what the agent said last, the evaluator's channel, its error)."""
    ours, theirs = socket.socketpair()
    failed = []

    def agent():
        channel = Channel(theirs, m.Reply, cap=HARD_CAP)
        try:
            welcome, arrays = channel.recv()
            remote = RemoteEnv(channel, mirror.unpack(arrays), welcome.proposals)
            channel.send(m.Done(), remote.returned(attack(remote, seed=welcome.seed)))
        except Gone:
            pass
        except Exception as error:
            failed.append(error)
            theirs.close()

    thread = threading.Thread(target=agent, daemon=True)
    thread.start()
    channel = Channel(ours, m.Request)
    channel.keep()
    session = Session(env, channel)
    session.welcome(seed, {})
    try:
        said = session.serve()
        evaluator(env).hand_in(*session.returned or [None])
    except Gone:
        said = None
    ours.close()
    thread.join(60)
    theirs.close()
    return said, channel, failed[0] if failed else None


@contextmanager
def raw_session(env):
    """(the evaluator's session running in a thread, the hostile end): write what you like into the latter."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours, m.Request)
    session = Session(env, channel)
    outcome = []

    def serve():
        try:
            session.welcome(0, {})
            outcome.append(session.serve())
        except Exception as error:
            outcome.append(error)
        ours.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    hostile = Channel(theirs, m.Reply, cap=HARD_CAP)
    hostile.recv()
    yield hostile, outcome, thread
    theirs.close()
    thread.join(30)
