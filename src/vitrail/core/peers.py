"""End all processes of a run when one fails or is lost, with a single error message."""

import os
import re
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any

from vitrail.core.errors import ProcessError
from vitrail.core.interrupts import VARIABLE, end_main_thread, stop_seconds

INTERVAL = 1.0
"""Seconds between two checks of the other processes."""

SILENT = 2
"""A process is lost when it sends no heartbeat for this many times `stop_seconds`."""

FIRST_WORD = 0.1
"""Share of `stop_seconds` that a failed process has to report its error, before another one reports a lost connection."""

ANSWER = 3.0
"""Seconds to wait for the store that knows which process reported first."""

CONNECTION = re.compile(r"gloo|nccl|c10d|Connection (closed|reset) by peer", re.IGNORECASE)

KILLED_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\)|Pin memory thread exited unexpectedly")

_runs = 0
"""Number of process groups that this process has been in."""

_reports: bool | None = None
"""Whether this process reports how the run ended; None while undecided."""


def is_killed_worker(error: BaseException) -> bool:
    """Return whether an error reports a killed data loader worker; torch may raise it at any point of the program."""
    return KILLED_WORKER.search(str(error)) is not None


class Peers:
    """Watches the other processes of a run inside the block, and notifies them when this one fails.

    Messages go through the store of the process group. Nothing happens before `start`.

    Raises:
        ProcessError: On exit: another process failed or was lost, so that this one cannot continue.
    """

    def __init__(self) -> None:
        self.lost: str | None = None
        self.notified = False  # Another process failed, or reported a lost one.
        self.found_lost = False  # This process found another one lost.
        self.prefix: str | None = None
        self.finished = threading.Event()

    def start(self, rank: int, world_size: int) -> None:
        """Start to watch, once the process group exists."""
        global _runs
        if world_size < 2 or self.prefix is not None:
            return
        _runs += 1
        self.rank, self.world_size, self.prefix = rank, world_size, f"{_key()}/{_runs}"
        self.seconds, self.store = stop_seconds(), _connect()
        self.last_check = time.monotonic()
        self.thread = threading.Thread(target=self._watch, daemon=True, name="vitrail-peers")
        self.thread.start()
        threading.Thread(target=self._watch_store, daemon=True, name="vitrail-peers-guard").start()

    def __enter__(self) -> "Peers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.prefix is None:
            return
        self.finished.set()
        self.thread.join(2 * INTERVAL)
        if self.lost is None and isinstance(error, RuntimeError) and CONNECTION.search(f"{type(error).__name__} {error}"):
            self.lost = f"the connection to another process was lost ({str(error).splitlines()[0][:200]})"
            time.sleep(FIRST_WORD * self.seconds)
        if not self.thread.is_alive():  # Else the store does not answer.
            with suppress(RuntimeError):  # The store may have ended with its process.
                self._report_end(failed=error is not None)
        if error is not None and self.lost is not None:
            raise ProcessError(
                f"{self.lost}, so that this one cannot continue; what is written is whole: look at the messages of the other processes, "
                "and start again"
            ) from error

    def _report_end(self, failed: bool) -> None:
        """Publish how this process ended, and decide which process reports it: the first that failed by itself."""
        global _reports
        if not failed:
            self.store.set(f"{self.prefix}/done/{self.rank}", "1")
            self._wait_for_readers()
            return
        if self.notified or (not self.found_lost and self.store.check([f"{self.prefix}/failed"])):
            _reports = False
            return
        self.store.set(f"{self.prefix}/failed", str(self.rank))
        _reports = self.store.add(f"{_key()}/reported", 1) == 1
        self._wait_for_readers()

    def _wait_for_readers(self) -> None:
        """Wait until the others have read how this process ended, if the store ends with it."""
        if self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            until = time.monotonic() + 2 * INTERVAL
            others = [f"{self.prefix}/done/{rank}" for rank in range(1, self.world_size)]
            while time.monotonic() < until and not self.store.check(others):
                time.sleep(INTERVAL / 10)

    def _watch(self) -> None:
        """Send heartbeats, and check those of the next process; if it is lost, notify all."""
        after, beat, seen = (self.rank + 1) % self.world_size, 0, (b"", time.monotonic())
        failed, first_is_done = f"{self.prefix}/failed", False
        while not self.finished.wait(INTERVAL):
            self.last_check = time.monotonic()
            try:
                beat += 1
                self.store.set(f"{self.prefix}/beat/{self.rank}", str(beat))
                if self.store.check([failed]):
                    self.notified = True
                    self._end(f"process {self.store.get(failed).decode()} of {self.world_size} failed or was stopped")
                    return
                first_is_done = first_is_done or self.store.check([f"{self.prefix}/done/0"])
                if self.store.check([f"{self.prefix}/done/{after}"]):
                    seen = (b"", time.monotonic())
                    continue
                key = f"{self.prefix}/beat/{after}"
                last = self.store.get(key) if self.store.check([key]) else b""
                if last != seen[0]:
                    seen = (last, time.monotonic())
                elif time.monotonic() - seen[1] > SILENT * self.seconds:
                    self.store.set(failed, str(after))
                    self.found_lost = True
                    self._end(
                        f"process {after} of {self.world_size} gave no sign of life for {SILENT * self.seconds:g} seconds ({VARIABLE} "
                        f"changes that)"
                    )
                    return
            except RuntimeError:
                # The store belongs to the first process, which may have ended before this one.
                if not first_is_done and not self.finished.wait(self.seconds):
                    self._end("the first process cannot be reached")
                return

    def _watch_store(self) -> None:
        """End this process if the store does not answer because its process hangs."""
        while not self.finished.wait(INTERVAL) and self.thread.is_alive():
            if time.monotonic() - self.last_check > SILENT * self.seconds:
                self._end(
                    f"the first process gave no sign of life for {SILENT * self.seconds:g} seconds ({VARIABLE} changes that)"
                )
                return

    def _end(self, reason: str) -> None:
        if self.finished.wait(INTERVAL):  # The main thread may already have noticed a broken connection.
            return
        self.lost = reason
        end_main_thread(self.seconds, f"error: {reason}, so that this one cannot continue", 2)


def reports_first() -> bool:
    """Return whether this process is the first of its run to report its end; always True for a single process."""
    num_processes = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or "1"
    if num_processes == "1" or not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return True
    if _reports is not None:
        return _reports
    if not _runs and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True  # There may be no store.
    answers = list[bool]()

    def ask() -> None:
        with suppress(RuntimeError, OSError, ValueError):
            # The store's own client would log failed connections, and retry.
            socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), ANSWER).close()
            answers.append(_connect(ANSWER).add(f"{_key()}/reported", 1) == 1)

    import torch.distributed  # noqa: F401, PLC0415 (heavy: before the timeout starts)

    # The process of the store may hang.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER)
    if answers:
        return answers[0]
    # The store was lost with the first process: the second one reports.
    return not _runs or os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) in ("0", "1")


def _connect(seconds: float = 60) -> Any:
    """Open a separate connection, because the process group may be blocking its own."""
    from torch import distributed  # noqa: PLC0415 (heavy)

    where: tuple[Any, ...] = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    store: Any = distributed.TCPStore  # type: ignore[attr-defined]  # it is documented
    return store(*where, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=seconds))


def _key() -> str:
    """Return a key that differs between restarts, whose store torchrun keeps."""
    return f"vitrail/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
