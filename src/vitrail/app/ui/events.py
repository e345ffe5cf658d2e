"""The events of the page: what happens when a component changes. `layout` creates the components, `service` does the work."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from vitrail.app.downloads import write_downloads
from vitrail.app.endpoints import register_endpoints
from vitrail.app.explain_request import ExplainResult
from vitrail.app.service import ExplainService
from vitrail.app.temporary_files import TemporaryFolders
from vitrail.app.ui.choices import connect_choices
from vitrail.app.ui.errors import show_errors, show_stream_errors
from vitrail.app.ui.explaining import connect_explain
from vitrail.app.ui.layout import ResultView, lay_out_page, write_examples
from vitrail.app.ui.queueing import QUIET, REFUSED, WORK, report_refusals
from vitrail.app.ui.render import Look, render_results
from vitrail.app.ui.render_curves import render_curves
from vitrail.app.ui.style import LOAD_JS, MARK_JS, OPACITY_JS, WAITING_JS
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
        # The model whose methods and classes are listed: not the chosen one while that is loaded. In the browser, since it belongs to what
        # the browser sends with it.
        listed = gr.HTML(service.pool.names[0], elem_classes="vt-hidden")
        results, measured = gr.State(None, time_to_live=keep), gr.State(None, time_to_live=keep)
        download_folder = gr.State(None, time_to_live=keep, delete_callback=_remove_folder)
        measuring = _connect_curves(service, view, results, measured)
        connect_explain(service, form, view, listed, results, measured, measuring)
        connect_choices(service, form, view, listed, results, dict(examples))
        _connect_look(view, results)
        _connect_downloads(service, folders, view, results, measured, download_folder)
        page.load(None, js=LOAD_JS.replace("MAX_BYTES", str(service.limits.num_bytes)), api_visibility="private")
        register_endpoints(service)
    return page


def _connect_look(view: ResultView, results: gr.State) -> None:
    def redraw(sides: list[ExplainResult] | None, palette: str, smooth: bool) -> Any:
        return render_results(sides, Look.choose(palette, smooth)) if sides else gr.skip()

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
                yield gr.skip(), render_progress("Measuring", item), gr.skip()

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
            paths = write_downloads(Path(folder), sides, curves, Look.choose(palette, smooth), opacity)
        except BaseException:
            _remove_folder(folder)
            raise
        _remove_folder(old)
        return folder, [str(path) for path in paths], render_status("The files are ready.")

    inputs = [results, measured, download_folder, view.opacity, view.palette, view.smooth]
    outputs = [download_folder, view.files, view.status]
    preparing = view.prepare.click(show_errors(prepare, outputs, view.status), inputs, outputs, **WORK)
    report_refusals(view.status, preparing)


def _remove_folder(folder: str | None) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
