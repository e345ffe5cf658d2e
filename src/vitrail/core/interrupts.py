"""Stopping from outside: Ctrl+C, the SIGTERM of a scheduler, the SIGHUP of a closed terminal."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from vitrail.core.errors import InvalidInputError

VARIABLE = "VITRAIL_STOP_SECONDS"
"""Environment variable: how long a process that has to end may take to tidy up."""

DEFAULT_SECONDS = 20.0
"""Less than the 30 seconds after which torchrun and SLURM kill."""

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
WORD = "stopped"


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def stop_seconds() -> float:
    """How long a process that has to end may take to tidy up.

    Raises:
        InvalidInputError: The environment variable holds no positive number.
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
    """The first signal of a program: its exit code, and the time limit that it sets.

    Attributes:
        number: Of the signal, or None while there was none.
        ending: Whether the program ends already; later signals do not disturb it.
        limited: Whether somebody has set a time limit already.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.number: int | None = None
        self.ending = self.limited = False

    @property
    def exit_code(self) -> int:
        """What a shell expects after a signal: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + (signal.SIGINT if self.number is None else self.number)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise `Stopped`, once."""
        if self.ending:
            return
        self.number, self.ending = number, True
        raise Stopped(number)

    def watch(self, pipe: int) -> None:
        """Set the time limit as soon as a signal comes, even while the main thread waits where Python runs no handlers."""
        while received := os.read(pipe, 1):
            if received[0] in SIGNALS and not self.limited:
                end_within(self.seconds, WORD, 128 + received[0])
                return


_active: Stop | None = None


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Let the signals that ask a program to end raise `Stopped` in the main thread, so that it can tidy up.

    Only the first one counts. A program that has not ended `VITRAIL_STOP_SECONDS` later is ended as it is. Signals that whoever started
    the program has told it to ignore stay ignored. Outside of the main thread nothing happens.

    Raises:
        InvalidInputError: The environment variable holds no positive number.
    """
    global _active
    stop = Stop(stop_seconds())
    if threading.current_thread() is not threading.main_thread() or _active is not None:
        yield stop
        return
    handled = [each for each in SIGNALS if signal.getsignal(each) not in (signal.SIG_IGN, None)]
    before = {each: signal.getsignal(each) for each in handled}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    thread = threading.Thread(target=stop.watch, args=(reading,), daemon=True, name="vitrail-stop")
    thread.start()
    wakeup, _active = signal.set_wakeup_fd(writing, warn_on_full_buffer=False), stop
    for each in handled:
        signal.signal(each, stop.handle)
    try:
        yield stop
    finally:
        _active = None
        signal.set_wakeup_fd(wakeup)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(writing)  # The thread ends, unless it counts the seconds already.
        thread.join(0.1)
        if not thread.is_alive():
            os.close(reading)


def end_main_thread(seconds: float, message: str, code: int) -> None:
    """Have the main thread end as if by SIGTERM, and the process in some seconds whatever it is doing; called from another thread."""
    if _active is not None:
        _active.limited = True
    end_within(seconds, message, code)
    main = threading.main_thread().ident
    if _active is not None and hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGTERM)  # Wakes it up, too.
    else:
        import _thread  # noqa: PLC0415 (only where no handler of ours is there)

        _thread.interrupt_main()


def end_within(seconds: float, message: str, code: int) -> threading.Timer:
    """End this process in some seconds, whatever it is doing, unless what is returned is cancelled."""

    def end() -> None:
        from vitrail.core.peers import speaks_first  # noqa: PLC0415 (needs this module)

        with suppress(Exception):
            if speaks_first():
                sys.stderr.write(f"{message}\n")
                sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer


# A forked process, such as one that reads images, is stopped as any other, and never writes to the pipe of its parent. Signals wait while
# it is made.


def _hold_back() -> None:
    if _active is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _go_on() -> None:
    if _active is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _forget() -> None:
    global _active
    if _active is not None:
        signal.set_wakeup_fd(-1)
        for each in SIGNALS:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        _go_on()
        _active = None


if hasattr(os, "register_at_fork") and hasattr(signal, "pthread_sigmask"):
    os.register_at_fork(before=_hold_back, after_in_parent=_go_on, after_in_child=_forget)
