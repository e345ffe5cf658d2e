"""Work that is done again and again while the page is served."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_PATIENCE = 5.0


@contextmanager
def repeat_cleanup(work: Callable[[], None], seconds: int | float) -> Iterator[None]:
    """Do some work again and again, beside the block, for as long as it lasts.

    Args:
        work: If it fails, that is written to the log, and it is tried again.
        seconds: The pause between two times.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            try:
                work()
            except Exception:
                logger.exception("old files and answers could not be removed")

    thread = threading.Thread(target=repeat, name="vitrail-repeat_cleanup", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_PATIENCE)
