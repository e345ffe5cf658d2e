"""CSS and JavaScript of the page: system fonts, dark text on light, one column on narrow screens.

The page hides the overlays of Gradio (`.wrap`), which show canceled work as an error; errors are shown as messages instead.
"""

import json

from vitrail.app.plain_words import describe_hint
from vitrail.app.ui.plain_errors import say_plainly
from vitrail.app.ui.templates import (
    MEASURING,
    NO_RESULT,
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
    f" return {json.dumps(render_status('Explaining ...'))}; }}"
)
"""Shown at once, without asking the server; on narrow screens, where it is below the form, the page scrolls to it."""

NEW_PHOTO_JS = (
    "(photo, shown) => [(shown || '').includes(' ...') ? shown :"
    f" photo ? {json.dumps(render_status(READY))} : {json.dumps(render_status(START))}, vitrail.change('photo')]"
)
"""Say what to do next, unless work is in progress, and that the result is for the previous photo."""

NEW_MODEL_JS = "(model) => vitrail.change('model', model !== document.querySelector('#vt-shown .vt-results')?.dataset.model)"
"""Say that the result is by the previous model, if it is."""

CHECKED_JS = "(shown) => vitrail.notice((shown || '').includes('vt-error'))"
"""Say that there is no result for the new photo if it was refused."""

NEW_RESULT_JS = "(shown) => vitrail.finish((shown || '').includes('Explained.'))"
"""Remove these notices, or say that there is no new result."""

WAITING_JS = (
    f"() => {{ vitrail.measuring = true; return {json.dumps(render_status('Waiting for a turn ...', [MEASURING, WAITING]))}; }}"
)

MARK_JS = f"(shown) => ['{WAITING}', '{MEASURING}'].filter((mark) => (shown || '').includes(mark)).join(' ')"
"""Send only the marks of what is shown in place of the curves, not the picture itself."""

PRINT_JS = (
    "(shown) => { if (document.querySelector('#vt-shown .vt-results')) window.print();"
    f" else shown = {json.dumps(render_error(NO_RESULT))}; return shown; }}"
)

TOO_LARGE = render_error(say_plainly("expected a photo of at most LIMIT MB, got SIZE MB"))
TOO_LARGE_JS = (
    f"() => {json.dumps(TOO_LARGE)}.replace('LIMIT', vitrail.limit / 1e6).replace('SIZE', (vitrail.size / 1e6).toFixed(1))"
)
"""Say that a file is too large for an upload, in place of Gradio's message, which disappears."""

OUTDATED = "This result is for the previous PARTS. Press Explain for a new one."
FAILED = "This result is for the previous PARTS: there is no new one, as the message above says."

LOAD_JS = (
    render_template("load.js")
    .replace("METHOD_TERMS", json.dumps({method: describe_hint(method) for method in EXPLAINERS}))
    .replace("OUTDATED", json.dumps(render_notice(OUTDATED)))
    .replace("FAILED", json.dumps(render_notice(FAILED)))
)
"""Make status and notice live regions for screen readers, keep track of what the result does not show, accept photos that are pasted
anywhere on the page, and files that are no images by their type, refuse files that are too large, and show what methods do, and their
technical names, as tooltips."""
