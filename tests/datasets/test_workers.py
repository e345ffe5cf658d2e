"""What is said of killed data loader workers."""

import os
import signal
import threading

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


def test_a_signal_to_all_processes_may_reach_this_one_last():
    def stop(number, frame):
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(Stopped):
            kill_worker("Terminated")
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("by", ["Terminated", "Killed"])
def test_a_program_that_is_ending_ends_by_its_signal(by):
    def end():
        try:
            raise Stopped
        finally:
            kill_worker(by)

    with pytest.raises(Stopped):
        end()
