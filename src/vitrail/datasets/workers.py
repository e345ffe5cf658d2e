"""Errors of data loaders whose worker processes were killed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vitrail.core.errors import ProcessError
from vitrail.core.peers import is_killed_worker

FEWER_WORKERS_HINT = "start again with fewer --workers or a smaller --batch-size"

HANDLER_SECONDS = 0.5
"""How long torch's signal handler may take to report the death of a worker whose connection is already broken."""


@contextmanager
def explain_killed_workers(remedy: str) -> Iterator[None]:
    """Replace torch's errors about killed data loader workers by one that states the likely cause and a remedy.

    Args:
        remedy: The last part of the error message: what to do.

    Raises:
        ProcessError: A worker was killed inside this context.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_killed_worker(error):
            raise
        raise _killed_error(f" ({str(error).splitlines()[0].strip().rstrip('.')})", remedy) from error
    except (ConnectionError, EOFError) as error:  # The worker was killed while it sent an image.
        # torch's signal handler raises a second error about the same death at an arbitrary point of the program; wait for it here.
        with suppress(RuntimeError):
            time.sleep(HANDLER_SECONDS)
        raise _killed_error("", remedy) from error


def _killed_error(details: str, remedy: str) -> ProcessError:
    return ProcessError(
        f"a process that reads images was killed{details}, probably because memory ran out; results written so far are intact: {remedy}"
    )
