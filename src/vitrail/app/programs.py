"""The same for programs: functions that a client calls by name."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr
from gradio.events import api

from vitrail.app.desk import PROTOCOL, Desk, plain, plain_curves
from vitrail.errors import ImageError, VitrailError

logger = logging.getLogger(__name__)

UNEXPECTED = "something went wrong on the server, and was written to its log"


def offer_functions(desk: Desk) -> None:
    """Offer `models`, `explain` and `curves` by name, inside a page."""

    @_in_sentences
    def models() -> dict[str, Any]:
        """Every model on offer, with its methods."""
        return {name: desk.methods(name) for name in desk.shelf.names}

    @_in_sentences
    def explain(
        photo: dict[str, Any], model: str = desk.shelf.names[0], methods: list[str] | None = None, target: str | None = None
    ) -> dict[str, Any]:
        """Explain an uploaded photo: the most probable classes, and the raw numbers of every map."""
        return plain(desk.answer(_path(photo), model, methods or desk.methods(model)[:1], target), parts=True)

    @_in_sentences
    def curves(
        photo: dict[str, Any],
        model: str = desk.shelf.names[0],
        methods: list[str] | None = None,
        target: str | None = None,
        protocol: str = PROTOCOL,
    ) -> dict[str, Any]:
        """Measure insertion and deletion of an uploaded photo's maps."""
        side = desk.answer(_path(photo), model, methods or desk.methods(model)[:1], target)
        last = list(desk.curves([side], protocol))[-1]
        return plain_curves(last[0]) if isinstance(last, list) else {}

    for function in (models, explain, curves):
        api(function, api_name=function.__name__, api_description=function.__doc__)


def _path(photo: Any) -> str:
    if not isinstance(photo, dict) or not isinstance(photo.get("path"), str):
        raise ImageError("expected an uploaded photo, got something else; give gradio_client.handle_file(...)")
    return photo["path"]


def _in_sentences(act: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(act)
    def safe(*inputs: Any, **named: Any) -> Any:
        try:
            return act(*inputs, **named)
        except VitrailError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:
            logger.exception("an answer failed")
            raise gr.Error(UNEXPECTED, print_exception=False) from error

    return safe
