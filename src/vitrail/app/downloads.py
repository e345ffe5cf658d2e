"""Files that users download: a contact sheet, arrays and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.app.explain_request import ExplainResult
from vitrail.app.plain_words import TERMS
from vitrail.app.ui.render import DEFAULT_LOOK, Look, render_results
from vitrail.app.ui.render_curves import render_curves
from vitrail.app.ui.templates import render_template
from vitrail.core.files import atomic_write, write_text
from vitrail.core.json_io import json_text
from vitrail.metrics import Curves
from vitrail.viz.sheet import contact_sheet
from vitrail.viz.style import Style

SHEET, ARRAYS, PAGE = "vitrail-sheet.png", "vitrail-arrays.npz", "vitrail-page.html"
DEFAULT_OPACITY = 0.75

MeasuredSides = Sequence[Mapping[str, Curves]]
"""Curves by side and method; empty if they were not measured."""


def write_downloads(
    folder: Path,
    sides: Sequence[ExplainResult],
    curves: MeasuredSides = (),
    look: Look = DEFAULT_LOOK,
    opacity: float = DEFAULT_OPACITY,
) -> list[Path]:
    """Write all files.

    Args:
        folder: An existing folder.
        sides: One result, or two that are compared.
        curves: By side and method, if they were measured.
        look: How heatmaps are drawn on the page.
        opacity: Opacity of the heatmaps on the page.

    Returns:
        The paths of the files.
    """
    contact_sheet([side.row for side in sides], folder / SHEET, Style(palette=look.palette, smoothing=look.smoothing))
    write_arrays(folder / ARRAYS, sides, curves)
    write_page(folder / PAGE, sides, curves, look, opacity)
    return [folder / name for name in (SHEET, ARRAYS, PAGE)]


def write_arrays(path: Path, sides: Sequence[ExplainResult], curves: MeasuredSides = ()) -> None:
    """Write relevance, parts, logits and curves as arrays, and their description as JSON under `description`."""
    arrays, descriptions = dict[str, Any](), list[dict[str, Any]]()
    for i, (side, prefix) in enumerate(zip(sides, _prefixes(sides), strict=True)):
        measured = curves[i] if i < len(curves) else {}
        for method, explanation in side.explanations.items():
            arrays[f"{prefix}{method}"] = explanation.relevance[0].numpy()
            if method in side.parts:
                arrays[f"{prefix}{method}_parts"] = np.stack([part.relevance.numpy() for part in side.parts[method].parts])
            if method in measured:
                arrays[f"{prefix}{method}_curves"] = measured[method].scores[0].cpu().numpy()
                # Grids, and with them steps, differ between photos of any shape.
                arrays[f"{prefix}{method}_fractions"] = measured[method].fractions.cpu().numpy()
        first = side.row.explanations[0]
        arrays[f"{prefix}logits"] = first.logits[0].numpy()
        descriptions.append(
            {
                "photo": side.row.title,
                "model": side.model,
                "target": int(first.targets[0]),
                "target_name": side.target,
                "methods": list(side.explanations),
                "bias": {method: float(one.bias[0]) for method, one in side.explanations.items() if one.bias is not None},
                "parts": {method: [part.title for part in parts.parts] for method, parts in side.parts.items()},
                "curves": list(next(iter(measured.values())).names) if measured else [],
                "class_names": list(first.class_names),
            }
        )
    arrays["description"] = np.array(json_text(descriptions))
    with atomic_write(path) as partial:
        np.savez_compressed(partial, **arrays)


def write_page(
    path: Path,
    sides: Sequence[ExplainResult],
    curves: MeasuredSides = (),
    look: Look = DEFAULT_LOOK,
    opacity: float = DEFAULT_OPACITY,
) -> None:
    """Write what the served page shows as a page that opens offline."""
    results, shown_curves = render_results(sides, look), render_curves(curves) if curves else ""
    title = f"Why {sides[0].target}?"
    write_text(
        path, render_template("download.html", title=title, opacity=opacity, results=results, curves=shown_curves, terms=TERMS)
    )


def _prefixes(sides: Sequence[ExplainResult]) -> list[str]:
    """Return the prefixes of the names of arrays and files that tell two sides apart."""
    return [""] if len(sides) == 1 else ["a_", "b_"]
