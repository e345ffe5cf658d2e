"""Processes that work together end together: none waits for one that has failed, and one message says why."""

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
"""Seconds between two looks at the others."""

SILENT = 2
"""Another process that gives no sign of life for so many times `stop_seconds` is taken for lost."""

FIRST_WORD = 0.1
"""The part of `stop_seconds` that the process that failed has to say why, before another one says that it was lost."""

ANSWER = 3.0
"""Seconds to wait for those who know which process spoke first."""

CONNECTION = re.compile(r"gloo|nccl|c10d|Connection (closed|reset) by peer", re.IGNORECASE)

_runs = 0
"""How often this process has worked with others."""

_speaks: bool | None = None
"""Whether this process says how the run ended, once that is settled."""


class Peers:
    """Watches the other processes of a run while the block goes on, and lets them know when this one fails.

    What they have to know goes through the store by which they found each other. Nothing happens before `start`.

    Raises:
        ProcessError: On leaving: another process failed or was lost, so that this one could not go on.
    """

    def __init__(self) -> None:
        self.lost: str | None = None
        self.told = self.found = False  # By another process that failed or found one lost; by this one.
        self.prefix: str | None = None
        self.over = threading.Event()

    def start(self, rank: int, world_size: int) -> None:
        """Begin to watch, when the processes have found each other."""
        global _runs
        if world_size < 2 or self.prefix is not None:
            return
        _runs += 1
        self.rank, self.world_size, self.prefix = rank, world_size, f"{_key()}/{_runs}"
        self.seconds, self.store = stop_seconds(), _connect()
        self.looked = time.monotonic()
        self.thread = threading.Thread(target=self._watch, daemon=True, name="vitrail-peers")
        self.thread.start()
        threading.Thread(target=self._guard, daemon=True, name="vitrail-peers-guard").start()

    def __enter__(self) -> "Peers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.prefix is None:
            return
        self.over.set()
        self.thread.join(2 * INTERVAL)
        if self.lost is None and isinstance(error, RuntimeError) and CONNECTION.search(f"{type(error).__name__} {error}"):
            self.lost = f"the connection to another process was lost ({str(error).splitlines()[0][:200]})"
            time.sleep(FIRST_WORD * self.seconds)
        if not self.thread.is_alive():  # Else nobody answers.
            with suppress(RuntimeError):  # The store may be gone with the process that held it.
                self._tell(failed=error is not None)
        if error is not None and self.lost is not None:
            raise ProcessError(
                f"{self.lost}, so that this one cannot go on; what is written is whole: look at the messages of the other processes, "
                "and start again"
            ) from error

    def _tell(self, failed: bool) -> None:
        """Let the others know how this process ended, and settle which one says so: the first that failed of itself."""
        global _speaks
        if not failed:
            self.store.set(f"{self.prefix}/done/{self.rank}", "1")
            self._linger()
            return
        if self.told or (not self.found and self.store.check([f"{self.prefix}/failed"])):
            _speaks = False
            return
        self.store.set(f"{self.prefix}/failed", str(self.rank))
        _speaks = self.store.add(f"{_key()}/told", 1) == 1
        self._linger()

    def _linger(self) -> None:
        """Stay until all have read how this process ended, where the store ends with it."""
        if self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            until = time.monotonic() + 2 * INTERVAL
            others = [f"{self.prefix}/done/{rank}" for rank in range(1, self.world_size)]
            while time.monotonic() < until and not self.store.check(others):
                time.sleep(INTERVAL / 10)

    def _watch(self) -> None:
        """Give signs of life, and look for those of the next process; whoever finds that one lost tells all."""
        after, beat, seen = (self.rank + 1) % self.world_size, 0, (b"", time.monotonic())
        failed, first_is_done = f"{self.prefix}/failed", False
        while not self.over.wait(INTERVAL):
            self.looked = time.monotonic()
            try:
                beat += 1
                self.store.set(f"{self.prefix}/beat/{self.rank}", str(beat))
                if self.store.check([failed]):
                    self.told = True
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
                    self.found = True
                    self._end(
                        f"process {after} of {self.world_size} gave no sign of life for {SILENT * self.seconds:g} seconds ({VARIABLE} "
                        f"changes that)"
                    )
                    return
            except RuntimeError:
                # It was held by the first process, which may have come to its end before this one.
                if not first_is_done and not self.over.wait(self.seconds):
                    self._end("the first process cannot be reached")
                return

    def _guard(self) -> None:
        """A store whose process hangs does not answer."""
        while not self.over.wait(INTERVAL) and self.thread.is_alive():
            if time.monotonic() - self.looked > SILENT * self.seconds:
                self._end(
                    f"the first process gave no sign of life for {SILENT * self.seconds:g} seconds ({VARIABLE} changes that)"
                )
                return

    def _end(self, reason: str) -> None:
        if self.over.wait(INTERVAL):  # A broken connection may have told the main thread already.
            return
        self.lost = reason
        end_main_thread(self.seconds, f"error: {reason}, so that this one cannot go on", 2)


def speaks_first() -> bool:
    """Whether this process is the first of its run to say how it ended; always true of a process that works alone."""
    told = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or "1"
    if told == "1" or not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return True
    if _speaks is not None:
        return _speaks
    if not _runs and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True  # Nobody may be there to ask.
    found = list[bool]()

    def ask() -> None:
        with suppress(RuntimeError, OSError, ValueError):
            # The store's own client would log that it cannot be reached, and try again.
            socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), ANSWER).close()
            found.append(_connect(ANSWER).add(f"{_key()}/told", 1) == 1)

    import torch.distributed  # noqa: F401, PLC0415 (heavy: not while the time runs)

    # Whoever keeps the store may hang, and never answer.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER)
    if found:
        return found[0]
    # Lost with the first process: the second one speaks for the rest.
    return not _runs or os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) in ("0", "1")


def _connect(seconds: float = 60) -> Any:
    """A connection of one's own: on that of the process group, others may be waiting."""
    from torch import distributed  # noqa: PLC0415 (heavy)

    where: tuple[Any, ...] = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    store: Any = distributed.TCPStore  # type: ignore[attr-defined]  # it is documented
    return store(*where, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=seconds))


def _key() -> str:
    """What tells this start of the processes from one before, whose store torchrun keeps."""
    return f"vitrail/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
