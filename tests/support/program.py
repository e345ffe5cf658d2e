"""Programs in processes of their own, which tests stop by signals."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def running_program(*command: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program within the block, with captured output; kill it on exit if it is still running."""
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str], timeout: float = 90) -> None:
    """Wait for a condition while a program runs; fail if the program ends first or takes too long."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the program ended with code {process.returncode}: {process.communicate()[1]}")
        assert time.monotonic() < deadline, "the program took too long"
        time.sleep(0.02)
