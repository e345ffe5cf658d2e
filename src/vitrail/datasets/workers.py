"""Errors of data loaders whose worker processes were killed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from vitrail.core.errors import ProcessError
from vitrail.core.peers import is_killed_worker

FEWER_WORKERS_HINT = "start again with fewer --workers or a smaller --batch-size"

HANDLER_SECONDS = 0.5
"""How long a signal that ended a worker may take to reach this process, too, and torch's signal handler to report the worker's death."""

STOPPED = ("Terminated", "Hangup", "Interrupt")
"""In torch's words: signals that ask a process to end, which schedulers and terminals send to all processes of a program."""


@contextmanager
def explain_killed_workers(remedy: str) -> Iterator[None]:
    """Replace torch's errors about killed data loader workers by one that states the likely cause and a remedy.

    Args:
        remedy: The last part of the error message: what to do.

    Raises:
        ProcessError: A worker was killed inside this context. Not if the signal is one for the whole program, which ends by it as if there
            were no workers.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:  # The latter two: a worker was killed while it sent an image.
        if isinstance(error, RuntimeError) and not is_killed_worker(error):
            raise
        if (interruption := _find_interruption(error)) is not None:
            raise interruption from None
        report: Exception = error
        try:
            time.sleep(HANDLER_SECONDS)
        except RuntimeError as second:  # torch's signal handler raises it at an arbitrary point of the program.
            report = second
        raise ProcessError(
            f"a process that reads images was killed{_describe_death(report)}; results written so far are intact: {remedy}"
        ) from error


def _find_interruption(error: BaseException) -> KeyboardInterrupt | None:
    """Return what this process was ending by when the death of a worker was reported."""
    while (earlier := error.__context__) is not None:
        if isinstance(earlier, KeyboardInterrupt):
            return earlier
        error = earlier
    return None


def _describe_death(report: Exception) -> str:
    words = str(report).partition("\n")[0].strip().rstrip(".") if is_killed_worker(report) else ""
    details = f" ({words})" if words else ""
    return details if words.endswith(STOPPED) else f"{details}, probably because memory ran out"
