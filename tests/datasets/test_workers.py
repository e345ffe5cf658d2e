"""What is said of killed data loader workers."""

import os
import signal
import threading
from contextlib import contextmanager

import pytest

from vitrail.core.errors import ProcessError
from vitrail.datasets.workers import explain_killed_workers


@explain_killed_workers("do this")
def kill_worker(by):
    raise RuntimeError(f"DataLoader worker (pid 7) is killed by signal: {by}. ")


class Stopped(KeyboardInterrupt):
    pass


def test_a_killed_worker_probably_lacked_memory():
    with pytest.raises(ProcessError, match=r"\(DataLoader worker .*: Killed\), probably because memory ran out; .*: do this$"):
        kill_worker("Killed")


def test_memory_is_not_blamed_where_a_worker_was_asked_to_end():
    with pytest.raises(ProcessError, match=r"was killed .*: Terminated\); results written so far are intact"):
        kill_worker("Terminated")


@contextmanager
def signaled_soon(handler):
    """A signal comes a moment later, while the block runs."""
    before = signal.signal(signal.SIGTERM, handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, before)


def test_a_signal_to_all_processes_may_reach_this_one_last():
    def stop(number, frame):
        raise Stopped

    with signaled_soon(stop), pytest.raises(Stopped):
        kill_worker("Terminated")


@explain_killed_workers("do this")
def break_connection():
    raise ConnectionResetError


def test_a_broken_connection_waits_for_the_report_of_its_cause():
    def report(number, frame):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. ")

    with signaled_soon(report), pytest.raises(ProcessError, match=r"was killed \(.*: Terminated\); results"):
        break_connection()
    with pytest.raises(ProcessError, match="was killed, probably because memory ran out; results"):
        break_connection()


@pytest.mark.parametrize("report_death", [lambda: kill_worker("Terminated"), lambda: kill_worker("Killed"), break_connection])
def test_a_program_that_is_ending_ends_by_its_signal(report_death):
    def end():
        try:
            raise Stopped
        finally:
            report_death()

    with pytest.raises(Stopped):
        end()
