"""Measures of masks as tables and bars."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vitrail.files import atomic_write, write_text
from vitrail.metrics.masks import MEASURES, mean_defined
from vitrail.viz.tables import write_csv

Measured = Mapping[str, Mapping[str, Float[Tensor, " b"]]]
"""Per method and measure, a number an image; NaN where it is undefined."""

PANELS_PER_LINE = 4
OF_THE_DATA = ("answer", "pointing_chance")
"""Measures that say nothing of a method."""


def known_measures(measured: Measured, without: Sequence[str] = ()) -> list[str]:
    """The measures that are defined for any image of any method, in the order of all tables."""
    known = [name for name in MEASURES if any(not each[name].isnan().all() for each in measured.values())]
    return [name for name in known if name not in without]


def mask_table(measured: Measured) -> list[str]:
    """Means over images as lines of aligned columns: the measures, what is better, a line a method, and pointing by chance."""
    names = known_measures(measured, without=OF_THE_DATA)
    rows = [["", *names], ["better", *(MEASURES[name] or "" for name in names)]]
    rows += [[method, *(_text(mean_defined(each[name])) for name in names)] for method, each in measured.items()]
    if "pointing" in names:
        rows.append(["chance", *(_text(_chance(measured)) if name == "pointing" else "" for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return ["  ".join(cells).rstrip() for cells in padded]


def write_masks(
    folder: Path,
    measured: Measured,
    paths: Sequence[str],
    targets: Sequence[str],
    settings: Mapping[str, Any],
    unreadable: Sequence[tuple[str, str]] = (),
) -> None:
    """Write masks.csv (a line an image and method; what is undefined stays empty) and summary.json, which begins with the settings."""
    names = known_measures(measured)
    per_image = []
    for method, each in measured.items():
        rows = zip(paths, targets, torch.stack([each[name] for name in names], 1).tolist(), strict=True)
        per_image += [[path, target, method, *("" if math.isnan(v) else v for v in values)] for path, target, values in rows]
    write_csv(folder / "masks.csv", ["image", "target", "method", *names], per_image)
    means = {method: {name: mean_defined(each[name]) for name in names} for method, each in measured.items()}
    summary = {
        **settings,
        "num_images": len(paths),
        "better": {name: MEASURES[name] for name in names if MEASURES[name]},
        # JSON has no NaN: what is undefined is null.
        "mean": {method: {n: None if math.isnan(v) else v for n, v in each.items()} for method, each in means.items()},
        "unreadable": [{"path": path, "reason": reason} for path, reason in unreadable],
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=2))


def plot_masks(measured: Measured, path: str | Path) -> None:
    """Draw means over images, a panel a measure and a bar a method, with one standard error; a dotted line is chance.

    Args:
        measured: What was measured.
        path: The picture to write.
    """
    names = known_measures(measured, without=OF_THE_DATA)
    num_lines = -(-len(names) // PANELS_PER_LINE)
    num_columns = -(-len(names) // num_lines)
    figure = Figure(figsize=(4 * num_columns, num_lines * (0.9 + 0.3 * len(measured))), layout="constrained")
    panels = figure.subplots(num_lines, num_columns, squeeze=False, sharey=True)
    for axes, name in zip(panels.flat, names, strict=False):
        _draw_bars(axes, name, {method: each[name] for method, each in measured.items()})
        if name == "pointing":
            axes.axvline(_chance(measured), color="0.4", linestyle=":")
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    panels[0, 0].set_yticks(range(len(measured)), list(measured))
    panels[0, 0].invert_yaxis()  # Shared by all: the first method is on top.
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)


def _draw_bars(axes: Axes, name: str, values: Mapping[str, Float[Tensor, " b"]]) -> None:
    for place, (method, each) in enumerate(values.items()):
        known = each[~each.isnan()]
        mean = mean_defined(known)
        error = float(known.std() / len(known) ** 0.5) if len(known) > 1 else 0.0
        # The control is grey, as among curves.
        axes.barh(place, mean, xerr=error, color="0.6" if method == "random" else "C0", ecolor="0.3")
        end = 0.0 if math.isnan(mean) else mean + error
        background = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.annotate(
            _text(mean, 3), (end, place), (4, 0), textcoords="offset points", va="center", fontsize=8, bbox=background
        )
    axes.set_title(name + (f" ({MEASURES[name]} is better)" if MEASURES[name] else ""), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    if name.startswith("kl"):
        axes.set_xlim(0, 1.2 * axes.get_xlim()[1])  # Room for the numbers.
        axes.set_xlabel("nats", fontsize=9)
    else:
        axes.set_xlim(0, 1.2)
        axes.set_xticks([0, 0.5, 1])


def _chance(measured: Measured) -> float:
    """Of the first method: its grid is that of all methods, but for one that has its own."""
    return mean_defined(next(iter(measured.values()))["pointing_chance"])


def _text(value: float, digits: int = 4) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
