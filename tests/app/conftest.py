"""A server in a process of its own, as `vitrail serve` starts it, and a browser that writes down whom it asks."""

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MODELS = ("vitrail:hit-cifar10", "vitrail:vit-birds", "vitrail:intr-birds")

NEEDS_PAGE = pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra app")
NEEDS_BROWSER = pytest.mark.skipif(
    CHROMIUM is None or find_spec("playwright") is None or find_spec("gradio") is None,
    reason="needs Chromium, Playwright and the extra app",
)


class Server(NamedTuple):
    url: str
    process: subprocess.Popen
    temporary: Path
    lines: list[str]


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def served(temporary: Path, *arguments: str) -> Iterator[Server]:
    """`vitrail serve` with its temporary files in a folder of ours; stopped as by Ctrl+C."""
    import os

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


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    pytest.importorskip("gradio", reason="needs the extra app")
    with served(tmp_path_factory.mktemp("server"), "--model", ",".join(MODELS), "--max-megabytes", "2") as running:
        yield running


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    with playwright.sync_playwright() as kit:
        started = kit.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    """Where screenshots are kept: the folder named by VITRAIL_SCREENSHOTS, for people to look at."""
    import os

    folder = Path(os.environ.get("VITRAIL_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
