"""Insertion and deletion as files that other programs read."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitrail.core.files import atomic_write, write_text
from vitrail.core.json_io import json_text
from vitrail.metrics import Curves

SETTINGS = ("num_steps", "cells_per_step", "baselines", "scores", "orders", "directions")
"""The settings of a protocol that its numbers hang on."""


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How a cell begins that a spreadsheet computes, or takes apart."""


def write_scores(
    folder: Path,
    curves: Mapping[str, Curves],
    paths: Sequence[str],
    targets: Sequence[str],
    model: str,
    protocol: str,
    unreadable: Sequence[tuple[str, str]] = (),
    completeness: Mapping[str, float] | None = None,
) -> None:
    """Write scores.csv (a line an image and method), curves.csv (a line a point of a mean curve), curves.npz and summary.json."""
    measured = next(iter(curves.values()))
    chosen = measured.protocol
    per_image = []
    for method, each in curves.items():
        rows = zip(paths, targets, torch.stack(list(each.areas().values()), 1).tolist(), strict=True)
        per_image += [
            # What is undefined stays empty.
            [path, target, method, *("" if math.isnan(value) else value for value in values)]
            for path, target, values in rows
        ]
    write_csv(folder / "scores.csv", ["image", "target", "method", *measured.areas()], per_image)
    points = [
        [method, curve.name, curve.baseline, curve.score, curve.order, curve.direction, fraction, value]
        for method, each in curves.items()
        for curve, mean in zip(chosen.curves, each.mean().tolist(), strict=True)
        for fraction, value in zip(each.fractions.tolist(), mean, strict=True)
    ]
    head = ["method", "curve", "baseline", "score", "order", "direction", "fraction", "mean_score"]
    write_csv(folder / "curves.csv", head, points)
    arrays: dict[str, Any] = {method: each.scores.cpu().numpy() for method, each in curves.items()}
    with atomic_write(folder / "curves.npz") as partial:
        names = np.array(measured.names)
        np.savez_compressed(partial, names=names, fractions=measured.fractions.cpu().numpy(), **arrays)
    summary = {
        "model": model,
        "protocol": protocol,
        **{field: getattr(chosen, field) for field in SETTINGS},
        "num_images": len(paths),
        "better": {curve.name: curve.better for curve in chosen.curves},
        # JSON has no NaN: a normalized area that does not exist is null.
        "mean_auc": {
            method: {name: value if math.isfinite(value) else None for name, value in each.summary().items()}
            for method, each in curves.items()
        },
        # Images without a number of their own: the areas of mean curves need none.
        "undefined_images": {method: counts for method, each in curves.items() if (counts := each.num_undefined())},
        "completeness_error": dict(completeness or {}),
        "unreadable": [{"path": path, "reason": reason} for path, reason in unreadable],
    }
    write_text(folder / "summary.json", json_text(summary, indent=2))


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table in one piece; `read_csv` gives its texts back as they were.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, by which spreadsheets know a text.
    """
    # Names of files need not be UTF-8.
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow([_guarded(cell) for cell in head])
        writer.writerows([_guarded(cell) for cell in row] for row in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read what `write_csv` wrote, a dictionary a row; cells that are missing are empty."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [
            {_unguarded(name): _unguarded(cell or "") for name, cell in row.items() if name is not None}
            for row in csv.DictReader(file)
        ]


def _guarded(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    try:
        cell.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # Half a letter, as JSON can hold it: no file can.
        cell = cell.encode("utf-8", "backslashreplace").decode()
    return f"'{cell}" if _is_like_formula(cell) and cell != "-" and not _is_number(cell) else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _is_like_formula(cell) else cell


def _is_like_formula(cell: str) -> bool:
    # Apostrophes are passed over, so that what was written can be told from what was put in front.
    return cell.lstrip("'").startswith(FORMULA)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
