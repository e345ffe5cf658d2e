"""End a program cleanly on Ctrl+C and SIGTERM."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import typer


@contextmanager
def interrupt_on_signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt in the block on the first Ctrl+C or SIGTERM; yield a list that then holds the signal's number."""
    received = list[int]()

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for signal_number in before:
            # Not SIG_IGN: Python prints a message when a signal that is already pending is ignored.
            signal.signal(signal_number, lambda number, frame: None)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, end)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_now(received: Sequence[int]) -> None:
    """Print "stopped" and end the program, with the exit code of the signal."""
    with suppress(OSError):  # The terminal may be closed.
        typer.echo("stopped", err=True)
        sys.stdout.flush()
        sys.stderr.flush()
    # The interpreter would wait for busy threads of Gradio, perhaps for minutes; their results are not needed.
    os._exit(128 + (received or [signal.SIGINT])[0])
