"""CSS and JavaScript of the page: system fonts, dark text on light, one column on narrow screens.

The page hides the overlays of Gradio (`.wrap`), which show canceled work as an error; errors are shown as messages instead.
"""

import json

from vitrail.app.plain_words import describe_hint
from vitrail.app.ui.plain_errors import say_plainly
from vitrail.app.ui.queueing import REFUSED
from vitrail.app.ui.templates import (
    MEASURING,
    READY,
    START,
    WAITING,
    render_error,
    render_notice,
    render_status,
    render_template,
)
from vitrail.explainers import EXPLAINERS

CSS = render_template("page.css")

HEAD = f'<meta name="referrer" content="no-referrer"><style>{render_template("paper.css")}</style>'
"""With rules for printing that Gradio would confine to what is inside its container, as it does with `CSS`."""

OPACITY_JS = "(share) => { document.querySelector('.gradio-container').style.setProperty('--vt-opacity', share); }"

BUSY_JS = (
    "() => { const status = document.querySelector('#vt-status'), box = status.getBoundingClientRect();"
    " if (box.top < 0 || box.bottom > window.innerHeight) status.scrollIntoView(); vitrail.request();"
    f" return {json.dumps(render_status('Explaining ...', [WAITING]))}; }}"
)
"""Shown at once, without asking the server; on narrow screens, where it is below the form, the page scrolls to it."""

NEW_PHOTO_JS = (
    "(photo, shown) => [(shown || '').includes(' ...') ? shown :"
    f" photo ? {json.dumps(render_status(READY))} : {json.dumps(render_status(START))}, vitrail.changePhoto()]"
)
"""Say what to do next, unless work is in progress, and that the result is for the previous photo."""

NEW_MODEL_JS = "(model) => vitrail.changeModel(model)"
"""Say that the result is by the previous model, if it is."""

CHOOSING_JS = "() => { vitrail.asked = false; }"

READY_JS = "(ready, shown) => vitrail.asked ? shown : ready"
"""Say that the model is ready, unless it was asked already."""

CHECKED_JS = "(shown) => vitrail.notice((shown || '').includes('vt-error'))"
"""Say that there is no result for the new photo if it was refused."""

NEW_RESULT_JS = (
    "async (shown) => { await new Promise((done) => setTimeout(done, 50));"
    " return vitrail.finish((shown || '').includes('Explained.')); }"
)
"""Remove these notices, or say that there is no new result, once the result is on the page."""

STOP_JS = f"(shown) => vitrail.explaining ? (vitrail.stopped = true, {json.dumps(render_status('Stopping ...'))}) : shown"

NO_RESULT_JS = (
    f"(shown, progress) => [...(vitrail.stopped ? [{json.dumps(render_status('Stopped.'))}, '']"
    f" : (shown || '').includes('{WAITING}') ? [{json.dumps(render_error(REFUSED))}, ''] : [shown, progress]), vitrail.finish(false)]"
)
"""Gradio calls stopped work a failure, too; of other work, only what never started was refused."""

WAITING_JS = (
    f"() => {{ vitrail.measuring = true; return {json.dumps(render_status('Waiting for a turn ...', [MEASURING, WAITING]))}; }}"
)

MARK_JS = f"(shown) => ['{WAITING}', '{MEASURING}'].filter((mark) => (shown || '').includes(mark)).join(' ')"
"""Send only the marks of what is shown in place of the curves, not the picture itself."""

PRINT_JS = "() => window.print()"

REFUSAL_JS = "() => vitrail.refusal"
"""Say that a photo was refused in the browser, in place of Gradio's messages, which disappear."""

TOO_LARGE = render_error(say_plainly("expected a photo of at most LIMIT MB, got SIZE MB"))
NOT_PASTED = render_error("The browser gives no photo from the clipboard. Copy one, then press Ctrl+V (on a Mac, Cmd+V).")


def count_methods_js(most: int) -> str:
    """Say at once that more than `most` methods are chosen, and nothing more of their number once it is right."""
    refusal = render_error(say_plainly(f"expected at most {most} methods"))
    return (
        f"(methods, shown) => methods.length > {most} ? {json.dumps(refusal)}"
        f" : /ways? to explain/.test(shown || '') ? {json.dumps(render_status(READY))} : shown"
    )


OUTDATED = "This result is for the previous PARTS. Press Explain for a new one."
FAILED = "This result is for the previous PARTS, since there is no new one."

LOAD_JS = (
    render_template("load.js")
    .replace("METHOD_TERMS", json.dumps({method: describe_hint(method) for method in EXPLAINERS}))
    .replace("TOO_LARGE", json.dumps(TOO_LARGE))
    .replace("NOT_PASTED", json.dumps(NOT_PASTED))
    .replace("OUTDATED", json.dumps(render_notice(OUTDATED)))
    .replace("FAILED", json.dumps(render_notice(FAILED)))
)
"""Make status and notice live regions for screen readers, keep track of what the result does not show, accept photos that are pasted
anywhere on the page, and files that are no images by their type, refuse files that are too large, and show what methods do, and their
technical names, as tooltips."""
