"""Keep what transformers prints away from users."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

from vitrail.adapters.quiet_hub import quiet_hub


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Suppress progress bars and tables: vitrail's own messages report problems."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with quiet_hub():
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
