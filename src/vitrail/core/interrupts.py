"""Stop on signals: Ctrl+C, the SIGTERM of a scheduler, the SIGHUP of a closed terminal."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from vitrail.core.errors import InvalidInputError

VARIABLE = "VITRAIL_STOP_SECONDS"
"""Environment variable with the seconds that a stopping process may take to clean up."""

DEFAULT_SECONDS = 20.0
"""Default of the environment variable: less than the 30 seconds after which torchrun and SLURM kill."""

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
WORD = "stopped"


class Stopped(KeyboardInterrupt):
    """A signal told this process to end.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def stop_seconds() -> float:
    """Return the seconds that a stopping process may take to clean up.

    Raises:
        InvalidInputError: The environment variable is not a positive number.
    """
    text = os.environ.get(VARIABLE)
    try:
        seconds = DEFAULT_SECONDS if text is None else float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise InvalidInputError(f"expected {VARIABLE} as a positive number of seconds, got {text!r}; change it or unset it")
    return seconds


class Stop:
    """State of a program's stop: the first signal, the exit code, and the time limit.

    Attributes:
        number: Number of the signal; None before one came.
        ending: Whether the program is ending; later signals are ignored.
        limited: Whether a time limit is already set.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.number: int | None = None
        self.ending = self.limited = False

    @property
    def exit_code(self) -> int:
        """Exit code after the signal: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + (signal.SIGINT if self.number is None else self.number)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise `Stopped` on the first signal."""
        if self.ending:
            return
        self.number, self.ending = number, True
        raise Stopped(number)

    def watch(self, pipe: int) -> None:
        """Set the time limit when a signal comes, even while the main thread blocks where Python runs no handlers."""
        while received := os.read(pipe, 1):
            if received[0] in SIGNALS and not self.limited:
                end_within(self.seconds, WORD, 128 + received[0])
                return


_active: Stop | None = None


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Let termination signals raise `Stopped` in the main thread inside the block, so that the program can clean up.

    Only the first signal counts. A program that is still running `VITRAIL_STOP_SECONDS` later is ended. Signals that the program was
    started to ignore stay ignored. Outside of the main thread this does nothing.

    Raises:
        InvalidInputError: The environment variable is not a positive number.
    """
    global _active
    stop = Stop(stop_seconds())
    if threading.current_thread() is not threading.main_thread() or _active is not None:
        yield stop
        return
    handled = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.getsignal(number) for number in handled}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    thread = threading.Thread(target=stop.watch, args=(reading,), daemon=True, name="vitrail-stop")
    thread.start()
    wakeup, _active = signal.set_wakeup_fd(writing, warn_on_full_buffer=False), stop
    for number in handled:
        signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        _active = None
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)  # Ends the thread, unless it is already counting down.
        thread.join(0.1)
        if not thread.is_alive():
            os.close(reading)


def end_main_thread(seconds: float, message: str, code: int) -> None:
    """End the main thread as by SIGTERM, and the process after `seconds` in any case; for use from another thread."""
    if _active is not None:
        _active.limited = True
    end_within(seconds, message, code)
    main = threading.main_thread().ident
    if _active is not None and hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGTERM)  # Also interrupts blocking calls.
    else:
        import _thread  # noqa: PLC0415 (only without our handlers)

        _thread.interrupt_main()


def end_within(seconds: float, message: str, code: int) -> threading.Timer:
    """End this process after `seconds` in any case, unless the returned timer is cancelled."""

    def end() -> None:
        from vitrail.core.peers import reports_first  # noqa: PLC0415 (circular)

        with suppress(Exception):
            if reports_first():
                sys.stderr.write(f"{message}\n")
                sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer


# A forked process, such as a data worker, gets default signal handlers, and never writes to the pipe of its parent. Signals are blocked
# during the fork.


def _block_signals() -> None:
    if _active is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _unblock_signals() -> None:
    if _active is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _reset_in_child() -> None:
    global _active
    if _active is not None:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        _unblock_signals()
        _active = None


if hasattr(os, "register_at_fork") and hasattr(signal, "pthread_sigmask"):
    os.register_at_fork(before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_reset_in_child)
