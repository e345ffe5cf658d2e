"""Keep the retries of the Hugging Face hub's client away from users: the error that follows says what went wrong, and what to do."""

import logging
from contextlib import AbstractContextManager

from vitrail.core.hooks import attributes


def quiet_hub() -> AbstractContextManager[None]:
    """Suppress the client's warnings of every failed attempt to connect."""
    return attributes([logging.getLogger("huggingface_hub.utils._http")], disabled=True)
