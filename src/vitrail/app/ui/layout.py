"""What stands where on the page; what it does is connected in `page`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from vitrail.app.example_photos import examples
from vitrail.app.explain_request import PREDICTED
from vitrail.app.service import ExplainService
from vitrail.app.ui.markup import said

LEAD = (
    "<h1>Why did the model decide that?</h1><p>Give a photo, choose a model and methods, and see which patches spoke for the class. "
    "Nothing leaves this server, and photos are deleted.</p>"
)
CURVES = (
    "<p>Patches are brought in or taken out in the order of their relevance, and the probability of the class is measured. A true map "
    "rises fast and falls fast.</p>"
)


class Question(NamedTuple):
    """Where a visitor says what is asked."""

    photo: gr.Image
    example: gr.Radio
    model: gr.Dropdown
    methods: gr.CheckboxGroup
    target: gr.Dropdown
    compare: gr.Checkbox
    photo_b: gr.Image
    target_b: gr.Dropdown
    explain: gr.Button


class Reply(NamedTuple):
    """Where the answer stands, how it is drawn, and what can be done with it."""

    status: gr.HTML
    opacity: gr.Slider
    palette: gr.Radio
    smooth: gr.Checkbox
    shown: gr.HTML
    measure: gr.Button
    cancel: gr.Button
    curves: gr.HTML
    prepare: gr.Button
    files: gr.File


def lay_out(service: ExplainService) -> tuple[Question, Reply]:
    """Put everything in its place, inside a page.

    Args:
        service: Knows the models, their methods and their classes.
    """
    gr.HTML(LEAD, elem_id="vt-lead")
    with gr.Row(elem_id="vt-columns"):
        with gr.Column(scale=2, min_width=300):
            question = _question(service)
        with gr.Column(scale=5, min_width=300):
            reply = _reply()
    return question, reply


def example_files(folder: Path) -> Mapping[str, str]:
    """The examples as files, lossless, by their names.

    Args:
        folder: Where to; it exists.
    """
    found = dict[str, str]()
    for name, draw in examples().items():
        found[name] = str(folder / f"{name}.png")
        draw().save(found[name])
    return found


def _question(service: ExplainService) -> Question:
    first = service.pool.names[0]
    methods, classes = service.methods(first), service.classes(first)
    photo = _photo("Photo: drop, paste or choose a file", "vt-photo-a", 260)
    example = gr.Radio(list(examples()), label="or an example", elem_id="vt-example")
    model = gr.Dropdown(list(service.pool.names), value=first, label="Model", elem_id="vt-model", filterable=False)
    chosen = gr.CheckboxGroup(methods, value=methods[:1], label="Methods", elem_id="vt-methods")
    target = _target("Class to explain", "vt-target", classes)
    with gr.Accordion("Compare with another class, or another photo", open=False, elem_id="vt-compare"):
        target_b = _target("Class of side B", "vt-target-b", classes)
        photo_b = _photo("Photo of side B; the same one if empty", "vt-photo-b", 200)
        compare = gr.Checkbox(label="Compare two sides", elem_id="vt-compare-on")
    explain = gr.Button("Explain", variant="primary", elem_id="vt-explain")
    return Question(photo, example, model, chosen, target, compare, photo_b, target_b, explain)


def _reply() -> Reply:
    status = gr.HTML(said("Choose a photo, then press Explain."), elem_id="vt-status")
    with gr.Row(elem_id="vt-look"):
        opacity = gr.Slider(0, 1, 0.75, step=0.05, label="Opacity of the maps", elem_id="vt-opacity")
        palette = gr.Radio(["color", "gray"], value="color", label="Colors", elem_id="vt-palette")
        smooth = gr.Checkbox(label="Blend patches", elem_id="vt-smooth")
    shown = gr.HTML(elem_id="vt-shown")
    with gr.Accordion("Is it true? Insertion and deletion curves", open=False, elem_id="vt-curves"):
        gr.HTML(CURVES)
        with gr.Row():
            measure = gr.Button("Measure curves", elem_id="vt-measure")
            cancel = gr.Button("Cancel", variant="stop", elem_id="vt-cancel")
        curves = gr.HTML(elem_id="vt-curves-shown")
    with gr.Accordion("Download", open=False, elem_id="vt-download"):
        prepare = gr.Button("Prepare sheet (PNG), arrays (npz) and page (HTML)", elem_id="vt-prepare")
        files = gr.File(label="Files", file_count="multiple", interactive=False, elem_id="vt-files")
    return Reply(status, opacity, palette, smooth, shown, measure, cancel, curves, prepare, files)


def _photo(label: str, name: str, height: int) -> gr.Image:
    image = gr.Image(
        label=label, type="filepath", image_mode=None, sources=["upload", "clipboard"], elem_id=name, height=height, buttons=[]
    )
    # The kit would decode the file before its size is looked at, and fetch an address that is given instead of a file.
    image.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    return image


def _target(label: str, name: str, classes: Sequence[str]) -> gr.Dropdown:
    return gr.Dropdown(
        [PREDICTED, *classes], value=PREDICTED, label=label, elem_id=name, allow_custom_value=True, info="A name or a number."
    )
