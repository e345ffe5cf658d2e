"""Stopping on signals: message, exit code and time limit, of one process and of several."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from vitrail.core.errors import InvalidInputError
from vitrail.core.interrupts import Stopped, stop_seconds, stoppable

pytest_plugins = ("tiny",)

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def begin(program, **environment):
    """Start a small program, which prints "ready" when it may be stopped."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        # A suite that runs in the background has been told to ignore it, and its children inherit that.
        preexec_fn=lambda: [signal.signal(getattr(signal, each), signal.SIG_DFL) for each in CODES],
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def ended(process):
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


# What a command does is `{work}`; `patient` is its name.
COMMAND = """
    import os, time, vitrail.cli.main as program
    def patient():
        print("ready", flush=True)
        {work}
    program.app.command("patient")(patient)
    import sys
    sys.argv = ["vitrail", "patient"]
    program.main()
"""


@pytest.mark.parametrize("name", CODES)
def test_every_signal_has_its_message_and_exit_code(name):
    process = begin(COMMAND.format(work="time.sleep(60)"))
    process.send_signal(getattr(signal, name))
    assert ended(process) == (CODES[name], "", "stopped\n")


@pytest.mark.parametrize(
    "work",
    [
        # It makes an error of its own of it, ends as if well, or is stopped again while it tidies up.
        "try:\n            time.sleep(60)\n        except BaseException: raise RuntimeError('broken')",
        "try:\n            time.sleep(60)\n        except BaseException: sys.exit(0)",
        "try:\n            time.sleep(60)\n        finally:\n            os.kill(os.getpid(), 2); os.kill(os.getpid(), 15)",
    ],
)
def test_a_signal_ends_the_command_whatever_it_does(work):
    process = begin(COMMAND.format(work=work))
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, "", "stopped\n")


@pytest.mark.parametrize(
    "work",
    [
        "try:\n            time.sleep(60)\n        finally: time.sleep(60)",
        # Where Python runs no handlers, as in a library that waits for another process.
        "import ctypes; ctypes.CDLL(None).pause(); [ctypes.CDLL(None).pause() for _ in iter(int, 1)]",
    ],
)
def test_programs_that_do_not_end_are_killed(work):
    process = begin(COMMAND.format(work=work), VITRAIL_STOP_SECONDS="0.5")
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, _out, err = ended(process)
    assert (code, err) == (143, "stopped\n")
    assert time.monotonic() - start < 20


def test_forked_processes_are_stopped_alone():
    process = begin(
        COMMAND.format(
            work="""
        for number in (15, 1):
            child = os.fork()
            if not child:
                time.sleep(60)
                os._exit(0)
            os.kill(child, number)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number
        time.sleep(1)
        print("done")
    """
        ),
        VITRAIL_STOP_SECONDS="0.2",
    )
    assert ended(process) == (0, "done\n", "")


def test_ignored_signals_stay_ignored_and_handlers_are_put_back():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        with stoppable() as stop:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) == stop.handle
            with stoppable():  # The outer one counts.
                assert signal.getsignal(signal.SIGTERM) == stop.handle
            with pytest.raises(Stopped):
                stop.handle(signal.SIGTERM, None)
            stop.handle(signal.SIGTERM, None)
            assert stop.exit_code == 143
        assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", ""])
def test_a_time_limit_is_a_number(text, monkeypatch, run_vitrail):
    monkeypatch.setenv("VITRAIL_STOP_SECONDS", text)
    with pytest.raises(InvalidInputError, match="positive number of seconds"):
        stop_seconds()
    code, _out, err = run_vitrail("list")
    assert (code, err.count("VITRAIL_STOP_SECONDS")) == (2, 1)
