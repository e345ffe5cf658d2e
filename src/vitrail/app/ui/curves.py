"""Curves as a part of the page, and how far they are."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from vitrail.app.curves import Progress
from vitrail.app.ui.markup import data_uri, escaped, table
from vitrail.app.ui.style import MEASURING
from vitrail.metrics import Curves
from vitrail.viz.curves import plot_perturbation


def progress_bar(progress: Progress) -> str:
    """How far the work is, in a bar and in words."""
    done, total = progress
    words = f"{done} of {total} forward passes"
    return (
        f'<div class="vt-status {MEASURING}"><label>Measuring: {words}'
        f'<progress value="{done}" max="{max(total, 1)}">{words}</progress></label></div>'
    )


def curves_drawn(sides: Sequence[Mapping[str, Curves]]) -> str:
    """A picture and a table of areas for every side."""
    names = [""] if len(sides) == 1 else ["A: ", "B: "]
    parts = "".join(_side(measured, name) for measured, name in zip(sides, names, strict=True))
    return f'<div class="vt-results vt-curves">{parts}</div>'


def _side(measured: Mapping[str, Curves], name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.png"
        plot_perturbation(measured, path)
        with Image.open(path) as picture:
            uri = data_uri(picture)
    summaries = {method: each.summary() for method, each in measured.items()}
    curves = next(iter(measured.values())).protocol.curves
    rows: list[list[str | float]] = [
        [f"{curve.name} ({curve.better} is better)", *(summary[curve.name] for summary in summaries.values())]
        for curve in curves
    ]
    alt = f"{name}insertion and deletion curves of {', '.join(measured)}; their areas are in the table below"
    return f'<img src="{uri}" alt="{escaped(alt)}">' + table(f"{name}area under the curve", ["curve", *summaries], rows)
