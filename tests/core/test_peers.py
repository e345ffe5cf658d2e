"""All processes of a run end when one fails, with one message, in a limited time."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from processes import run_together

PROGRAM = """
    import os, sys, time, vitrail.cli.main as program
    from vitrail.core.distributed import gather, process_group, rank
    from vitrail.core.errors import InvalidInputError

    def fail():
        raise InvalidInputError("no such thing")

    def patient():
        {before}
        with process_group():
            gather([None])
            print("ready", flush=True)
            {work}
            gather([None])
            {after}
    program.app.command("patient")(patient)
    sys.argv = ["vitrail", "patient"]
    program.main()
"""


def program(tmp_path, work="pass", before="pass", after="pass"):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM.format(work=work, before=before, after=after)))
    return path


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Return a function that starts two processes without a supervisor, as some schedulers do."""
    started = []

    def start(work="pass", after="pass"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        path = program(tmp_path, work, after=after)
        for rank in range(2):
            environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            started.append(
                subprocess.Popen(
                    [sys.executable, str(path)],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **{k: str(v) for k, v in environment.items()}, "VITRAIL_STOP_SECONDS": "4"},
                )
            )
        for process in started:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_one_that_is_stopped_ends_the_other(begin):
    """Also while it works, not only while it waits for others."""
    first, second = begin("time.sleep(100)")
    second.send_signal(signal.SIGTERM)
    assert second.communicate(timeout=30) == ("", "stopped\n")
    assert second.returncode == 143
    assert first.communicate(timeout=30) == ("", "")
    assert first.returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("work", ["time.sleep(100)", "gather([None]) if rank() == {other} else time.sleep(100)"])
def test_one_that_is_lost_ends_the_other_in_a_sentence(how, which, work, begin):
    processes = begin(work.format(other=1 - which))
    processes[which].send_signal(how)
    start = time.monotonic()
    out, err = processes[1 - which].communicate(timeout=60)
    assert time.monotonic() - start < 30
    assert (processes[1 - which].returncode, out) == (2, "")
    assert (err.count("error: "), err.count("\n")) == (1, 1), err
    assert "so that this one cannot continue" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_process_may_end_long_before_the_other(begin):
    first, second = begin(after="(time.sleep(6), print('done')) if rank() == 1 else None")
    assert second.communicate(timeout=60) == ("done\n", "")
    assert first.communicate(timeout=60) == ("", "")
    assert (first.returncode, second.returncode) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "before", "message"),
    [
        ("fail() if rank() == 0 else None", "pass", "error: no such thing"),
        ("fail() if rank() == 1 else None", "pass", "error: no such thing"),
        ("fail()", "pass", "error: no such thing"),
        ("pass", "fail()", "error: no such thing"),
        ("pass", "fail() if os.environ['RANK'] == '1' else None", "error: no such thing"),
        ("os.kill(os.getpid(), 15) if rank() == 1 else time.sleep(100)", "pass", "stopped"),
    ],
)
def test_under_torchrun_one_message_says_why(work, before, message, tmp_path):
    start = time.monotonic()
    code, _out, err = run_together(program(tmp_path, work, before))
    assert code != 0
    reported = [line for line in err.splitlines() if line.startswith(("error:", "stopped", "RuntimeError"))]
    assert reported == [message], err
    assert "gloo" not in err
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_commands_that_do_not_share_their_work_refuse_to(tmp_path):
    code, out, err = run_together("-m", "vitrail", "explain", tmp_path / "photo.png", "--out", tmp_path / "out")
    assert (code != 0, out) == (True, "")
    assert err.count("error: expected one process, got 2: vitrail explain does not share its work") == 1
    assert not list(tmp_path.iterdir())
