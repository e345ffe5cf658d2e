"""The layout of the page; `events` connects its components."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from vitrail.app.explain_request import PREDICTED
from vitrail.app.photos import list_examples
from vitrail.app.plain_words import TERMS, describe_model, list_method_choices
from vitrail.app.service import ExplainService
from vitrail.app.ui.style import PRINT_JS, REFUSAL_JS
from vitrail.app.ui.templates import START, render_status, render_template


class RequestForm(NamedTuple):
    """Components in which users enter a request."""

    photo: gr.Image
    example: gr.Radio
    model: gr.Dropdown
    known: gr.HTML
    methods: gr.CheckboxGroup
    target: gr.Dropdown
    compare: gr.Checkbox
    photo_b: gr.Image
    target_b: gr.Dropdown
    explain: gr.Button


class ResultView(NamedTuple):
    """Components that show the result, change its look, measure curves and offer downloads."""

    status: gr.HTML
    ready: gr.HTML
    progress: gr.HTML
    stop: gr.Button
    notice: gr.HTML
    opacity: gr.Slider
    palette: gr.Radio
    smooth: gr.Checkbox
    results: gr.HTML
    measure: gr.Button
    cancel: gr.Button
    curves: gr.HTML
    prepare: gr.Button
    files: gr.File


def lay_out_page(service: ExplainService) -> tuple[RequestForm, ResultView]:
    """Create all components, inside a Gradio page.

    Args:
        service: Lists the models, their methods and their classes.
    """
    gr.HTML(render_template("lead.html", terms=TERMS), elem_id="vt-lead")
    with gr.Row(elem_id="vt-columns"):
        with gr.Column(scale=2, min_width=300):
            form = _lay_out_form(service)
        with gr.Column(scale=5, min_width=300):
            view = _lay_out_view()
    return form, view


def write_examples(folder: Path) -> Mapping[str, str]:
    """Write the example photos as PNG files, and return their paths by name.

    Args:
        folder: An existing folder.
    """
    paths = dict[str, str]()
    for name, example in list_examples().items():
        paths[name] = str(folder / f"{name}.png")
        example.make().save(paths[name])
    return paths


def render_known(service: ExplainService, model: str) -> str:
    """Render what a model can answer."""
    return render_template("known.html", text=describe_model(service.list_classes(model), service.model_output(model)))


def _lay_out_form(service: ExplainService) -> RequestForm:
    first = service.pool.names[0]
    names, classes = service.list_methods(first), service.list_classes(first)
    photo = _photo_input("Photo: drop, paste or choose a file", "vt-photo-a", 300)
    example = gr.Radio(list(list_examples()), label="or an example, with a model that knows it", elem_id="vt-example")
    model = gr.Dropdown(list(service.pool.names), value=first, label="Model", elem_id="vt-model", filterable=False)
    known = gr.HTML(render_known(service, first), elem_id="vt-known")
    methods = gr.CheckboxGroup(
        list_method_choices(names),
        value=names[:1],
        label="Ways to explain",
        info=f"Choose up to {service.limits.num_methods}. Point at one, or reach it with Tab, to see what it does.",
        elem_id="vt-methods",
    )
    target = _target_input("Class to explain", "vt-target", classes)
    with gr.Accordion("Compare two classes or photos", open=False, elem_id="vt-compare"):
        target_b = _target_input("Class of side B", "vt-target-b", classes)
        photo_b = _photo_input("Photo of side B; the same one if empty", "vt-photo-b", 240)
        compare = gr.Checkbox(label="Compare two sides", elem_id="vt-compare-on")
    explain = gr.Button("Explain", variant="primary", elem_id="vt-explain")
    return RequestForm(photo, example, model, known, methods, target, compare, photo_b, target_b, explain)


def _lay_out_view() -> ResultView:
    status = gr.HTML(render_status(START), elem_id="vt-status")
    # Scripts press it.
    gr.Button(elem_id="vt-refusal", elem_classes="vt-hidden").click(None, None, status, js=REFUSAL_JS, api_visibility="private")
    ready = gr.HTML(elem_classes="vt-hidden")
    progress = gr.HTML(elem_id="vt-progress")
    stop = gr.Button("Stop", variant="stop", size="sm", elem_id="vt-stop")
    with gr.Row(elem_id="vt-look"):
        opacity = gr.Slider(0, 1, 0.75, step=0.05, label="Opacity", elem_id="vt-opacity")
        palette = gr.Radio(["color", "gray"], value="color", label="Colors", elem_id="vt-palette")
        smooth = gr.Checkbox(label="Blend patches", elem_id="vt-smooth")
    notice = gr.HTML(elem_id="vt-notice")
    results = gr.HTML(elem_id="vt-shown")
    with gr.Accordion("Is the explanation right? Test it", open=False, elem_id="vt-curves"):
        gr.HTML(render_template("curves_lead.html", terms=TERMS))
        with gr.Row():
            measure = gr.Button("Measure curves", elem_id="vt-measure")
            cancel = gr.Button("Cancel", variant="stop", elem_id="vt-cancel")
        curves = gr.HTML(elem_id="vt-curves-shown")
    with gr.Accordion("Print or download", open=False, elem_id="vt-download"):
        gr.Button("Print, or save as PDF", elem_id="vt-print").click(None, js=PRINT_JS, api_visibility="private")
        prepare = gr.Button("Prepare files: picture (PNG), page (HTML), numbers (npz)", elem_id="vt-prepare")
        files = gr.File(label="Files", file_count="multiple", interactive=False, elem_id="vt-files")
    return ResultView(
        status, ready, progress, stop, notice, opacity, palette, smooth, results, measure, cancel, curves, prepare, files
    )


def _photo_input(label: str, element: str, height: int) -> gr.Image:
    image = gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        elem_id=element,
        height=height,
        buttons=[],
    )
    # Gradio would decode the file before its size is checked, and fetch a URL in place of a file. No event may return an update for this
    # component, since Gradio would then build it anew without this function.
    image.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    return image


def _target_input(label: str, element: str, classes: Sequence[str]) -> gr.Dropdown:
    return gr.Dropdown(
        [PREDICTED, *classes],
        value=PREDICTED,
        label=label,
        elem_id=element,
        allow_custom_value=True,
        info="A name or a number.",
    )
