"""Files that users download: a contact sheet, arrays and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.app.explain_request import TOP, ExplainResult
from vitrail.app.plain_words import describe_colors, describe_confidence, describe_method
from vitrail.app.ui.scales import Scale, share_scales
from vitrail.core.files import atomic_write
from vitrail.core.json_io import json_text
from vitrail.metrics import Curves
from vitrail.viz.curves import plot_perturbation
from vitrail.viz.html import format_number
from vitrail.viz.overlay import Palette, overlay
from vitrail.viz.report import Picture, Section, write_report
from vitrail.viz.report_tables import auc_table, class_table, patch_table
from vitrail.viz.sheet import contact_sheet

SHEET, ARRAYS, PAGE = "vitrail-sheet.png", "vitrail-arrays.npz", "vitrail-page.html"
NUM_STRONGEST = 8

MeasuredSides = Sequence[Mapping[str, Curves]]
"""Curves by side and method; empty if they were not measured."""


def write_downloads(
    folder: Path,
    sides: Sequence[ExplainResult],
    curves: MeasuredSides = (),
    opacity: float = 0.75,
    palette: Palette = "color",
) -> list[Path]:
    """Write all files.

    Args:
        folder: An existing folder.
        sides: One result, or two that are compared.
        curves: By side and method, if they were measured.
        opacity: Opacity of the heatmaps on the page.
        palette: Palette of the heatmaps on the page.

    Returns:
        The paths of the files.
    """
    contact_sheet([side.row for side in sides], folder / SHEET)
    write_arrays(folder / ARRAYS, sides, curves)
    write_page(folder / PAGE, sides, curves, opacity, palette)
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
    path: Path, sides: Sequence[ExplainResult], curves: MeasuredSides = (), opacity: float = 0.75, palette: Palette = "color"
) -> None:
    """Write a page that opens offline; its heatmaps have the color scales of the served page."""
    sections, scales = list[Section](), share_scales(sides)
    try:
        for i, (side, prefix) in enumerate(zip(sides, _prefixes(sides), strict=True)):
            sections.append(_photo_section(path, side, prefix, scales, opacity, palette))
            for method, explanation in side.explanations.items():
                sections.append(Section(f"{method}: numbers", table=patch_table(explanation, NUM_STRONGEST)))
            if i < len(curves) and curves[i]:
                sections.append(_curves_section(path, curves[i], prefix))
        write_report(path, f"Why {sides[0].target}?", "Which patches made the decision, by vitrail.", sections)
    finally:
        for section in sections:
            for picture in section.pictures:
                picture.path.unlink(missing_ok=True)


def _photo_section(
    path: Path, side: ExplainResult, prefix: str, scales: Mapping[str, Scale], opacity: float, palette: Palette
) -> Section:
    pictures = list[Picture]()
    for method, explanation in side.explanations.items():
        scale, file = scales[method], path.with_name(f".{prefix}{method}.png")
        overlay(
            side.row.photo,
            explanation.relevance[0],
            side.row.box,
            opacity=opacity,
            scale=scale.high,
            signed=scale.signed,
            floor=scale.low,
            palette=palette,
        ).save(file)
        colors = f"colors from {format_number(scale.low)} to {format_number(scale.high)}"
        meaning = describe_colors(method, scale.signed, palette, side.target)
        pictures.append(Picture(file, f"{method} for {side.target}, {colors}. {describe_method(method).sentence} {meaning}"))
    title = f"{prefix.strip('_').upper()}: {side.row.title}" if prefix else side.row.title
    text = f"{side.model}: {side.target}" + (f", {value}." if (value := side.describe_target()) else ".")
    text = " ".join(filter(None, [text, describe_confidence(side), f"Note: {side.note}." if side.note else ""]))
    return Section(title, text, pictures, class_table(side.classes[:TOP], side.output))


def _curves_section(path: Path, curves: Mapping[str, Curves], prefix: str) -> Section:
    file = path.with_name(f".{prefix}curves.png")
    plot_perturbation(curves, file)
    picture = Picture(file, "Insertion and deletion curves of every method.", wide=True, plot=True)
    return Section("Insertion and deletion", pictures=[picture], table=auc_table(curves))


def _prefixes(sides: Sequence[ExplainResult]) -> list[str]:
    """Return the prefixes of the names of arrays and files that tell two sides apart."""
    return [""] if len(sides) == 1 else ["a_", "b_"]
