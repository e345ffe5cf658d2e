"""Write scores as tables and JSON."""

from collections.abc import Iterator
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.core.csv_io import write_csv
from vitrail.core.files import write_text
from vitrail.core.json_io import json_text
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.table import Table
from vitrail.metrics.statistics import Intervals


def write_images(folder: Path, table: Table) -> None:
    """Write images.csv: one row per image and method; undefined numbers are left empty."""

    def rows() -> Iterator[list[Any]]:
        for method, values in table.values.items():
            scores = _find_scores(method, table)
            for path, target, numbers in zip(scores.paths, scores.target_names, values, strict=True):
                yield [path, target, method, *numbers.tolist()]

    write_csv(folder / "images.csv", ["image", "target", "method", *table.names], rows())


def write_comparisons(folder: Path, table: Table) -> None:
    """Write comparisons.csv: all pairs of methods on every measure that has a direction."""
    head = ["measure", "first", "second", "difference", "low", "high", "p", "p_error", "p_adjusted", "images"]
    write_csv(folder / "comparisons.csv", head, map(astuple, table.comparisons))


def write_curves(folder: Path, table: Table) -> None:
    """Write curves.csv: one row per point of a mean curve."""
    rows = list[list[Any]]()
    for scores in table.scores:
        for name, protocol in scores.protocols.items():
            for method, curves in scores.mean_curves(name).items():
                relative = curves.normalized().scores[0].tolist()
                for i, curve in enumerate(protocol.curves):
                    points = zip(
                        map(_shorten, curves.fractions.tolist()), curves.scores[0, i].tolist(), relative[i], strict=True
                    )
                    settings = [curve.baseline, curve.score, curve.order, curve.direction]
                    rows += [
                        [scores.model, method, name, curve.name, *settings, fraction, value, normalized]
                        for fraction, value, normalized in points
                    ]
    head = ["model", "method", "protocol", "curve", "baseline", "score", "order", "direction", "fraction", "mean", "normalized"]
    write_csv(folder / "curves.csv", head, rows)


def _shorten(fraction: float) -> float:
    """Return the shortest number that is this one in single precision: 0.05, not 0.05000000074505806."""
    return float(str(np.float32(fraction)))


def write_summary(folder: Path, table: Table) -> None:
    """Write summary.json, which has the same bytes in every run of the same settings, and cost.json with the times of this run.

    Numbers that are not finite are null.
    """
    scores = table.scores
    summary = {
        "models": [each.model for each in scores],
        "num_images": len(scores[0]),
        "measures": {
            column.name: {key: value for key, value in asdict(column.measure).items() if key != "name"}
            for column in table.columns
        },
        "methods": {method: _describe_method(table, method, i) for i, method in enumerate(table.methods)},
        "not_shown_to_beat_random": [
            {
                "method": entry.method,
                "measure": entry.measure,
                "difference": entry.difference,
                "p": entry.p_adjusted,
                "significantly_worse": entry.significantly_worse,
            }
            for entry in table.unproven
        ],
        "normalized_areas_of_mean_curves": {
            each.model: {name: _normalized_areas(each, name) for name in each.protocols} for each in scores
        },
        "effect_of_precision": {each.model: each.effect for each in scores if each.effect is not None},
        **({"ceiling": _describe_ceilings(table)} if table.ceilings else {}),
        "unreadable": [file._asdict() for file in scores[0].unreadable],
    }
    write_text(folder / "summary.json", json_text(summary, indent=2))
    cost = {name: {"passes": cost.passes, "seconds_per_image": cost.seconds} for name, cost in table.cost.items()}
    write_text(folder / "cost.json", json_text(cost, indent=2))


def _describe_method(table: Table, method: str, index: int) -> dict[str, Any]:
    intervals, ranks = table.intervals[method], table.ranks[index]
    return {
        "passes": table.cost[method].passes,
        "mean_rank": table.mean_ranks[index],
        "measures": {
            name: numbers | {"rank": ranks[table.names.index(name)]}
            for name, numbers in _describe_intervals(table.names, intervals).items()
        },
    }


def _describe_ceilings(table: Table) -> dict[str, Any]:
    described = {}
    for scores in table.scores:
        if scores.ceiling is not None:
            described[scores.model] = {
                "images": [scores.paths[i] for i in np.searchsorted(scores.indices, scores.ceiling.indices)],
                "runs_per_image": scores.ceiling.num_runs,
                "measures": _describe_intervals(table.names, table.ceilings[scores.model]),
            }
    return {
        "models": described,
        "shares": {name: _describe_intervals(table.names, each) for name, each in table.shares.items()},
    }


def _describe_intervals(names: list[str], intervals: Intervals) -> dict[str, dict[str, float | int]]:
    return {
        name: {
            "mean": intervals.mean[i],
            "low": intervals.low[i],
            "high": intervals.high[i],
            "images": int(intervals.count[i]),
        }
        for i, name in enumerate(names)
        if intervals.count[i]
    }


def _normalized_areas(scores: Scores, protocol: str) -> dict[str, dict[str, float]]:
    normalized = [curve for curve in scores.protocols[protocol].curves if curve.normalized]
    return {
        method: {
            curve.name: area
            for curve, area in zip(means.protocol.curves, means.normalized_auc()[0].tolist(), strict=True)
            if curve in normalized
        }
        for method, means in scores.mean_curves(protocol).items()
    }


def _find_scores(method: str, table: Table) -> Scores:
    """Return the scores of the model that a method of a table belongs to."""
    if len(table.scores) == 1:
        return table.scores[0]
    return next(each for each in table.scores if any(method == f"{each.model}/{name}" for name in each.methods))
