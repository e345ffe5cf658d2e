"""Insertion and deletion as files that other programs read."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.files import atomic_write, write_text
from vitrail.metrics import Curves
from vitrail.metrics.perturbation import DIRECTIONS


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
    columns = [f"{direction}_{baseline}" for baseline in measured.protocol.baselines for direction in DIRECTIONS]
    per_image = []
    for method, each in curves.items():
        raw, normalised = each.auc().flatten(1).tolist(), each.normalised_auc().flatten(1).tolist()
        rows = zip(paths, targets, raw, normalised, strict=True)
        per_image += [[path, target, method, *values, *relative] for path, target, values, relative in rows]
    write_csv(folder / "scores.csv", ["image", "target", "method", *columns, *(f"normalised_{c}" for c in columns)], per_image)
    points = [
        [method, baseline, direction, fraction, value]
        for method, each in curves.items()
        for i, baseline in enumerate(each.protocol.baselines)
        for j, direction in enumerate(DIRECTIONS)
        for fraction, value in zip(each.fractions.tolist(), each.mean()[i, j].tolist(), strict=True)
    ]
    write_csv(folder / "curves.csv", ["method", "baseline", "direction", "fraction", "mean_score"], points)
    arrays: dict[str, Any] = {method: each.scores.cpu().numpy() for method, each in curves.items()}
    with atomic_write(folder / "curves.npz") as partial:
        np.savez_compressed(partial, fractions=measured.fractions.cpu().numpy(), **arrays)
    summary = {
        "model": model,
        "protocol": protocol,
        "num_steps": measured.protocol.num_steps,
        "score": measured.protocol.score,
        "order": measured.protocol.order,
        "num_images": len(paths),
        # JSON has no NaN: a normalised area that does not exist is null.
        "mean_auc": {
            method: {name: value if math.isfinite(value) else None for name, value in each.summary().items()}
            for method, each in curves.items()
        },
        "completeness_error": dict(completeness or {}),
        "unreadable": [{"path": path, "reason": reason} for path, reason in unreadable],
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=2))


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table in one piece."""
    # Names of files need not be UTF-8.
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
