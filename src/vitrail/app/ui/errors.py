"""Errors as sentences on the page; never a traceback, and what was shown before stays."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any

import gradio as gr

from vitrail.app.ui.markup import failure
from vitrail.core.errors import VitrailError

logger = logging.getLogger(__name__)

UNEXPECTED = "something went wrong on the server, and was written to its log; try again, or another photo or method"


def told(act: Callable[..., Any], outputs: Sequence[Any], where: Any) -> Callable[..., Any]:
    """Make a function say its errors.

    Args:
        act: Gives values for the outputs.
        outputs: Parts of the page.
        where: The one of them that shows errors.
    """

    @wraps(act)
    def safe(*inputs: Any) -> Any:
        try:
            return act(*inputs)
        except Exception as error:  # noqa: BLE001 (told and logged)
            answers = _answers(error, outputs, where)
            return answers if len(answers) > 1 else answers[0]

    return safe


def tell_progress(
    act: Callable[..., Iterator[Any]], outputs: Sequence[Any], where: Any, unfinished: Any
) -> Callable[..., Iterator[Any]]:
    """The same for a function that gives values again and again.

    Args:
        act: See `told`.
        outputs: See `told`.
        where: See `told`.
        unfinished: The output that shows how far the work is; it is emptied.
    """

    @wraps(act)
    def safe(*inputs: Any) -> Iterator[Any]:
        try:
            yield from act(*inputs)
        except Exception as error:  # noqa: BLE001 (told and logged)
            yield [
                "" if output is unfinished else answer
                for output, answer in zip(outputs, _answers(error, outputs, where), strict=True)
            ]

    return safe


def refused(act: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a function that shows nothing: its errors are the kit's, with a sentence for a message."""

    @wraps(act)
    def safe(*inputs: Any, **named: Any) -> Any:
        try:
            return act(*inputs, **named)
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error

    return safe


def sentence(error: Exception) -> str:
    """What a visitor may read of an error."""
    if isinstance(error, VitrailError):
        return str(error)
    logger.error("an answer failed", exc_info=error)
    return UNEXPECTED


def _answers(error: Exception, outputs: Sequence[Any], where: Any) -> list[Any]:
    message = failure(sentence(error))
    return [message if output is where else gr.skip() for output in outputs]
