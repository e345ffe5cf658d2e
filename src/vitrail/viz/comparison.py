"""Panels that compare methods: box plots over images, and means with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitrail.core.files import atomic_write
from vitrail.viz.styles import CONTROL_STYLE, is_control, method_styles

PANELS_PER_LINE = 4


@dataclass(frozen=True, eq=False)
class Panel:
    """One measure of several methods.

    Attributes:
        title: Name of the measure, and which direction is better.
        values: Value of every image, by method; NaN where it is undefined.
        means: Mean, low and high end of its interval, by method.
    """

    title: str
    values: Mapping[str, Float[np.ndarray, " images"]]
    means: Mapping[str, tuple[float, float, float]]


def plot_panels(panels: Sequence[Panel], path: str | Path) -> None:
    """Draw one panel per measure, with one line per method: a box plot over images, and the mean with its interval.

    Measures with two values (hit or miss) have no boxes. Methods without any number have no line.
    """
    num_lines = -(-len(panels) // PANELS_PER_LINE)
    num_columns = -(-len(panels) // num_lines)
    every_method = list(panels[0].values)
    methods = [name for name in every_method if not all(np.isnan(panel.values[name]).all() for panel in panels)] or every_method
    size = (1.6 + 2.6 * num_columns, num_lines * (0.9 + 0.27 * len(methods)))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(num_lines, num_columns, squeeze=False, sharey=True)
    colors = {name: style.color for name, style in method_styles(every_method).items()}
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, methods, colors)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for line in grid:
        line[0].set_yticks(range(len(methods)), [name.replace("$", r"\$") for name in methods], fontsize=9)
    grid[0, 0].set_ylim(len(methods) - 0.4, -0.6)  # The axis is shared: the first method is on top in every panel.
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)


def _draw_panel(axes: Axes, panel: Panel, methods: Sequence[str], colors: Mapping[str, str]) -> None:
    defined = {name: panel.values[name][~np.isnan(panel.values[name])] for name in methods}
    has_boxes = any(len(np.unique(values)) > 2 for values in defined.values())
    for line, (name, values) in enumerate(defined.items()):
        if not len(values):
            continue
        color = colors[name]
        if has_boxes:
            axes.boxplot(
                [values],
                positions=[line],
                orientation="horizontal",
                widths=0.55,
                patch_artist=True,
                manage_ticks=False,
                showfliers=False,
                boxprops={"facecolor": color, "alpha": 0.25, "edgecolor": "none"},
                medianprops={"color": color},
                whiskerprops={"color": color, "alpha": 0.4},
                capprops={"color": color, "alpha": 0.4},
            )
        mean, low, high = panel.means[name]
        axes.plot([low, high], [line, line], color=color, linewidth=2.5, solid_capstyle="butt")
        axes.plot([mean], [line], marker="D", markersize=4, color=color)
    # Each model has its own control.
    for name in methods:
        if is_control(name) and len(defined[name]):
            own = [other for other, method in enumerate(methods) if method.rpartition("/")[0] == name.rpartition("/")[0]]
            ends, mean = (min(own) - 0.5, max(own) + 0.5), panel.means[name][0]
            axes.plot([mean, mean], ends, color=CONTROL_STYLE.color, linestyle=":", linewidth=1.2)
    axes.set_title(panel.title, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(5))  # More would touch each other.
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
