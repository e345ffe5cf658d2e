"""How events of the page wait for their turn, and what is shown if the server refuses them."""

from typing import Any

import gradio as gr

from vitrail.app.endpoints import NUM_WORKERS, QUEUE
from vitrail.app.ui.templates import render_error

REFUSED = "The server did not accept the request: too many wait, or an upload was removed already. Try again in a moment."

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# The last request counts, also while a result is on its way.
WORK: dict[str, Any] = {**QUIET, "concurrency_id": QUEUE, "concurrency_limit": NUM_WORKERS, "trigger_mode": "always_last"}


def report_refusals(status: gr.HTML, *events: Any) -> None:
    """Show an error if an event never reaches its handler, whose own errors `show_errors` shows."""
    for event in events:
        event.failure(lambda: render_error(REFUSED), None, status, queue=False, **QUIET)
