"""The page: what happens when something is pressed. What is said is made in `views`, what is done in `service`."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from vitrail.app.downloads import write_downloads
from vitrail.app.endpoints import AT_ONCE, TURNS, offer_functions
from vitrail.app.explain_request import PREDICTED, TOP, ExplainResult
from vitrail.app.service import ExplainService
from vitrail.app.temporary_files import Folders
from vitrail.app.ui.curves import curves_drawn, progress_bar
from vitrail.app.ui.errors import tell_progress, told
from vitrail.app.ui.layout import Question, Reply, example_files, lay_out
from vitrail.app.ui.markup import failure, said
from vitrail.app.ui.render import Look, results
from vitrail.app.ui.style import BUSY_JS, LOAD_JS, MARK_JS, MEASURING, OPACITY_JS, WAITING, WAITING_JS
from vitrail.core.errors import VitrailError
from vitrail.metrics import Curves

NO_ANSWER = "expected an explained photo, got none; press Explain first"
TURNED_AWAY = "the server did not take the question: too many wait, or what was sent is no longer there; try again in a moment"

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# What is asked last is what the visitor wants, also while an answer is on its way.
WORK: dict[str, Any] = {**QUIET, "concurrency_id": TURNS, "concurrency_limit": AT_ONCE, "trigger_mode": "always_last"}

Measured = tuple[list[ExplainResult], list[dict[str, Curves]]]
"""Curves, and the answers that they are of."""


def build_page(service: ExplainService, folders: Folders) -> gr.Blocks:
    """Lay the page out, and connect it.

    Args:
        service: Answers the questions.
        folders: Of files that visitors download; each visitor has a folder of their own there, which goes when they go.
    """
    keep, photos = service.limits.keep_seconds, example_files(folders.downloads)
    with gr.Blocks(title="vitrail", analytics_enabled=False, delete_cache=(min(keep, 300), keep)) as page:
        question, reply = lay_out(service)
        answered, measured = gr.State(None, time_to_live=keep), gr.State(None, time_to_live=keep)
        own_folder = gr.State(None, time_to_live=keep, delete_callback=_remove)
        measuring = _measuring(service, reply, answered, measured)
        _asking(service, question, reply, answered, measured, measuring)
        _choosing(service, question, reply, answered, dict(photos))
        _drawing(reply, answered)
        _downloading(service, folders, reply, answered, measured, own_folder)
        page.load(None, js=LOAD_JS, api_visibility="private")
        offer_functions(service)
    return page


def _asking(
    service: ExplainService, question: Question, reply: Reply, answered: gr.State, measured: gr.State, measuring: Any
) -> None:
    def ask(
        photo: str | None, model: str, methods: list[str], target: str, both: bool, photo_b: str | None, target_b: str,
        palette: str, smooth: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        sides = [service.answer(photo, model, methods, target)]
        if both:
            sides.append(service.answer(photo_b or photo, model, methods, target_b))
        words = " and ".join(f"{one.row.title}: {one.target}, {one.probability:.1%}" for one in sides)
        choices = gr.update(choices=_offered(sides[0])), gr.update(choices=_offered(sides[-1]))
        return sides, None, said(f"Explained. {words}."), _drawn(sides, palette, smooth), "", *choices, None

    asked = [
        question.photo, question.model, question.methods, question.target, question.compare, question.photo_b, question.target_b,
        reply.palette, reply.smooth,
    ]  # fmt: skip
    answers = [answered, measured, reply.status, reply.shown, reply.curves, question.target, question.target_b, reply.files]
    question.explain.click(None, None, reply.status, js=BUSY_JS, **QUIET)
    # Curves of an answer that is replaced are not waited for.
    asking = question.explain.click(told(ask, answers, reply.status), asked, answers, cancels=[measuring], **WORK)
    _tell_if_turned_away(asking, reply.status)
    # Where it failed, the curves that it ended stay half-done.
    asking.then(
        lambda mark: "" if MEASURING in (mark or "") else gr.skip(),
        reply.curves,
        reply.curves,
        js=MARK_JS,
        queue=False,
        **QUIET,
    )


def _choosing(service: ExplainService, question: Question, reply: Reply, answered: gr.State, photos: dict[str, str]) -> None:
    def change_model(model: str) -> tuple[Any, ...]:
        names, fresh = service.methods(model), gr.update(choices=[PREDICTED, *service.classes(model)], value=PREDICTED)
        return gr.update(choices=names, value=names[:1]), fresh, fresh, said(f"{model} is ready.")

    def fresh_target(sides: list[ExplainResult] | None, model: str) -> Any:
        # What was chosen for the photo before is not meant for this one; what was chosen before any photo is.
        return gr.update(choices=[PREDICTED, *service.classes(model)], value=PREDICTED) if sides else gr.skip()

    changed = [question.methods, question.target, question.target_b, reply.status]
    # `select`, since this kit calls it `input` too when a list is only left.
    choosing = question.model.select(told(change_model, changed, reply.status), question.model, changed, **WORK)
    _tell_if_turned_away(choosing, reply.status)
    question.example.input(lambda name: photos.get(name), question.example, question.photo, **QUIET)
    question.photo.input(lambda: None, None, question.example, **QUIET)
    new_photo = gr.on(
        [question.photo.input, question.example.input], fresh_target, [answered, question.model], question.target, **QUIET
    )
    _tell_if_turned_away(new_photo, reply.status)
    gr.on([question.photo_b.upload, question.target_b.select], None, None, question.compare, js="() => true", **QUIET)


def _drawing(reply: Reply, answered: gr.State) -> None:
    def redraw(sides: list[ExplainResult] | None, palette: str, smooth: bool) -> Any:
        return _drawn(sides, palette, smooth) if sides else gr.skip()

    look = [answered, reply.palette, reply.smooth]
    gr.on([reply.palette.input, reply.smooth.input], told(redraw, [reply.shown], reply.shown), look, reply.shown, **QUIET)
    reply.opacity.input(None, reply.opacity, None, js=OPACITY_JS, api_visibility="private")


def _measuring(service: ExplainService, reply: Reply, answered: gr.State, measured: gr.State) -> Any:
    def measure(sides: list[ExplainResult] | None) -> Iterator[tuple[Any, Any, Any]]:
        if not sides:
            raise VitrailError(NO_ANSWER)
        # Said once: a line that changed with every step would be read out with every step.
        yield None, gr.skip(), said("Measuring curves ...")
        for item in service.curves(sides):
            if isinstance(item, list):
                yield (sides, item), curves_drawn(item), said("Curves are measured.")
            else:
                yield gr.skip(), progress_bar(item), gr.skip()

    def turned_away(mark: str | None) -> tuple[Any, Any]:
        # For the kit, work that was stopped has failed as well.
        return ("", failure(TURNED_AWAY)) if WAITING in (mark or "") else (gr.skip(), gr.skip())

    def stop(mark: str | None) -> tuple[Any, Any]:
        # Where nothing was being measured, there is nothing to stop.
        return ("", said("Stopped.")) if MEASURING in (mark or "") else (gr.skip(), gr.skip())

    outputs = [measured, reply.curves, reply.status]
    reply.measure.click(None, None, reply.curves, js=WAITING_JS, **QUIET)
    measuring = reply.measure.click(tell_progress(measure, outputs, reply.status, reply.curves), answered, outputs, **WORK)
    measuring.failure(turned_away, reply.curves, [reply.curves, reply.status], js=MARK_JS, queue=False, **QUIET)
    # What was on its way when the work was stopped comes first.
    stopped = reply.cancel.click(None, None, None, cancels=[measuring], api_visibility="private")
    stopped.then(stop, reply.curves, [reply.curves, reply.status], js=MARK_JS, queue=False, **QUIET)
    return measuring


def _downloading(
    service: ExplainService, folders: Folders, reply: Reply, answered: gr.State, measured: gr.State, own_folder: gr.State
) -> None:
    def prepare(
        sides: list[ExplainResult] | None, found: Measured | None, old: str | None, opacity: float, palette: str
    ) -> tuple[Any, Any, str]:
        if not sides:
            raise VitrailError(NO_ANSWER)
        if folders.stored_bytes() > service.limits.num_stored:
            raise VitrailError("there is no room for more files at the moment; try again later")
        # Curves of other answers are none of these.
        curves = found[1] if found and found[0] is sides else ()
        own = tempfile.mkdtemp(dir=folders.downloads)
        try:
            made = write_downloads(Path(own), sides, curves, opacity, "gray" if palette == "gray" else "color")
        except BaseException:
            _remove(own)
            raise
        _remove(old)
        return own, [str(path) for path in made], said("The files are ready.")

    outputs = [own_folder, reply.files, reply.status]
    asked = [answered, measured, own_folder, reply.opacity, reply.palette]
    _tell_if_turned_away(reply.prepare.click(told(prepare, outputs, reply.status), asked, outputs, **WORK), reply.status)


def _tell_if_turned_away(event: Any, status: gr.HTML) -> None:
    """Errors of the work itself are told by `told`; this is for what never reached it."""
    event.failure(lambda: failure(TURNED_AWAY), None, status, queue=False, **QUIET)


def _offered(side: ExplainResult) -> list[str | tuple[str, str]]:
    """The most probable classes first, then all others by name."""
    top = [(f"{word} ({share:.1%})", word) for word, share in side.classes[:TOP]]
    rest = sorted(word for word, _ in side.classes[TOP:])
    return [PREDICTED, *top, *rest]


def _drawn(sides: Sequence[ExplainResult], palette: str, smooth: bool) -> str:
    return results(sides, Look("gray" if palette == "gray" else "color", "bilinear" if smooth else "nearest"))


def _remove(folder: str | None) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
