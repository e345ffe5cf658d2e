"""`vitrail serve` in a process of its own."""

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


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def start_server(temporary: Path, *arguments: str) -> Iterator[Server]:
    """Run `vitrail serve` with its temporary files in a given folder, and stop it as Ctrl+C does."""
    command = [sys.executable, "-m", "vitrail", "serve", "--port", str(find_free_port()), *arguments]
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines, urls, ready = list[str](), list[str](), threading.Event()

    def read() -> None:
        for line in process.stdout:
            lines.append(line)
            if match := re.search(r"serving .* at (http://\S+)", line):
                urls.append(match[1])
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert ready.wait(120), "the server did not start"
        assert urls, "".join(lines)
        yield Server(urls[0], process, temporary, lines)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
