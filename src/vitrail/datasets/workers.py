"""Processes that read images: what it means when one is killed."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vitrail.core.errors import ProcessError

AGAIN = "start again with fewer --workers or a smaller --batch-size"
"""What to do, as a rule."""

HANDLER_SECONDS = 0.5
"""How long after a reader's connection the news of its death may come."""

_KILLED = re.compile(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\)|Pin memory thread exited unexpectedly")


@contextmanager
def explain_killed_workers(remedy: str) -> Iterator[None]:
    """Say in a sentence that a process that reads images was killed; torch raises that at any place of the block.

    Args:
        remedy: What to do about it.

    Raises:
        ProcessError: One was killed.
    """
    try:
        yield
    except RuntimeError as error:
        found = _KILLED.search(str(error))
        if found is None:
            raise
        raise _error(f" ({str(error).splitlines()[0].strip().rstrip('.')})", remedy) from error
    except (ConnectionError, EOFError) as error:  # It was killed while it handed over an image.
        # torch's handler of the same death raises too, wherever the program is: here, rather than amid its last words.
        with suppress(RuntimeError):
            time.sleep(HANDLER_SECONDS)
        raise _error("", remedy) from error


def _error(what: str, remedy: str) -> ProcessError:
    return ProcessError(
        f"a process that reads images was killed{what}, as a rule for want of memory; what is written is whole: {remedy}"
    )
