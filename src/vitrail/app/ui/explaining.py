"""What happens when users press Explain, and while they wait."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import gradio as gr

from vitrail.app.background import Progress, run_with_progress
from vitrail.app.explain_request import PREDICTED, TOP, ExplainResult, carry_methods
from vitrail.app.number_format import format_output
from vitrail.app.service import ExplainService
from vitrail.app.ui.errors import naming_side_b, show_stream_errors
from vitrail.app.ui.layout import RequestForm, ResultView
from vitrail.app.ui.queueing import QUIET, WORK
from vitrail.app.ui.render import Look, render_results
from vitrail.app.ui.style import BUSY_JS, MARK_JS, NEW_RESULT_JS, NO_RESULT_JS, STOP_JS
from vitrail.app.ui.templates import MEASURING, render_progress, render_status
from vitrail.core.progress import portion


def connect_explain(
    service: ExplainService,
    form: RequestForm,
    view: ResultView,
    listed: gr.HTML,
    results: gr.State,
    measured: gr.State,
    measuring: Any,
) -> None:
    """Connect the button Explain, the progress of its work, and the button that stops it.

    Args:
        service: Explains photos.
        form: What is asked.
        view: Shows the answer.
        listed: The model whose methods and classes are listed.
        results: The results that are shown.
        measured: Their curves.
        measuring: The event that measures curves; a new result cancels it.
    """

    # Not `explain`: Gradio names events by their handlers, and that is the name of an endpoint.
    def submit(
        photo: Any, model: str, listed_model: str, methods: list[str], target: str, compare: bool, photo_b: Any,
        target_b: str, palette: str, smooth: bool,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        unchanged = (gr.skip(),) * 7
        yield render_status("Explaining ..."), "", *unchanged
        # What is chosen may be meant for another model: explain by what the page is about to choose.
        if listed_model != model and isinstance(methods, list):
            methods = carry_methods(methods, service.list_methods(listed_model)[0], service.list_methods(model))
            target = target_b = PREDICTED
        requests = [(photo, target), (photo_b or photo, target_b)][: 1 + bool(compare)]

        def explain_sides() -> list[ExplainResult]:
            sides = list[ExplainResult]()
            for i, (file, asked) in enumerate(requests):
                with portion(i, len(requests)), naming_side_b() if i else nullcontext():
                    sides.append(service.explain(file and file["path"], model, methods, asked))
            return sides

        for item in run_with_progress(explain_sides):
            if isinstance(item, Progress):
                # Screen readers announce every change of the status line: it does not change with the progress.
                yield gr.skip(), render_progress("Explaining", item), *unchanged
            else:
                yield show(item, Look.choose(palette, smooth))

    def show(sides: list[ExplainResult], look: Look) -> tuple[Any, ...]:
        predictions = " and ".join(
            f"{side.row.title}: {side.target}, {format_output(side.probability, side.output)}" for side in sides
        )
        choices = gr.update(choices=_list_choices(sides[0])), gr.update(choices=_list_choices(sides[-1]))
        return render_status(f"Explained. {predictions}."), "", render_results(sides, look), sides, None, "", *choices, None

    inputs = [
        form.photo, form.model, listed, form.methods, form.target, form.compare, form.photo_b, form.target_b, view.palette, view.smooth,
    ]  # fmt: skip
    outputs = [
        view.status, view.progress, view.results, results, measured, view.curves, form.target, form.target_b, view.files,
    ]  # fmt: skip
    form.explain.click(None, None, view.status, js=BUSY_JS, **QUIET)
    handler = show_stream_errors(submit, outputs, view.status, view.progress)
    # As the browser sends it: Gradio would refuse methods that are no longer listed once the model that was just chosen is loaded.
    explaining = form.explain.click(handler, inputs, outputs, cancels=[measuring], preprocess=False, **WORK)
    explaining.success(None, view.status, view.notice, js=NEW_RESULT_JS, **QUIET)
    shown = [view.status, view.progress]
    explaining.failure(None, shown, [*shown, view.notice], js=NO_RESULT_JS, **QUIET)
    # If the request failed, remove the progress of the curves that it canceled.
    explaining.then(
        lambda mark: "" if MEASURING in (mark or "") else gr.skip(), view.curves, view.curves, js=MARK_JS, queue=False, **QUIET
    )
    view.stop.click(None, view.status, view.status, js=STOP_JS, **QUIET)
    view.stop.click(None, None, None, cancels=[explaining], api_visibility="private")


def _list_choices(side: ExplainResult) -> list[str | tuple[str, str]]:
    """List the most probable classes, then all others by name."""
    top = [(f"{name} ({format_output(share, side.output)})", name) for name, share in side.classes[:TOP]]
    return [PREDICTED, *top, *sorted(name for name, _ in side.classes[TOP:])]
