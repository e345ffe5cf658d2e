"""Insertion and deletion as files that other programs read."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitrail.files import atomic_write, write_text
from vitrail.json_text import json_text
from vitrail.metrics import Curves

SETTINGS = ("num_steps", "cells_per_step", "baselines", "scores", "orders", "directions")
"""The settings of a protocol that its numbers hang on."""


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
        # JSON has no NaN: a normalised area that does not exist is null.
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
    """Write a table in one piece."""
    # Names of files need not be UTF-8.
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
