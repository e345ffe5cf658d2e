"""Rows of comparisons, and how they are printed, tabulated and drawn."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Spread(NamedTuple):
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarize measurements."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        peer: Name of the other implementation.
        task: What both computed.
        ratio: Its time over vitrail's, of pairs measured one after the other.
        ours: Seconds of vitrail.
        theirs: Seconds of the other implementation.
        difference: Largest difference of the results, relative to the largest result; None where they cannot be compared.
        problem: Why there are no numbers.
    """

    peer: str
    task: str
    ratio: Spread | None = None
    ours: Spread | None = None
    theirs: Spread | None = None
    difference: float | None = None
    problem: str = ""


def format_row(row: Row) -> str:
    """Format a row for the terminal."""
    if row.ratio is None or row.ours is None or row.theirs is None:
        return f"  {row.peer:<30}{row.task:<64}{row.problem}"
    ratio, difference = row.ratio, "" if row.difference is None else f"  difference {row.difference:.1e}"
    return (
        f"  {row.peer:<30}{row.task:<64}{ratio.median:>7.2f}  {ratio.low:.2f} to {ratio.high:.2f}"
        f"{row.theirs.median:>9.3f} s to{row.ours.median:>9.3f} s{difference}"
    )


def format_table(rows: Sequence[Row], earlier: Sequence[Row] = ()) -> str:
    """Format the rows as a table in Markdown, beside the ratios of an earlier run."""
    ratios = {(row.peer, row.task): f"{row.ratio.median:.2f}" for row in earlier if row.ratio is not None}
    lines = [
        "| implementation | task | time over vitrail's | range | another day | its time | vitrail's | largest difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        name = f"| {row.peer} | {row.task or 'all'} |"
        if row.ratio is None or row.ours is None or row.theirs is None:
            lines.append(f"{name} {row.problem.replace('|', '/')} | | | | | |")
            continue
        difference = "" if row.difference is None else f"{row.difference:.0e}"
        lines.append(
            f"{name} {row.ratio.median:.2f} | {row.ratio.low:.2f} to {row.ratio.high:.2f} | "
            f"{ratios.get((row.peer, row.task), '')} | {row.theirs.median:.3g} s | {row.ours.median:.3g} s | {difference} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw one bar per row from 1, with its range; bars to the right mean that vitrail is faster."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (heavy)

    measured = [(row, row.ratio) for row in rows if row.ratio is not None]
    figure = Figure(figsize=(11, 1.2 + 0.3 * len(measured)), layout="constrained")
    axes, places = figure.subplots(), range(len(measured))
    ratios = [ratio.median for _, ratio in measured]
    ranges = [[ratio.median - ratio.low for _, ratio in measured], [ratio.high - ratio.median for _, ratio in measured]]
    colors = ["#4477aa" if ratio >= 1 else "#cc6677" for ratio in ratios]
    axes.barh(places, [ratio - 1 for ratio in ratios], left=1, xerr=ranges, color=colors, capsize=2, error_kw={"linewidth": 1})
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    ends = [end for _, ratio in measured for end in (ratio.low, ratio.high)]
    axes.set_xlim(min([*ends, 0.8]) / 1.1, max([*ends, 1.25]) * 2)
    axes.margins(y=0.01)
    ticks = [
        tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if axes.get_xlim()[0] < tick < axes.get_xlim()[1]
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(places, [f"{row.peer}: {row.task}" for row, _ in measured], fontsize=8)
    for place, (_, ratio) in zip(places, measured, strict=True):
        axes.annotate(
            f"{ratio.median:.2f}", (max(ratio.high, 1), place), (6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.invert_yaxis()
    axes.set_xlabel("time over vitrail's, and its range; right of 1, vitrail is faster")
    figure.savefig(path, dpi=110)
