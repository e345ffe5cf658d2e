"""The events of the page: what happens when a component changes. `layout` creates the components, `service` does the work."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from vitrail.app.downloads import write_downloads
from vitrail.app.endpoints import register_endpoints
from vitrail.app.explain_request import PREDICTED, TOP, ExplainResult
from vitrail.app.number_format import format_output
from vitrail.app.service import ExplainService
from vitrail.app.temporary_files import TemporaryFolders
from vitrail.app.ui.choices import connect_choices
from vitrail.app.ui.errors import naming_side_b, show_errors, show_stream_errors
from vitrail.app.ui.layout import RequestForm, ResultView, lay_out_page, write_examples
from vitrail.app.ui.queueing import QUIET, REFUSED, WORK, report_refusals
from vitrail.app.ui.render import Look, render_results
from vitrail.app.ui.render_curves import render_curves
from vitrail.app.ui.style import BUSY_JS, LOAD_JS, MARK_JS, NEW_RESULT_JS, OPACITY_JS, WAITING_JS
from vitrail.app.ui.templates import MEASURING, NO_RESULT, WAITING, render_error, render_progress, render_status
from vitrail.core.errors import VitrailError
from vitrail.metrics import Curves

MeasuredResults = tuple[list[ExplainResult], list[dict[str, Curves]]]
"""Results, and their curves by side and method."""


def build_page(service: ExplainService, folders: TemporaryFolders) -> gr.Blocks:
    """Build the page with its events and endpoints.

    Args:
        service: Handles the requests.
        folders: Folders of downloads; each session has one of its own, which is removed with the session.
    """
    keep, examples = service.limits.keep_seconds, write_examples(folders.downloads)
    with gr.Blocks(title="vitrail", analytics_enabled=False, delete_cache=(min(keep, 300), keep)) as page:
        form, view = lay_out_page(service)
        results, measured = gr.State(None, time_to_live=keep), gr.State(None, time_to_live=keep)
        download_folder = gr.State(None, time_to_live=keep, delete_callback=_remove_folder)
        measuring = _connect_curves(service, view, results, measured)
        _connect_explain(service, form, view, results, measured, measuring)
        connect_choices(service, form, view, results, dict(examples))
        _connect_look(view, results)
        _connect_downloads(service, folders, view, results, measured, download_folder)
        page.load(None, js=LOAD_JS.replace("MAX_BYTES", str(service.limits.num_bytes)), api_visibility="private")
        register_endpoints(service)
    return page


def _connect_explain(
    service: ExplainService, form: RequestForm, view: ResultView, results: gr.State, measured: gr.State, measuring: Any
) -> None:
    # Not `explain`: Gradio names events by their handlers, and that is the name of an endpoint.
    def submit(
        photo: str | None, model: str, methods: list[str], target: str, compare: bool, photo_b: str | None, target_b: str,
        palette: str, smooth: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        sides = [service.explain(photo, model, methods, target)]
        if compare:
            with naming_side_b():
                sides.append(service.explain(photo_b or photo, model, methods, target_b))
        predictions = " and ".join(
            f"{side.row.title}: {side.target}, {format_output(side.probability, side.output)}" for side in sides
        )
        choices = gr.update(choices=_list_choices(sides[0])), gr.update(choices=_list_choices(sides[-1]))
        status = render_status(f"Explained. {predictions}.")
        return sides, None, status, render_results(sides, _choose_look(palette, smooth)), "", *choices, None

    inputs = [
        form.photo, form.model, form.methods, form.target, form.compare, form.photo_b, form.target_b, view.palette, view.smooth,
    ]  # fmt: skip
    outputs = [results, measured, view.status, view.results, view.curves, form.target, form.target_b, view.files]
    form.explain.click(None, None, view.status, js=BUSY_JS, **QUIET)
    # A new result cancels the curves of the old one.
    explaining = form.explain.click(show_errors(submit, outputs, view.status), inputs, outputs, cancels=[measuring], **WORK)
    report_refusals(view.status, explaining)
    explaining.then(None, view.status, view.notice, js=NEW_RESULT_JS, **QUIET)
    # If the request failed, remove the progress of the curves that it canceled.
    explaining.then(
        lambda mark: "" if MEASURING in (mark or "") else gr.skip(), view.curves, view.curves, js=MARK_JS, queue=False, **QUIET
    )


def _connect_look(view: ResultView, results: gr.State) -> None:
    def redraw(sides: list[ExplainResult] | None, palette: str, smooth: bool) -> Any:
        return render_results(sides, _choose_look(palette, smooth)) if sides else gr.skip()

    inputs = [results, view.palette, view.smooth]
    handler = show_errors(redraw, [view.results], view.results)
    gr.on([view.palette.input, view.smooth.input], handler, inputs, view.results, **QUIET)
    view.opacity.input(None, view.opacity, None, js=OPACITY_JS, api_visibility="private")


def _connect_curves(service: ExplainService, view: ResultView, results: gr.State, measured: gr.State) -> Any:
    def measure(sides: list[ExplainResult] | None) -> Iterator[tuple[Any, Any, Any]]:
        if not sides:
            raise VitrailError(NO_RESULT)
        # Screen readers announce every change of the status line: it does not change with the progress.
        yield None, gr.skip(), render_status("Measuring curves ...")
        for item in service.measure_curves(sides, control=True):
            if isinstance(item, list):
                yield (sides, item), render_curves(item), render_status("Curves are measured.")
            else:
                yield gr.skip(), render_progress(item), gr.skip()

    def report_refusal(mark: str | None) -> tuple[Any, Any]:
        # Gradio calls canceled work a failure, too; only work that never started was refused.
        return ("", render_error(REFUSED)) if WAITING in (mark or "") else (gr.skip(), gr.skip())

    def stop(mark: str | None) -> tuple[Any, Any]:
        return ("", render_status("Stopped.")) if MEASURING in (mark or "") else (gr.skip(), gr.skip())

    outputs = [measured, view.curves, view.status]
    view.measure.click(None, None, view.curves, js=WAITING_JS, **QUIET)
    handler = show_stream_errors(measure, outputs, view.status, view.curves)
    measuring = view.measure.click(handler, results, outputs, **WORK)
    measuring.failure(report_refusal, view.curves, [view.curves, view.status], js=MARK_JS, queue=False, **QUIET)
    # Updates that were sent before the cancellation arrive first.
    stopped = view.cancel.click(None, None, None, cancels=[measuring], api_visibility="private")
    stopped.then(stop, view.curves, [view.curves, view.status], js=MARK_JS, queue=False, **QUIET)
    return measuring


def _connect_downloads(
    service: ExplainService,
    folders: TemporaryFolders,
    view: ResultView,
    results: gr.State,
    measured: gr.State,
    download_folder: gr.State,
) -> None:
    def prepare(
        sides: list[ExplainResult] | None,
        measured_results: MeasuredResults | None,
        old: str | None,
        opacity: float,
        palette: str,
        smooth: bool,
    ) -> tuple[Any, Any, str]:
        if not sides:
            raise VitrailError(NO_RESULT)
        if folders.stored_bytes() > service.limits.num_stored:
            raise VitrailError("there is no room for more files at the moment; try again later")
        # Curves of an earlier result are left out.
        curves = measured_results[1] if measured_results and measured_results[0] is sides else ()
        folder = tempfile.mkdtemp(dir=folders.downloads)
        try:
            paths = write_downloads(Path(folder), sides, curves, _choose_look(palette, smooth), opacity)
        except BaseException:
            _remove_folder(folder)
            raise
        _remove_folder(old)
        return folder, [str(path) for path in paths], render_status("The files are ready.")

    inputs = [results, measured, download_folder, view.opacity, view.palette, view.smooth]
    outputs = [download_folder, view.files, view.status]
    preparing = view.prepare.click(show_errors(prepare, outputs, view.status), inputs, outputs, **WORK)
    report_refusals(view.status, preparing)


def _list_choices(side: ExplainResult) -> list[str | tuple[str, str]]:
    """List the most probable classes, then all others by name."""
    top = [(f"{name} ({format_output(share, side.output)})", name) for name, share in side.classes[:TOP]]
    return [PREDICTED, *top, *sorted(name for name, _ in side.classes[TOP:])]


def _choose_look(palette: str, smooth: bool) -> Look:
    return Look("gray" if palette == "gray" else "color", "bilinear" if smooth else "nearest")


def _remove_folder(folder: str | None) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
