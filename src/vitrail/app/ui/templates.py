"""HTML of the page: short messages, and the way to its templates."""

from collections.abc import Sequence

from vitrail.app.background import Progress
from vitrail.viz.html import render

MEASURING, WAITING = "vt-measuring", "vt-waiting"
"""Classes of what is shown while the server works on a request, and before that."""

START = "Choose a photo, then press Explain."
"""The status line while there is no photo."""

READY = "Press Explain."
"""The status line once there is a photo."""


NO_RESULT = "There is no result yet. Press Explain first."


def render_template(template: str, **values: object) -> str:
    """Render a template of `vitrail.app` or of `vitrail.viz`; every value is escaped."""
    return render(template, "vitrail.app", "vitrail.viz", **values).strip()


def render_status(message: str, marks: Sequence[str] = ()) -> str:
    """Render a message for the status line, which screen readers announce."""
    return render_template("status.html", message=message, marks=marks)


def render_notice(message: str) -> str:
    """Render a notice above the result, which screen readers announce."""
    return render_template("notice.html", message=message)


def render_error(message: str) -> str:
    """Render an error, which screen readers announce at once."""
    return render_template("error.html", message=message)


def render_progress(work: str, progress: Progress) -> str:
    """Render a progress bar.

    Args:
        work: What is being done, as in "Measuring".
        progress: How much of it is done.
    """
    total = max(progress.total, 1)
    text = f"{100 * progress.done // total}%"
    return render_template("progress.html", mark=MEASURING, work=work, text=text, done=progress.done, total=total)
