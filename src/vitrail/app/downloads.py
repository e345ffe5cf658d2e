"""An answer as files: a sheet, arrays and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.app.explain_request import ExplainResult, summarize
from vitrail.app.ui.render import scales
from vitrail.core.files import atomic_write
from vitrail.core.json_io import json_text
from vitrail.explanation import format_share
from vitrail.metrics import Curves
from vitrail.viz.curves import plot_perturbation
from vitrail.viz.overlay import Palette, overlay
from vitrail.viz.report import Picture, Section, Table, write_report
from vitrail.viz.sheet import contact_sheet

SHEET, ARRAYS, PAGE = "vitrail-sheet.png", "vitrail-arrays.npz", "vitrail-page.html"
MeasuredSides = Sequence[Mapping[str, Curves]]


def write_downloads(
    folder: Path,
    sides: Sequence[ExplainResult],
    curves: MeasuredSides = (),
    opacity: float = 0.75,
    palette: Palette = "color",
) -> list[Path]:
    """Write all three.

    Args:
        folder: Where to; it exists.
        sides: One answer, or two that are compared.
        curves: By side and method, where they were measured.
        opacity: Of the maps on the page.
        palette: Of the same.
    """
    contact_sheet([side.row for side in sides], folder / SHEET)
    write_arrays(folder / ARRAYS, sides, curves)
    write_page(folder / PAGE, sides, curves, opacity, palette)
    return [folder / name for name in (SHEET, ARRAYS, PAGE)]


def write_arrays(path: Path, sides: Sequence[ExplainResult], curves: MeasuredSides = ()) -> None:
    """Write every raw number: maps, their parts, logits and curves, and what they are as JSON under `description`."""
    arrays, described = dict[str, Any](), list[dict[str, Any]]()
    for side, name in zip(sides, _names(sides), strict=True):
        measured = dict(zip(_names(sides), curves, strict=False)).get(name, {})
        for method, one in side.explanations.items():
            arrays[f"{name}{method}"] = one.relevance[0].numpy()
            if method in side.parts:
                arrays[f"{name}{method}_parts"] = np.stack([part.relevance.numpy() for part in side.parts[method].maps])
            if method in measured:
                arrays[f"{name}{method}_curves"] = measured[method].scores[0].cpu().numpy()
                # Photos of any shape have grids, and so steps, of their own.
                arrays[f"{name}{method}_fractions"] = measured[method].fractions.cpu().numpy()
        first = side.row.explanations[0]
        arrays[f"{name}logits"] = first.logits[0].numpy()
        described.append(
            {
                "photo": side.row.title,
                "model": side.model,
                "target": int(first.targets[0]),
                "target_name": side.target,
                "methods": list(side.explanations),
                "bias": {method: float(one.bias[0]) for method, one in side.explanations.items() if one.bias is not None},
                "parts": {method: [part.title for part in parts.maps] for method, parts in side.parts.items()},
                "curves": list(next(iter(measured.values())).names) if measured else [],
                "class_names": list(first.class_names),
            }
        )
    arrays["description"] = np.array(json_text(described))
    with atomic_write(path) as partial:
        np.savez_compressed(partial, **arrays)


def write_page(
    path: Path, sides: Sequence[ExplainResult], curves: MeasuredSides = (), opacity: float = 0.75, palette: Palette = "color"
) -> None:
    """Write a page that needs nothing beside it; its maps share the scales of the page that is served."""
    sections, shared = list[Section](), scales(sides)
    for place, (side, name) in enumerate(zip(sides, _names(sides), strict=True)):
        pictures = list[Picture]()
        for method, one in side.explanations.items():
            scale, file = shared[method], path.with_name(f".{name}{method}.png")
            look = {"scale": scale.high, "signed": scale.signed, "floor": scale.low, "palette": palette, "opacity": opacity}
            overlay(side.row.photo, one.relevance[0], side.row.box, **look).save(file)  # type: ignore[arg-type]
            ends = f"colors from {scale.low:.4g} to {scale.high:.4g}"
            pictures.append(Picture(file, f"{method} for {side.target}, {ends}. {summarize(method)}"))
        classes: list[list[str | float]] = [[word, f"{share:.2%}"] for word, share in side.classes[:5]]
        title = f"{name.strip('_').upper()}: {side.row.title}" if name else side.row.title
        said = f"{side.model} gives {side.target} a probability of {side.probability:.1%}."
        sections.append(Section(title, said, pictures, Table(["class", "probability"], classes)))
        sections += [_numbers(side, method) for method in side.explanations]
        if place < len(curves) and curves[place]:
            file = path.with_name(f".{name}curves.png")
            plot_perturbation(curves[place], file)
            areas: list[list[str | float]] = [[method, *each.summary().values()] for method, each in curves[place].items()]
            head = ["area under the curve", *next(iter(curves[place].values())).summary()]
            drawn = [Picture(file, "Insertion and deletion, for every method.", wide=True)]
            sections.append(Section("Insertion and deletion", pictures=drawn, table=Table(head, areas)))
    try:
        write_report(path, f"Why {sides[0].target}?", "Which patches made the decision, by vitrail.", sections)
    finally:
        for section in sections:
            for picture in section.pictures:
                picture.path.unlink(missing_ok=True)


def _numbers(side: ExplainResult, method: str) -> Section:
    one = side.explanations[method]
    logit = float(one.target_logits()[0])
    rows: list[list[str | float]] = [
        [f"row {row}, column {col}", value, *([format_share(value, logit)] if one.bias is not None else [])]
        for row, col, value in one.strongest_patches(0, 8)
    ]
    head = ["strongest patches", "relevance", *(["share of the logit"] if one.bias is not None else [])]
    return Section(f"{method}: numbers", table=Table(head, rows))


def _names(sides: Sequence[ExplainResult]) -> list[str]:
    """What the names of a side's arrays and files begin with."""
    return [""] if len(sides) == 1 else ["a_", "b_"]
