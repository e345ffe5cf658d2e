"""CSS and JavaScript of the page: system fonts, dark text on light, one column on narrow screens.

The page hides the overlays of Gradio (`.wrap`), which show canceled work as an error; errors are shown as messages instead.
"""

import json

from vitrail.app.plain_words import describe_hint
from vitrail.app.ui.templates import MEASURING, START, WAITING, render_status, render_template
from vitrail.explainers import EXPLAINERS

CSS = render_template("page.css")

HEAD = f'<meta name="referrer" content="no-referrer"><style>{render_template("paper.css")}</style>'
"""With rules for printing that Gradio would confine to what is inside its container, as it does with `CSS`."""

OPACITY_JS = "(share) => { document.querySelector('.gradio-container').style.setProperty('--vt-opacity', share); }"

BUSY_JS = (
    "() => { const status = document.querySelector('#vt-status'), box = status.getBoundingClientRect();"
    " if (box.top < 0 || box.bottom > window.innerHeight) status.scrollIntoView();"
    f" return {json.dumps(render_status('Explaining ...'))}; }}"
)
"""Shown at once, without asking the server; on narrow screens, where it is below the form, the page scrolls to it."""

NEW_PHOTO_JS = (
    "(shown) => { document.querySelector('#vt-shown .vt-results')?.classList.add('vt-stale');"
    f" return (shown || '').includes('vt-error') ? {json.dumps(render_status(START))} : shown; }}"
)
"""Mark the result, which is for the previous photo, and remove an error about that photo."""

NEW_RESULT_JS = (
    "(shown) => { if ((shown || '').includes('Explained.'))"
    " document.querySelector('.vt-stale')?.classList.remove('vt-stale'); }"
)
"""Remove the mark: an equal result is not drawn again."""

WAITING_JS = f"() => {json.dumps(render_status('Waiting for a turn ...', [MEASURING, WAITING]))}"

MARK_JS = f"(shown) => ['{WAITING}', '{MEASURING}'].filter((mark) => (shown || '').includes(mark)).join(' ')"
"""Send only the marks of what is shown in place of the curves, not the picture itself."""

PRINT_JS = "() => { window.print(); }"

LOAD_JS = render_template("load.js").replace(
    "METHOD_TERMS", json.dumps({method: describe_hint(method) for method in EXPLAINERS})
)
"""Make the status line a live region for screen readers, accept photos that are pasted anywhere on the page, and DICOM files, and show
what methods do, and their technical names, as tooltips."""
