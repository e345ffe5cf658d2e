"""HTML of perturbation curves, with a table of their AUCs."""

import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path

import torch
from PIL import Image

from vitrail.app.chance import compare_with_chance
from vitrail.app.number_format import format_percent, format_relevance
from vitrail.app.plain_words import TERMS, name_method
from vitrail.app.ui.render import side_labels
from vitrail.app.ui.templates import render_template
from vitrail.metrics import Curves
from vitrail.viz.curves import plot_perturbation
from vitrail.viz.html import picture_data_uri
from vitrail.viz.report import Table
from vitrail.viz.styles import method_styles

MAX_LETTERS = 24
"""Letters of a line of the legend."""


def render_curves(sides: Sequence[Mapping[str, Curves]]) -> str:
    """Render a plot and a table of AUCs for every side."""
    shown = []
    for curves, label in zip(sides, side_labels(sides), strict=True):
        names = ", ".join(map(name_method, curves))
        shown.append(
            {
                "wide": _draw_curves(curves),
                "narrow": _draw_curves(curves, columns=1),
                "alt": f"{label}insertion and deletion curves of {names}; their AUC is in the table below",
                "caption": f"{label}average height of each curve (AUC)",
                "table": _auc_table(curves),
                "label": label,
                "sentences": compare_with_chance(curves),
            }
        )
    return render_template("curves.html", sides=shown, terms=TERMS)


def _draw_curves(curves: Mapping[str, Curves], columns: int | None = None) -> str:
    """Plot curves with the plain names of methods, and return the data URI."""
    labels = {method: "\n".join(textwrap.wrap(name_method(method), MAX_LETTERS)) for method in curves}
    styles = {labels[method]: style for method, style in method_styles(curves).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.png"
        named = {labels[method]: measured for method, measured in curves.items()}
        plot_perturbation(named, path, styles=styles, columns=columns, percent=_are_shares(curves), unit="patches")
        with Image.open(path) as picture:
            return picture_data_uri(picture)


def _auc_table(curves: Mapping[str, Curves]) -> Table:
    """Tabulate the AUCs, always with a row per method."""
    protocol = next(iter(curves.values())).protocol
    head = [f"{curve.name.replace('_', ', ')} ({curve.better} is better)" for curve in protocol.curves]
    write = format_percent if _are_shares(curves) else format_relevance
    rows = [
        [
            name_method(method),
            *("undefined" if isnan(areas[curve.name]) else write(areas[curve.name]) for curve in protocol.curves),
        ]
        for method, areas in ((method, measured.summary()) for method, measured in curves.items())
    ]
    return Table(["", *head], rows)


def _are_shares(curves: Mapping[str, Curves]) -> bool:
    """Return whether all scores are probabilities."""
    scores = torch.cat([one.scores[one.scores.isfinite()] for one in curves.values()])
    return bool(((scores >= 0) & (scores <= 1)).all())
