"""Scores as lines and tables that people read."""

import math
from collections.abc import Sequence

from vitrail.evaluation.scoring.table import Table
from vitrail.metrics.statistics import Unproven

MAX_NAMED = 4


def metric_names(table: Table) -> list[str]:
    """Protocols and metrics, in the order of their columns."""
    return list(dict.fromkeys(column.metric for column in table.columns))


def metric_rows(table: Table, metric: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a metric's table: the mean and half of its 95 % interval, a row a method, the first what is better."""
    columns = [i for i, column in enumerate(table.columns) if column.metric == metric]
    head = ["", *(table.columns[i].measure.name for i in columns)]
    rows = [["better", *(table.columns[i].measure.better or "" for i in columns)]]
    for method in table.methods:
        found = table.intervals[method]
        rows.append(
            [method, *(_with_interval(found.mean[i], found.low[i], found.high[i], int(found.count[i])) for i in columns)]
        )
    return head, rows


def undefined_lines(table: Table, metric: str) -> list[str]:
    """Of how many images a metric's measures are undefined; measures and methods of which it is as many share a line.

    Nothing where a method has no number at all: its mean is a dash.
    """
    by_counts = dict[tuple[int, ...], list[str]]()
    for i, column in enumerate(table.columns):
        if column.metric == metric:
            found = [int(table.intervals[method].count[i]) for method in table.methods]
            counts = tuple(table.num_images - count if count else 0 for count in found)
            by_counts.setdefault(counts, []).append(column.measure.name)
    lines = []
    for counts, names in by_counts.items():
        methods = dict[int, list[str]]()
        for method, count in zip(table.methods, counts, strict=True):
            methods.setdefault(count, []).append(method)
        alike = len(methods) == 1
        words = [
            f"{count} of {table.num_images} images" + ("" if alike else f" with {', '.join(of)}")
            for count, of in methods.items()
            if count
        ]
        if words:
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            lines.append(
                f"{', '.join(names[:MAX_NAMED])}{more}: undefined for {', '.join(words)}, and left out of the mean there"
            )
    return lines


def overview_rows(table: Table) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the ranks and costs: methods by their mean rank, best first."""
    order = sorted(range(len(table.methods)), key=lambda i: (math.isnan(table.mean_ranks[i]), table.mean_ranks[i]))
    rows = []
    for i in order:
        cost = table.cost[table.methods[i]]
        rows.append([table.methods[i], _number(table.mean_ranks[i], 2), _number(cost.passes, 2), f"{cost.seconds * 1000:.1f}"])
    return ["", "mean rank", "passes", "ms per image"], rows


def rank_rows(table: Table) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the rank table: a row a measure that has a direction, a column a method."""
    directed = [i for i, column in enumerate(table.columns) if column.measure.better]
    rows = [[table.names[i], *(_number(place, 1) for place in table.ranks[:, i])] for i in directed]
    return ["", *table.methods], rows


def warnings(unproven: Sequence[Unproven], num_images: int, num_compared: int) -> list[str]:
    """A line a method that is not shown to beat chance on some measures; one line where so few images can show nothing.

    Args:
        unproven: What is not shown.
        num_images: Images of every method.
        num_compared: See `too_few_images`.
    """
    if unproven and (too_few := too_few_images(num_images, num_compared)):
        return [too_few]
    by_method = dict[str, list[str]]()
    for each in unproven:
        by_method.setdefault(each.method, []).append(each.measure)
    lines = []
    for method, measures in by_method.items():
        more = f" and {len(measures) - MAX_NAMED} more" if len(measures) > MAX_NAMED else ""
        lines.append(f"{method} is not shown to beat random on {', '.join(measures[:MAX_NAMED])}{more}")
    return lines


def too_few_images(num_images: int, num_compared: int) -> str | None:
    """Why nothing can be shown with so few images, or None where something can.

    Args:
        num_images: Images of every method.
        num_compared: Methods that were compared with the same control; of several such groups, the smallest.
    """
    # Of 2^n choices of signs, two are always as far out as the best; and Holm multiplies by the number of methods.
    needed = next(count for count in range(1, 64) if 2 * max(num_compared, 1) / 2**count < 0.05)
    if num_images >= needed:
        return None
    images = "1 image is" if num_images == 1 else f"{num_images} images are"
    return f"{images} too few to show that a method beats random: 5 % needs {needed} or more"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns: the first to the left, numbers to the right."""
    every = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    padded = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in every)
    return ["  ".join(cells).rstrip() for cells in padded]


def _with_interval(mean: float, low: float, high: float, num_images: int) -> str:
    if math.isnan(mean):
        return "-"
    small = 0 < abs(mean) < 5e-4
    digits = 1 if abs(mean) >= 100 else 2 if abs(mean) >= 10 else 3
    shown = f"{mean:.1e}" if small else f"{mean:.{digits}f}"
    if num_images < 2:
        return shown  # One image says nothing of others.
    half = (high - low) / 2
    return f"{shown} ±{half:.0e}" if small else f"{shown} ±{half:.{digits}f}"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
