"""Scores as lines of text and as tables of formatted cells."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from vitrail.core.listing import count_nouns, shorten_list
from vitrail.evaluation.scoring.table import Table
from vitrail.metrics.statistics import CONTROL, Intervals, UnprovenMethod

MAX_NAMED = 4

SMALL = 5e-4
"""Smaller numbers would round to 0.000, or nearly so."""

MIN_INTERVAL = 6
"""Images from which shares have an interval: the bootstrap of two images says nothing."""

ROUGH_TIME = "ms per image is rough: a single batch was timed, which includes the first use of the network"

Cells = tuple[list[str], list[list[str]]]
"""The head and the rows of a table."""


def table_lines(table: Table, changes: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a report: per metric the means and undefined measures, then ranks and costs.

    Args:
        table: The scores.
        changes: By protocol, where it differs from the published one.
    """
    for metric in metric_names(table):
        yield f"{metric} ({changes[metric]})" if metric in changes else metric
        described = (*describe_undefined(table, metric), *describe_ceiling(table, metric))
        for line in (*align_columns(*metric_cells(table, metric)), *described):
            yield f"  {line}"
    yield "±: half of the 95% bootstrap interval of the mean over images"
    for line in align_columns(*overview_cells(table)):
        yield f"  {line}"
    if any(cost.is_rough for cost in table.cost.values()):
        yield ROUGH_TIME


def metric_names(table: Table) -> list[str]:
    """Return the names of protocols and metrics, in the order of their columns."""
    return list(dict.fromkeys(column.metric for column in table.columns))


def metric_cells(table: Table, metric: str) -> Cells:
    """Return the table of a metric: one row per method with mean and half of the 95% interval, below a row of directions.

    Curves with a ceiling have a second column, the share of the way from the floor to it; a last row per model has the ceiling.
    """
    columns = [i for i, column in enumerate(table.columns) if column.metric == metric]
    shared = _columns_with_ceiling(table, columns)
    head = ["", *(table.columns[i].measure.name for i in columns), *(f"{table.columns[i].measure.name} share" for i in shared)]
    rows = [["better", *(table.columns[i].measure.better or "" for i in columns), *("higher" for _ in shared)]]
    for method in table.methods:
        numbers = table.intervals[method]
        rows.append(
            [
                method,
                *(_format_mean(numbers.mean[i], numbers.low[i], numbers.high[i], int(numbers.count[i])) for i in columns),
                *(_format_share(table.shares[method], i) if method in table.shares else "-" for i in shared),
            ]
        )
    for model, numbers in table.ceilings.items() if shared else ():
        means = (_format_mean(numbers.mean[i], numbers.low[i], numbers.high[i], int(numbers.count[i])) for i in columns)
        name = f"{'' if len(table.scores) == 1 else f'{model}/'}ceiling, {count_nouns(int(numbers.count.max()), 'image')}"
        rows.append([name, *means, *("100%" if i in shared else "" for i in shared)])
    return head, rows


def describe_ceiling(table: Table, metric: str) -> list[str]:
    """Describe what shares of a metric mean, what the search cost, and where they are undefined."""
    shared = _columns_with_ceiling(table, [i for i, column in enumerate(table.columns) if column.metric == metric])
    if not shared:
        return []
    lines = []
    for scores in table.scores:
        if scores.ceiling is not None:
            num_images, of_model = len(scores.ceiling.indices), f"{scores.model}: " if len(table.scores) > 1 else ""
            same = "the same image" if num_images == 1 else f"the same {num_images} images"
            lines.append(
                f"{of_model}share: of the way from {CONTROL} (0%) to the ceiling (100%), on {same}; the ceiling is the curve whose order "
                f"was searched for greedily, which took {scores.ceiling.num_runs:.0f} runs of the network per image"
            )
    worse = {
        table.columns[i].measure.name: None
        for shares in table.shares.values()
        for i in shared
        if math.isnan(shares.mean[i]) and shares.count[i]
    }
    if worse:
        lines.append(
            f"{shorten_list(list(worse), MAX_NAMED)}: share undefined, since the greedy order is not better than {CONTROL} there"
        )
    better = {method: None for method, shares in table.shares.items() for i in shared if shares.mean[i] > 1 and shares.count[i]}
    if better:
        lines.append(
            f"{shorten_list(list(better), MAX_NAMED)}: above 100% on a curve, whose greedy order is therefore not the best one"
        )
    return lines


def _columns_with_ceiling(table: Table, columns: Sequence[int]) -> list[int]:
    return [i for i in columns if any(numbers.count[i] for numbers in table.ceilings.values())]


def _format_share(shares: Intervals, column: int) -> str:
    mean, low, high = (100 * float(ends[column]) for ends in (shares.mean, shares.low, shares.high))
    if math.isnan(mean):
        return "-"
    return f"{mean:.0f}%" + ("" if math.isnan(low) or shares.count[column] < MIN_INTERVAL else f" [{low:.0f}, {high:.0f}]")


def describe_undefined(table: Table, metric: str) -> list[str]:
    """Describe for how many images the measures of a metric are undefined; measures with the same counts share a line.

    Methods for which a measure is undefined on all images are not mentioned: their mean is a dash.
    """
    by_counts = dict[tuple[int, ...], list[str]]()
    for i, column in enumerate(table.columns):
        if column.metric == metric:
            defined = [int(table.intervals[method].count[i]) for method in table.methods]
            counts = tuple(table.num_images - count if count else 0 for count in defined)
            by_counts.setdefault(counts, []).append(column.measure.name)
    lines = []
    for counts, names in by_counts.items():
        methods_by_count = dict[int, list[str]]()
        for method, count in zip(table.methods, counts, strict=True):
            methods_by_count.setdefault(count, []).append(method)
        same_for_all = len(methods_by_count) == 1
        words = [
            f"{count} of {table.num_images} images" + ("" if same_for_all else f" with {', '.join(methods)}")
            for count, methods in methods_by_count.items()
            if count
        ]
        if words:
            lines.append(f"{shorten_list(names, MAX_NAMED)}: undefined for {', '.join(words)}; the mean leaves these out")
    return lines


def overview_cells(table: Table) -> Cells:
    """Return the table of mean ranks and costs, best method first."""
    order = sorted(range(len(table.methods)), key=lambda i: (math.isnan(table.mean_ranks[i]), table.mean_ranks[i]))
    rows = []
    for i in order:
        cost = table.cost[table.methods[i]]
        rows.append([table.methods[i], _format(table.mean_ranks[i], 2), _format(cost.passes, 2), f"{cost.seconds * 1000:.1f}"])
    return ["", "mean rank", "passes", "ms per image"], rows


def rank_cells(table: Table) -> Cells:
    """Return the table of ranks of methods by the measures that have a direction; the longer of both lists runs down the page."""
    directed = [i for i, column in enumerate(table.columns) if column.measure.better]
    cells = [["", *table.methods]]
    cells += [[table.names[i], *(_format(rank, 1) for rank in table.ranks[:, i])] for i in directed]
    if len(table.methods) > len(directed):
        cells = [list(row) for row in zip(*cells, strict=True)]
    return cells[0], cells[1:]


def comparison_cells(table: Table, references: Sequence[str]) -> Cells:
    """Return the table of differences between a method of each model and the others of that model, and between these methods.

    Args:
        references: The method of each model, as the table names it.
    """
    pairs = [(name, other) for name in references for other in table.methods if table.model_of(other) == table.model_of(name)]
    pairs += combinations(references, 2)
    entries = {(entry.measure, entry.first, entry.second): entry for entry in table.comparisons}
    rows = []
    for name, shared in zip(table.names, table.shared, strict=True):
        for first, second in pairs if shared and "normalized_" not in name else ():
            if entry := entries.get((name, first, second)):
                difference, low, high = entry.difference, entry.low, entry.high
            elif entry := entries.get((name, second, first)):
                difference, low, high = -entry.difference, -entry.high, -entry.low
            else:
                continue
            p = f"{entry.p_adjusted:.3f}" if entry.p_adjusted >= 0.001 else "< 0.001"
            rows.append([name, f"{first} - {second}", f"{difference:+z.3f}", f"[{low:+z.3f}, {high:+z.3f}]", p])
    return ["", "difference", "mean", "95% interval", "p, corrected"], rows


def warning_lines(unproven: Sequence[UnprovenMethod], num_images: int, num_compared: int) -> list[str]:
    """Return where methods are significantly worse than random, or not significantly better; one line if there are too few images.

    Args:
        unproven: Methods and measures that are not significantly better.
        num_compared: See `explain_too_few_images`.
    """
    if unproven and (too_few := explain_too_few_images(num_images, num_compared)):
        return [too_few]
    return [
        f"{method} is {words} than random on {shorten_list(names, MAX_NAMED)}"
        for method, measures in group_unproven(unproven).items()
        for words, names in zip(("significantly worse", "not significantly better"), measures, strict=True)
        if names
    ]


def group_unproven(unproven: Sequence[UnprovenMethod]) -> dict[str, tuple[list[str], list[str]]]:
    """Return by method the measures on which it is significantly worse than random, and those where neither is significantly better."""
    by_method = dict[str, tuple[list[str], list[str]]]()
    for entry in unproven:
        worse, undecided = by_method.setdefault(entry.method, ([], []))
        (worse if entry.significantly_worse else undecided).append(entry.measure)
    return by_method


def explain_too_few_images(num_images: int, num_compared: int) -> str | None:
    """Explain why no method can be significantly better with so few images; return None if there are enough.

    Args:
        num_compared: Number of methods compared with the same control; with several such groups, the smallest.
    """
    # Of the 2^n choices of signs, two are always as extreme as the best; Holm multiplies by the number of methods.
    needed = next(count for count in range(1, 64) if 2 * max(num_compared, 1) / 2**count < 0.05)
    if num_images >= needed:
        return None
    images = "1 image is" if num_images == 1 else f"{num_images} images are"
    return f"{images} too few to show that a method is better than random: the 5% level needs {needed} or more"


def align_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of aligned columns: the first to the left, others to the right."""
    table = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    padded = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in table)
    return ["  ".join(cells).rstrip() for cells in padded]


def _format_mean(mean: float, low: float, high: float, num_images: int) -> str:
    if math.isnan(mean):
        return "-"
    small = 0 < abs(mean) < SMALL
    digits = 1 if abs(mean) >= 100 else 2 if abs(mean) >= 10 else 3
    shown = f"{mean:.1e}" if small else f"{mean:.{digits}f}"
    if num_images < 2:
        return shown  # One image has no interval.
    half = (high - low) / 2
    return f"{shown} ±{half:.0e}" if small else f"{shown} ±{half:.{digits}f}"


def _format(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
