"""`advgym serve`: the web process, its workers and the database in one process tree."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing as mp
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from advgym.errors import AdvgymError
from advgym.leaderboards.rules.board import board_hash
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.service.plan import Plan, boards_of

if TYPE_CHECKING:
    from advgym.leaderboards.store.db import Store

log = logging.getLogger("advgym")
CHECK_S = 1.0  # between looks at the workers and the leases
QUICK_S = 5.0  # a worker that lives no longer than this is started again more slowly


def run_worker(plan: Plan, number: int, parent: int | None = None) -> None:
    """A worker's process: until it is told to stop, or its server is no more.

    Args:
        parent: the server's process id, told by itself: it may be gone before this process has started.
    """
    parent = os.getppid() if parent is None else parent
    import torch

    from advgym.leaderboards.runs.engines import make_engine
    from advgym.leaderboards.runs.worker import Worker
    from advgym.leaderboards.sandbox.workfolder import sweep
    from advgym.leaderboards.store.db import open_store

    torch.set_num_threads(1)
    sweep()  # what a worker left that was killed
    worker = Worker(
        open_store(plan.db), Path(plan.root), boards_of(plan), name=_name(number),
        device=plan.device, level=plan.level, lease_s=plan.lease_s, beat_s=plan.beat_s,
        engine=make_engine(plan.engine, plan),
    )  # fmt: skip

    def leave(*_: object) -> None:
        if not worker.stop.is_set():
            worker.stop.set()
            raise KeyboardInterrupt  # out of a shard that may take minutes: the job goes back to the queue

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)

    def orphaned() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=orphaned, daemon=True).start()
    # So that whoever submits first does not wait for the imports of a task.
    threading.Thread(target=_warm, args=(worker,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        worker.run()


def _name(number: int) -> str:
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{number}"


def _warm(worker: object) -> None:
    """Import what every task needs, while the worker waits for its first job."""
    with contextlib.suppress(Exception):
        import advgym.core.env
        import advgym.judge.run  # noqa: F401


class Workers:
    """Keeps `plan.workers` processes alive, and leases honest."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._context = mp.get_context("spawn")
        self._alive: dict[int, tuple[BaseProcess, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="workers", daemon=True)

    def start(self) -> None:
        """Start them, and the watch over them."""
        for number in range(self.plan.workers):
            self._spawn(number)
        self._thread.start()

    def stop(self, patience_s: float = 20.0) -> None:
        """Ask every worker to put its job back, then insist."""
        self._stop.set()
        for process, _ in self._alive.values():
            process.terminate()
        until = time.monotonic() + patience_s
        for process, _ in self._alive.values():
            process.join(max(0.1, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def _spawn(self, number: int) -> None:
        process = self._context.Process(
            target=run_worker, args=(self.plan, number, os.getpid()), name=f"advgym-worker-{number}"
        )
        process.start()
        self._alive[number] = (process, time.monotonic())

    def _watch(self) -> None:
        from advgym.leaderboards.store.db import open_store
        from advgym.leaderboards.store.rebuild import recover

        store, shown = open_store(self.plan.db), set[tuple[str, str]]()
        while not self._stop.wait(CHECK_S):
            try:
                recover(store, Path(self.plan.root))
                reveal_closed(store, self.plan, shown)
            except Exception as error:  # the database may be away for a moment
                log.warning("leases were not checked: %s", type(error).__name__)
            for number, (process, born) in list(self._alive.items()):
                if not process.is_alive() and time.monotonic() - born > QUICK_S:
                    log.warning("worker %d ended with %s; another one starts", number, process.exitcode)
                    self._spawn(number)


def prepare(plan: Plan) -> tuple[Mapping[str, Board], list[str]]:
    """Boards, and the public phases that are opened by themselves; the sandbox is looked at before anything starts.

    Raises:
        AdvgymError: for a machine without a sandbox, when the plan does not ask for "unsandboxed" by name.
    """
    from advgym.leaderboards.sandbox import LEVELS, best_level, missing

    if plan.level is None and best_level() == LEVELS[-1]:
        why = "; ".join(f"{level}: {text}" for level, text in missing().items())
        raise AdvgymError(
            f"this machine has no sandbox, and a server runs strangers' code in nothing less ({why}). "
            "Among people you trust: --sandbox unsandboxed"
        )
    boards = boards_of(plan)
    root = Path(plan.root)
    root.mkdir(parents=True, exist_ok=True)
    return boards, open_public(boards, root)


def reveal_closed(store: Store, plan: Plan, shown: set[tuple[str, str]]) -> None:
    """Show the logs of hidden phases that have closed; `shown` remembers which those are."""
    from advgym.leaderboards.rules.phase_cards import card_path, phase_card
    from advgym.leaderboards.store.submissions import reveal

    for name, board in boards_of(plan).items():
        for phase, about in board.phases.items():
            key = (name, phase)
            opened = about.hidden and key not in shown and card_path(plan.root, name, phase).is_file()
            if opened and phase_card(board, phase, plan.root).closed:
                reveal(store, name, phase)
                shown.add(key)


def open_public(boards: Mapping[str, Board], root: Path) -> list[str]:
    """Open the phases whose samples are public: they have no secret to keep. Returns those opened now."""
    from advgym.leaderboards.rules import commitments
    from advgym.leaderboards.rules.opening import open_phase, record_opening
    from advgym.leaderboards.rules.phase_cards import PhaseCard, card_path

    opened = []
    for name, board in boards.items():
        for phase, about in board.phases.items():
            if about.hidden:
                continue
            path = card_path(root, name, phase)
            if path.is_file():
                try:
                    card = msgspec.json.decode(path.read_bytes(), type=PhaseCard)
                except msgspec.DecodeError:
                    continue  # damaged: the check of the record says so, and nothing is written over it
                if card.board_hash == board_hash(board):
                    secret = commitments.public_secret(name, phase, card.board_hash)
                    if card.commitment == commitments.commit(secret):  # else it was changed, and no line makes it true
                        record_opening(root, card)
                    continue
                path.unlink()  # there is no secret to keep: the entries of the old board turn stale by themselves
            open_phase(board, phase, root)
            opened.append(f"{name}/{phase}")
    return opened


def server_config(app: Any, host: str, port: int, *, proxy: bool) -> Any:
    """How uvicorn runs the application.

    Args:
        proxy: a reverse proxy on this machine says who asks (X-Forwarded-For); else the connection does, whatever
            a request says of itself: rates are counted by that address.
    """
    import uvicorn

    return uvicorn.Config(
        app, host=host, port=port, log_level="warning", server_header=False, timeout_keep_alive=15,
        timeout_graceful_shutdown=2, proxy_headers=proxy,
    )  # fmt: skip


def serve(plan: Plan, host: str, port: int, *, proxy: bool = False) -> None:
    """Run until SIGINT or SIGTERM; `proxy` as in `server_config`."""
    import uvicorn

    from advgym.leaderboards.sandbox.workfolder import sweep
    from advgym.leaderboards.service.app import create_app
    from advgym.leaderboards.store.db import open_store, quick_check

    boards, _ = prepare(plan)
    sweep()
    store = open_store(plan.db)
    quick_check(store)
    workers = Workers(plan)
    app = create_app(store, Path(plan.root), boards)
    watch, over = app.state.watch, threading.Event()
    watch.look()  # before anybody is answered; it brings the database up to the record
    threading.Thread(target=watch.run, args=(over,), name="record", daemon=True).start()
    workers.start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises it again, and the workers must stop
    try:
        uvicorn.Server(server_config(app, host, port, proxy=proxy)).run()
    finally:
        over.set()
        workers.stop()
        store.close()
