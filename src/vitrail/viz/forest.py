"""Forest plots: the difference of every method from its control, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitrail.core.files import atomic_write
from vitrail.viz.styles import method_styles

PANELS_PER_LINE = 3


@dataclass(frozen=True)
class ForestPanel:
    """Differences of methods from their control on one measure, positive where the method is better.

    Attributes:
        title: Name of the measure.
        differences: Mean, low and high end of its interval, by method.
    """

    title: str
    differences: Mapping[str, tuple[float, float, float]]


def plot_forest(panels: Sequence[ForestPanel], path: str | Path) -> None:
    """Draw one panel per measure, with one line per method."""
    num_lines = -(-len(panels) // PANELS_PER_LINE)
    num_columns = -(-len(panels) // num_lines)
    methods = list(panels[0].differences)
    styles = method_styles(methods)
    figure = Figure(figsize=(2.2 + 3.2 * num_columns, num_lines * (1.1 + 0.3 * len(methods))), layout="constrained")
    grid = figure.subplots(num_lines, num_columns, squeeze=False, sharey=True)
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.axvline(0, color="0.45", linestyle=":", linewidth=1.2)
        for line, (name, (mean, low, high)) in enumerate(panel.differences.items()):
            style = styles[name]
            axes.plot([low, high], [line, line], color=style.color, linewidth=2.5, solid_capstyle="butt")
            axes.plot([mean], [line], marker=style.marker, markersize=7, color=style.color, markeredgecolor="white")
        axes.set_title(panel.title, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5))  # More would touch each other.
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    # Only those with none below them, whose titles it would touch.
    for axes in grid.flat[max(0, len(panels) - num_columns) : len(panels)]:
        axes.set_xlabel("better than random by", fontsize=8)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_yticks(range(len(methods)), [name.replace("$", r"\$") for name in methods], fontsize=9)
    grid[0, 0].set_ylim(len(methods) - 0.5, -0.5)  # The axis is shared: the first method is on top in every panel.
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)
