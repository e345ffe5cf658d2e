"""Errors as messages on the page: no traceback, and everything else on the page stays."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import gradio as gr

from vitrail.app.ui.plain_errors import SIDE_B, say_plainly
from vitrail.app.ui.templates import render_error
from vitrail.core.errors import VitrailError

logger = logging.getLogger(__name__)

UNEXPECTED = "something went wrong on the server, and was written to its log; try again, or another photo or method"


def show_errors(function: Callable[..., Any], outputs: Sequence[Any], status: Any) -> Callable[..., Any]:
    """Wrap an event handler so that its errors are shown in a component.

    Args:
        function: Returns values for the outputs.
        outputs: Components.
        status: The output that shows errors.
    """

    @wraps(function)
    def wrapper(*inputs: Any) -> Any:
        try:
            return function(*inputs)
        except Exception as error:  # noqa: BLE001 (shown and logged)
            updates = _error_updates(error, outputs, status)
            return updates if len(updates) > 1 else updates[0]

    return wrapper


def show_stream_errors(
    function: Callable[..., Iterator[Any]], outputs: Sequence[Any], status: Any, progress: Any
) -> Callable[..., Iterator[Any]]:
    """Wrap an event handler that yields values, like `show_errors`.

    Args:
        function: Yields values for the outputs.
        outputs: See `show_errors`.
        status: See `show_errors`.
        progress: The output that shows progress; an error empties it.
    """

    @wraps(function)
    def wrapper(*inputs: Any) -> Iterator[Any]:
        try:
            yield from function(*inputs)
        except Exception as error:  # noqa: BLE001 (shown and logged)
            yield [
                "" if output is progress else update
                for output, update in zip(outputs, _error_updates(error, outputs, status), strict=True)
            ]

    return wrapper


def raise_gradio_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an endpoint so that API clients get its errors as messages of Gradio."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise gr.Error(public_message(error), print_exception=False) from error

    return wrapper


@contextmanager
def naming_side_b() -> Iterator[None]:
    """Say that errors of the block are about side B."""
    try:
        yield
    except VitrailError as error:
        raise VitrailError(f"{SIDE_B}{error}") from error


def public_message(error: Exception) -> str:
    """Return the message of one of our errors; any other error is logged, and its message stays private."""
    if isinstance(error, VitrailError):
        return str(error)
    logger.error("a request failed", exc_info=error)
    return UNEXPECTED


def _error_updates(error: Exception, outputs: Sequence[Any], status: Any) -> list[Any]:
    message = render_error(say_plainly(public_message(error)))
    return [message if output is status else gr.skip() for output in outputs]
