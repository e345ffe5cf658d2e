"""Errors of data loaders whose worker processes were killed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vitrail.core.errors import ProcessError
from vitrail.core.peers import is_killed_worker

FEWER_WORKERS_HINT = "start again with fewer --workers or a smaller --batch-size"

MEMORY = ", probably because memory ran out"

HANDLER_SECONDS = 0.5
"""How long torch's signal handler may take to report the death of a worker whose connection is already broken, and the signal that ended a
worker to reach this process, too."""

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
    except RuntimeError as error:
        if not is_killed_worker(error):
            raise
        if (interruption := _find_interruption(error)) is not None:
            raise interruption from None
        report = str(error).splitlines()[0].strip().rstrip(".")
        stopped = report.endswith(STOPPED)
        if stopped:
            time.sleep(HANDLER_SECONDS)
        raise _killed_error(f" ({report})" + ("" if stopped else MEMORY), remedy) from error
    except (ConnectionError, EOFError) as error:  # The worker was killed while it sent an image.
        # torch's signal handler raises a second error about the same death at an arbitrary point of the program; wait for it here.
        with suppress(RuntimeError):
            time.sleep(HANDLER_SECONDS)
        raise _killed_error(MEMORY, remedy) from error


def _find_interruption(error: BaseException) -> KeyboardInterrupt | None:
    """Return what this process was ending by when the death of a worker was reported."""
    while (earlier := error.__context__) is not None:
        if isinstance(earlier, KeyboardInterrupt):
            return earlier
        error = earlier
    return None


def _killed_error(details: str, remedy: str) -> ProcessError:
    return ProcessError(f"a process that reads images was killed{details}; results written so far are intact: {remedy}")
