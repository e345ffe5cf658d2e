"""HTML of perturbation curves, with a table of their AUCs."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from vitrail.app.chance import compare_with_chance
from vitrail.app.plain_words import TERMS
from vitrail.app.ui.render import side_labels
from vitrail.app.ui.templates import render_template
from vitrail.metrics import Curves
from vitrail.viz.curves import plot_perturbation
from vitrail.viz.html import picture_data_uri
from vitrail.viz.report import Table
from vitrail.viz.report_tables import auc_table


def render_curves(sides: Sequence[Mapping[str, Curves]]) -> str:
    """Render a plot and a table of AUCs for every side."""
    shown = []
    for curves, label in zip(sides, side_labels(sides), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "curves.png"
            plot_perturbation(curves, path)
            with Image.open(path) as picture:
                data_uri = picture_data_uri(picture)
        table = auc_table(curves, normalized=False)
        head = ["", *(name.replace("_", ", ") for name in table.head[1:])]
        rows = [[str(name).replace("_", ", "), *aucs] for name, *aucs in table.rows]
        shown.append(
            {
                "picture": data_uri,
                "alt": f"{label}insertion and deletion curves of {', '.join(curves)}; their AUC is in the table below",
                "caption": f"{label}AUC",
                "table": Table(head, rows),
                "label": label,
                "sentences": compare_with_chance(curves),
            }
        )
    return render_template("curves.html", sides=shown, terms=TERMS)
