"""The page: it only wires. What it says is made in `views`, what it does in `desk`."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from vitrail.app.asking import PREDICTED, TOP, Answered
from vitrail.app.curve_views import curves_drawn, progress_bar
from vitrail.app.desk import Desk
from vitrail.app.downloads import write_downloads
from vitrail.app.examples import examples
from vitrail.app.markup import escaped, failure
from vitrail.app.programs import offer_functions
from vitrail.app.style import OPACITY_JS
from vitrail.app.views import Look, results
from vitrail.errors import VitrailError
from vitrail.metrics import Curves

logger = logging.getLogger(__name__)

LEAD = (
    "<h1>Why did the model decide that?</h1><p>Give a photo, choose a model and methods, and see which patches spoke for the class. "
    "Nothing leaves this server, and photos are deleted.</p>"
)
UNEXPECTED = "something went wrong on the server, and was written to its log; try again, or another photo or method"
NO_ANSWER = "expected an explained photo, got none; press Explain first"


def build_page(desk: Desk, folder: Path) -> gr.Blocks:
    """Lay the page out, and connect it.

    Args:
        desk: Answers the questions.
        folder: Of the files that visitors download; each visitor has a folder of their own in it, which goes when they go.
    """
    keep, first = desk.limits.keep_seconds, desk.shelf.names[0]
    methods = desk.methods(first)
    photos = _written(folder)
    with gr.Blocks(title="vitrail", analytics_enabled=False, delete_cache=(min(keep, 300), keep)) as page:
        answered = gr.State(None, time_to_live=keep)
        measured = gr.State(None, time_to_live=keep)
        own_folder = gr.State(None, time_to_live=keep, delete_callback=_remove)
        gr.HTML(LEAD, elem_id="vt-lead")
        with gr.Row(elem_id="vt-columns"):
            with gr.Column(scale=2, min_width=300):
                photo = _photo("Photo: drop, paste or choose a file", "vt-photo-a", 260)
                example = gr.Radio(list(photos), label="or an example", elem_id="vt-example")
                model = gr.Dropdown(list(desk.shelf.names), value=first, label="Model", elem_id="vt-model", filterable=False)
                chosen = gr.CheckboxGroup(methods, value=methods[:1], label="Methods", elem_id="vt-methods")
                target = _target("Class to explain", "vt-target", desk.classes(first))
                with gr.Accordion("Compare with another class, or another photo", open=False, elem_id="vt-compare"):
                    target_b = _target("Class of side B", "vt-target-b", desk.classes(first))
                    photo_b = _photo("Photo of side B; the same one if empty", "vt-photo-b", 200)
                    compare = gr.Checkbox(label="Compare two sides", elem_id="vt-compare-on")
                explain = gr.Button("Explain", variant="primary", elem_id="vt-explain")
            with gr.Column(scale=5, min_width=300):
                status = gr.HTML(_said("Choose a photo, then press Explain."), elem_id="vt-status")
                with gr.Row():
                    opacity = gr.Slider(0, 1, 0.75, step=0.05, label="Opacity of the maps", elem_id="vt-opacity")
                    palette = gr.Radio(["colour", "grey"], value="colour", label="Colours", elem_id="vt-palette")
                    smooth = gr.Checkbox(label="Blend patches", elem_id="vt-smooth")
                shown = gr.HTML(elem_id="vt-shown")
                with gr.Accordion("Is it true? Insertion and deletion curves", open=False, elem_id="vt-curves"):
                    gr.HTML(
                        "<p>Patches are brought in or taken out in the order of their relevance, and the probability of the class is "
                        "measured. A true map rises fast and falls fast.</p>"
                    )
                    with gr.Row():
                        measure = gr.Button("Measure curves", elem_id="vt-measure")
                        cancel = gr.Button("Cancel", variant="stop", elem_id="vt-cancel")
                    curves = gr.HTML(elem_id="vt-curves-shown")
                with gr.Accordion("Download", open=False, elem_id="vt-download"):
                    prepare = gr.Button("Prepare sheet (PNG), arrays (npz) and page (HTML)", elem_id="vt-prepare")
                    files = gr.File(label="Files", file_count="multiple", interactive=False, elem_id="vt-files")

        def ask(
            photo: str | None, model: str, methods: list[str], target: str, both: bool, photo_b: str | None, target_b: str,
            palette: str, smooth: bool,
        ) -> tuple[Any, ...]:  # fmt: skip
            side = desk.answer(photo, model, methods, target)
            sides = [side]
            if both:
                sides.append(desk.answer(photo_b or photo, model, methods, target_b))
            words = " and ".join(f"{one.row.title}: {one.target}, {one.probability:.1%}" for one in sides)
            choices = gr.update(choices=_offered(side))
            return sides, None, _said(f"Explained. {words}."), _drawn(sides, palette, smooth), "", choices, None

        def redraw(sides: list[Answered] | None, palette: str, smooth: bool) -> Any:
            return _drawn(sides, palette, smooth) if sides else gr.skip()

        def measure_all(sides: list[Answered] | None) -> Iterator[tuple[Any, str]]:
            if not sides:
                raise VitrailError(NO_ANSWER)
            for item in desk.curves(sides):
                yield (item, curves_drawn(item)) if isinstance(item, list) else (gr.skip(), progress_bar(item))

        def prepare_files(
            sides: list[Answered] | None, curves: list[dict[str, Curves]] | None, old: str | None, share: float, palette: str
        ) -> tuple[Any, Any, str]:
            if not sides:
                raise VitrailError(NO_ANSWER)
            _remove(old)
            own = tempfile.mkdtemp(dir=folder)
            made = write_downloads(Path(own), sides, curves or (), share, "grey" if palette == "grey" else "colour")
            return own, [str(path) for path in made], _said("The files are ready.")

        def change_model(model: str) -> tuple[Any, ...]:
            names, fresh = desk.methods(model), gr.update(choices=[PREDICTED, *desk.classes(model)], value=PREDICTED)
            return gr.update(choices=names, value=names[:1]), fresh, fresh, _said(f"{model} is ready.")

        asked = [photo, model, chosen, target, compare, photo_b, target_b, palette, smooth]
        answers = [answered, measured, status, shown, curves, target, files]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        busy: dict[str, Any] = {"fn": lambda: _said("Explaining ..."), "outputs": status, "queue": False, **quiet}
        for event in (explain.click, target.input):
            event(**busy).then(_told(ask, answers, status), asked, answers, **quiet)
        model.input(
            _told(change_model, [chosen, target, target_b, status], status), model, [chosen, target, target_b, status], **quiet
        )
        example.input(_told(lambda name: photos[name], [photo], None), example, photo, **quiet)
        gr.on([photo.input, example.input], lambda: PREDICTED, None, target, **quiet)
        gr.on([palette.input, smooth.input], redraw, [answered, palette, smooth], shown, **quiet)
        opacity.input(None, opacity, None, js=OPACITY_JS, api_visibility="private")
        running = measure.click(_told_on_the_way(measure_all, curves), answered, [measured, curves], **quiet)
        # What was on its way when the work was stopped comes first.
        stopped = cancel.click(None, None, None, cancels=[running], api_visibility="private")
        stopped.then(lambda: _said("Stopped."), None, curves, queue=False, **quiet)
        file_answers = [own_folder, files, status]
        prepare.click(
            _told(prepare_files, file_answers, status),
            [answered, measured, own_folder, opacity, palette],
            file_answers,
            **quiet,
        )
        offer_functions(desk)
    return page


def _written(folder: Path) -> dict[str, str]:
    """The examples as files, lossless, under their names."""
    found = dict[str, str]()
    for name, draw in examples().items():
        found[name] = str(folder / f"{name}.png")
        draw().save(found[name])
    return found


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


def _offered(side: Answered) -> list[str | tuple[str, str]]:
    """The most probable classes first, then all others by name."""
    top = [(f"{word} ({share:.1%})", word) for word, share in side.classes[:TOP]]
    rest = sorted(word for word, _ in side.classes[TOP:])
    return [PREDICTED, *top, *rest]


def _drawn(sides: Sequence[Answered], palette: str, smooth: bool) -> str:
    return results(sides, Look("grey" if palette == "grey" else "colour", "bilinear" if smooth else "nearest"))


def _said(words: str) -> str:
    return f'<p class="vt-status" role="status">{escaped(words)}</p>'


def _told(act: Callable[..., Any], outputs: Sequence[Any], where: Any) -> Callable[..., Any]:
    """Turn errors into sentences on the page; what was shown before stays."""

    @wraps(act)
    def safe(*inputs: Any) -> Any:
        try:
            return act(*inputs)
        except Exception as error:
            if where is None:
                raise gr.Error(_sentence(error), print_exception=False) from error
            answers = [failure(_sentence(error)) if output is where else gr.skip() for output in outputs]
            return answers if len(answers) > 1 else answers[0]

    return safe


def _told_on_the_way(act: Callable[..., Iterator[Any]], where: Any) -> Callable[..., Iterator[Any]]:
    @wraps(act)
    def safe(*inputs: Any) -> Iterator[Any]:
        try:
            yield from act(*inputs)
        except Exception as error:  # noqa: BLE001 (told and logged)
            yield gr.skip(), failure(_sentence(error))

    return safe


def _sentence(error: Exception) -> str:
    if isinstance(error, VitrailError):
        return str(error)
    logger.error("an answer failed", exc_info=error)
    return UNEXPECTED


def _remove(folder: str | None) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
