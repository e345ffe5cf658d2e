"""What happens when users choose a photo, an example or a model."""

from typing import Any

import gradio as gr

from vitrail.app.explain_request import PREDICTED, ExplainResult, carry_methods
from vitrail.app.photos import list_examples
from vitrail.app.plain_words import list_method_choices
from vitrail.app.service import ExplainService
from vitrail.app.ui.errors import show_errors
from vitrail.app.ui.layout import RequestForm, ResultView, render_known
from vitrail.app.ui.queueing import QUIET, WORK, report_refusals
from vitrail.app.ui.style import CHECKED_JS, CHOOSING_JS, NEW_MODEL_JS, NEW_PHOTO_JS, READY_JS, count_methods_js
from vitrail.app.ui.templates import READY, render_status


def connect_choices(
    service: ExplainService,
    form: RequestForm,
    view: ResultView,
    listed: gr.HTML,
    results: gr.State,
    examples: dict[str, str],
) -> None:
    """Connect the choices of a photo, an example and a model: the page follows them before anything is explained.

    Args:
        service: Loads models, checks photos, and converts those that browsers cannot show.
        form: The components in which users choose.
        view: Shows messages.
        listed: The model whose methods and classes are listed.
        results: What is shown, if anything.
        examples: Files of the example photos by name.
    """

    def load_model(model: str, message: str = "is ready") -> tuple[Any, ...]:
        service.list_methods(model)
        return (model, render_status(f"{model} {message}.")), gr.skip(), gr.skip()

    def show_choices(loaded: tuple[str, str] | None, model: str, old: str, chosen: list[str]) -> tuple[Any, ...]:
        # Another one may have been chosen since, or could not be loaded.
        if loaded is None or loaded[0] != model:
            return (gr.skip(),) * 6
        methods = service.list_methods(model)
        value = carry_methods(chosen, service.list_methods(old)[0], methods)
        choices = gr.update(choices=list_method_choices(methods), value=value)
        # An update for each side: Gradio empties those that it has used.
        return choices, reset_target(model), reset_target(model), render_known(service, model), loaded[1], model

    def reset_target(model: str) -> Any:
        return gr.update(choices=[PREDICTED, *service.list_classes(model)], value=PREDICTED)

    def change_photo(sides: list[ExplainResult] | None, model: str) -> Any:
        # A target that was chosen for an explained photo is not meant for the next one; one that was chosen before any is.
        return reset_target(model) if sides else gr.skip()

    def choose_example(name: str, model: str) -> tuple[Any, Any]:
        if name not in examples:
            return None, gr.skip()
        return examples[name], list_examples()[name].choose_model(model, service.pool.names)

    def follow_example(model: str, shown: str, sides: list[ExplainResult] | None) -> tuple[Any, ...]:
        if model != shown:
            return load_model(model, "was selected, because it knows what this photo shows")
        return None, gr.skip(), change_photo(sides, model)

    def convert_photo(photo: str | None) -> tuple[Any, Any]:
        preview = service.preview(photo)
        if preview is None:
            return None, gr.skip()
        path, note = preview
        words = ["The photo was converted to be shown.", note and f"{note[0].upper()}{note[1:].removesuffix('.')}.", READY]
        return (photo, str(path)), render_status(" ".join(filter(None, words)))

    def show_photo(photo: str | None, conversion: tuple[str, str] | None) -> str | None:
        return conversion[1] if conversion and conversion[0] == photo else photo

    # First, since Gradio handles one event after the other: what the server says about the photo stays.
    # The photo of an example is not there yet, but will be.
    for changed, photo in ((form.example, form.example), (form.photo, form.photo), (form.photo_b, form.photo)):
        changed.input(None, [photo, view.status], [view.status, view.notice], js=NEW_PHOTO_JS, **QUIET)
    counting = count_methods_js(service.limits.num_methods)
    form.methods.input(None, [form.methods, view.status], view.status, js=counting, **QUIET)
    # A model that was loaded since, with its message.
    loaded = gr.State(None)
    outputs = [loaded, view.status, form.target]
    gr.on([form.model.select, form.example.input], None, js=CHOOSING_JS, api_visibility="private")
    # `select`, since Gradio sends `input` also when the focus leaves a list.
    choosing = form.model.select(
        show_errors(lambda model: load_model(model), outputs, view.status), form.model, outputs, **WORK
    )
    # Photo and model at once, so that Explain never takes the photo with another model; loading the model may take a while.
    chosen = form.example.input(choose_example, [form.example, form.model], [form.photo, form.model], **QUIET)
    following = chosen.then(show_errors(follow_example, outputs, view.status), [form.model, listed, results], outputs, **WORK)
    report_refusals(view.status, choosing, chosen, following)
    choices = [form.methods, form.target, form.target_b, form.known, view.ready, listed]
    for loading in (choosing, following):
        # Afterward, since users choose methods while the model is loaded: those stay.
        listing = loading.then(
            show_errors(show_choices, choices, view.ready),
            [loaded, form.model, listed, form.methods],
            choices,
            trigger_mode="always_last",
            **QUIET,
        )
        report_refusals(view.status, listing)
        listing.then(None, [view.ready, view.status], view.status, js=READY_JS, **QUIET)
        loading.then(None, form.model, view.notice, js=NEW_MODEL_JS, **QUIET)
    form.photo.input(lambda: None, None, form.example, **QUIET)
    report_refusals(view.status, form.photo.input(change_photo, [results, form.model], form.target, **QUIET))
    for photo in (form.photo, form.photo_b):
        conversion = gr.State(None, time_to_live=service.limits.keep_seconds)
        outputs = [conversion, view.status]
        converting = photo.input(show_errors(convert_photo, outputs, view.status), photo, outputs, **WORK)
        # Only after conversions: an answer about one photo would take the place of the next, if that was chosen in the meantime.
        # Always a file, never an update: after one, Gradio would build the component anew and decode files of any size by itself.
        showing = conversion.change(show_photo, [photo, conversion], photo, **QUIET)
        report_refusals(view.status, converting, showing)
        converting.then(None, view.status, view.notice, js=CHECKED_JS, **QUIET)
    gr.on([form.photo_b.upload, form.target_b.select], None, None, form.compare, js="() => true", **QUIET)
