"""A server in a process of its own, as `vitrail serve` starts it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

MODELS = ("vitrail:hit-cifar10", "vitrail:vit-birds", "vitrail:intr-birds")


class Server(NamedTuple):
    url: str
    process: subprocess.Popen
    temporary: Path
    lines: list[str]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def served(temporary: Path, *arguments: str) -> Iterator[Server]:
    """`vitrail serve` with its temporary files in a folder of ours; stopped as by Ctrl+C."""
    command = [sys.executable, "-m", "vitrail", "serve", "--port", str(free_port()), *arguments]
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines, found, ready = list[str](), list[str](), threading.Event()

    def read() -> None:
        for line in process.stdout:
            lines.append(line)
            if match := re.search(r"serving .* at (http://\S+)", line):
                found.append(match[1])
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert ready.wait(120), "the server did not start"
        assert found, "".join(lines)
        yield Server(found[0], process, temporary, lines)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
