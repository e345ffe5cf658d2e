"""Scores as files that other programs read."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitrail.core.files import write_text
from vitrail.core.json_io import json_text
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.table import Table
from vitrail.viz.tables import write_csv


def write_images(folder: Path, scores: Sequence[Scores], table: Table) -> None:
    """Write images.csv: a line an image and method; what is undefined stays empty."""

    def rows() -> Iterator[list[Any]]:
        for method, values in table.values.items():
            of = _owner(method, scores)
            for path, target, numbers in zip(of.paths, of.target_names, values, strict=True):
                yield [path, target, method, *map(_cell, numbers.tolist())]

    write_csv(folder / "images.csv", ["image", "target", "method", *table.names], rows())


def write_comparisons(folder: Path, table: Table) -> None:
    """Write comparisons.csv: every two methods on every measure that has a direction."""
    head = ["measure", "first", "second", "difference", "low", "high", "p", "p_adjusted", "images"]
    rows = [
        [
            each.measure,
            each.first,
            each.second,
            *map(_cell, (each.difference, each.low, each.high, each.p, each.p_adjusted)),
            each.count,
        ]
        for each in table.comparisons
    ]
    write_csv(folder / "comparisons.csv", head, rows)


def write_curves(folder: Path, scores: Sequence[Scores]) -> None:
    """Write curves.csv: a line a point of a mean curve."""
    rows = list[list[Any]]()
    for each in scores:
        for name, protocol in each.protocols.items():
            for method, curves in each.mean_curves(name).items():
                relative = curves.normalized().scores[0].tolist()
                for i, curve in enumerate(protocol.curves):
                    points = zip(curves.fractions.tolist(), curves.scores[0, i].tolist(), relative[i], strict=True)
                    described = [curve.baseline, curve.score, curve.order, curve.direction]
                    rows += [
                        [each.model, method, name, curve.name, *described, at, value, _cell(part)] for at, value, part in points
                    ]
    head = ["model", "method", "protocol", "curve", "baseline", "score", "order", "direction", "fraction", "mean", "normalized"]
    write_csv(folder / "curves.csv", head, rows)


def write_summary(folder: Path, scores: Sequence[Scores], table: Table) -> None:
    """Write summary.json: no times, so that the same work has the same bytes; and cost.json, which has them."""
    summary = {
        "models": [each.model for each in scores],
        "num_images": len(scores[0]),
        "measures": {
            column.name: {
                "better": column.measure.better,
                "low": _finite(column.measure.low),
                "high": _finite(column.measure.high),
                "description": column.measure.description,
            }
            for column in table.columns
        },
        "methods": {method: _method(table, method, place) for place, method in enumerate(table.methods)},
        "not_shown_to_beat_random": [
            {
                "method": each.method,
                "measure": each.measure,
                "difference": _finite(each.difference),
                "p": _finite(each.p_adjusted),
            }
            for each in table.unproven
        ],
        "normalized_areas_of_mean_curves": {
            each.model: {name: _normalized(each, name) for name in each.protocols} for each in scores
        },
        "effect_of_precision": {each.model: _plain(each.effect) for each in scores if each.effect is not None},
        "unreadable": [file._asdict() for file in scores[0].unreadable],
    }
    write_text(folder / "summary.json", json_text(summary, indent=2))
    cost = {name: {"passes": _finite(each.passes), "seconds_per_image": each.seconds} for name, each in table.cost.items()}
    write_text(folder / "cost.json", json_text(cost, indent=2))


def _method(table: Table, method: str, place: int) -> dict[str, Any]:
    found, ranks = table.intervals[method], table.ranks[place]
    return {
        "passes": _finite(table.cost[method].passes),
        "mean_rank": _finite(table.mean_ranks[place]),
        "measures": {
            name: {
                "mean": _finite(found.mean[i]),
                "low": _finite(found.low[i]),
                "high": _finite(found.high[i]),
                "images": int(found.count[i]),
                "rank": _finite(ranks[i]),
            }
            for i, name in enumerate(table.names)
            if found.count[i]
        },
    }


def _normalized(scores: Scores, protocol: str) -> dict[str, dict[str, float | None]]:
    curves = [curve for curve in scores.protocols[protocol].curves if curve.normalized]
    return {
        method: {
            curve.name: _finite(area)
            for curve, area in zip(each.protocol.curves, each.normalized_auc()[0].tolist(), strict=True)
            if curve in curves
        }
        for method, each in scores.mean_curves(protocol).items()
    }


def _owner(method: str, scores: Sequence[Scores]) -> Scores:
    """The scores that a method of a table comes from."""
    if len(scores) == 1:
        return scores[0]
    return next(each for each in scores if any(method == f"{each.model}/{name}" for name in each.methods))


def _cell(value: float) -> float | str:
    """What is undefined stays empty."""
    return "" if math.isnan(value) else value


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: float) -> float | None:
    """JSON knows neither NaN nor infinity: what is undefined, or has no bound, is null."""
    return float(value) if math.isfinite(value) else None
