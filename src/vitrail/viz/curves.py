"""Plots of learning curves and of insertion and deletion curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vitrail.core.files import atomic_write
from vitrail.metrics import Curves
from vitrail.viz.styles import COLORS, MARKERS, Style, method_styles

CLASSIFIER_PANELS = {"loss": ("train_loss", "val_loss"), "accuracy": ("val_top1", "val_top5")}
GATE_PANELS = {
    "loss": ("train_loss",),
    "KL divergence (nats)": ("train_kl", "val_kl"),
    "kept patches and agreement": ("train_kept", "val_kept", "train_agreement", "val_agreement"),
}
"""Panels of a learning curve, and the values that each shows."""

NUM_MARKERS = 8
"""Markers on a curve, about."""

MAX_BANDS = 6
"""Bands of more curves would hide each other."""

SCORE_LABELS = {"kl": "KL divergence (nats)", "top1": "share of images that keep the class"}


def plot_learning_curve(rows: Sequence[Mapping[str, int | float]], path: str | Path) -> None:
    """Plot the logged values of a training run over epochs.

    Args:
        rows: One mapping per epoch, with "epoch" (from 1) and any of the values of a classifier, or of DiffMask's gates.
    """
    panels = GATE_PANELS if any("train_kl" in row or "val_kl" in row for row in rows) else CLASSIFIER_PANELS
    figure = Figure(figsize=(4.5 * len(panels), 3.5), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name, color, marker in zip(names, COLORS, MARKERS, strict=False):
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), color=color, marker=marker, markersize=4)
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)


def plot_perturbation(
    curves: Mapping[str, Curves],
    path: str | Path,
    label: str | None = None,
    errors: Mapping[str, Float[np.ndarray, "curves s"]] | None = None,
    limits: tuple[float, float] | None = None,
    styles: Mapping[str, Style] | None = None,
    columns: int | None = None,
    percent: bool = False,
    unit: str = "cells",
) -> None:
    """Plot mean curves with their standard errors, unless there are many: one panel per curve of the protocol, one line per method.

    A row of panels has one baseline and one score, a column one order and one direction, unless `columns` is given.

    Args:
        curves: Curves by method, all of one protocol.
        label: Label of the vertical axes; the name of the score if None.
        errors: Standard errors of curves that are means already, by method; None for those over the images of `curves`.
        limits: Ends of the vertical axes, for pictures that are to be compared; None for those of the curves.
        styles: How methods look, for pictures that are to be compared; None for `method_styles` of these.
        columns: Panels in a row; a single column has its legend above the panels, for narrow pages.
        percent: Whether the axes count in percent.
        unit: What readers call what a step changes; pixels are always called so.
    """
    protocol = next(iter(curves.values())).protocol
    columns = columns or min(len(protocol.orders) * len(protocol.directions), len(protocol.curves))
    rows = -(-len(protocol.curves) // columns)
    size = (4.2, 3.0 * rows + 0.4 * len(curves)) if columns == 1 else (4.2 * columns + 1.8, 3.4 * rows)
    figure = Figure(figsize=size, layout="constrained")
    # Only panels of one score share a scale; if the protocol leaves curves out, a row may mix scores.
    sharey: Any = "all" if len(protocol.scores) == 1 else False if protocol.without else "row"
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=sharey)
    styles = method_styles(curves) if styles is None else styles
    for i, (curve, axes) in enumerate(zip(protocol.curves, panels.flat, strict=False)):
        for shift, (method, measured) in enumerate(curves.items()):
            scores = measured.scores[:, i].cpu()
            scores = scores[scores.isfinite().all(-1)]
            fractions, mean, style = measured.fractions.cpu(), scores.mean(0), styles[method]
            # Curves begin and end together: markers of different methods stand at different places, so that none hides another.
            every = max(len(fractions) // NUM_MARKERS, 1)
            axes.plot(
                *(fractions, mean),
                color=style.color,
                linestyle=style.dashes,
                label=method,
                marker=style.marker,
                markersize=4,
                markevery=(shift * every // len(curves), every),
            )
            error = scores.std(0) / len(scores) ** 0.5 if len(scores) > 1 else None if errors is None else errors[method][i]
            if error is not None and len(curves) <= MAX_BANDS:
                axes.fill_between(fractions, mean - error, mean + error, color=style.color, alpha=0.15, linewidth=0)
        if undefined := [method for method, measured in curves.items() if not measured.scores[:, i].isfinite().all(-1).any()]:
            axes.text(0.5, 0.03, f"undefined: {', '.join(undefined)}", transform=axes.transAxes, ha="center", fontsize=8)
        order = f", {curve.order} relevant first" if protocol.orders != ("most",) else ""
        axes.set_title(f"{curve.direction}, {curve.baseline}{order} ({curve.better} is better)", fontsize=10)
        axes.grid(alpha=0.3)
        if i % columns == 0 or not sharey:
            axes.set_ylabel(label or SCORE_LABELS.get(curve.score, f"{curve.score} of the class"))
        if limits is not None:
            axes.set_ylim(*limits)
        if percent:
            axes.xaxis.set_major_formatter(PercentFormatter(1))
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    # One legend for all panels; the AUCs are in the tables.
    figure.legend(
        *panels.flat[0].get_legend_handles_labels(),
        loc="outside upper left" if columns == 1 else "outside right upper",
        fontsize=9,
        frameon=False,
        handlelength=3,
    )
    for axes in panels.flat[len(protocol.curves) :]:
        axes.set_visible(False)
    for axes in panels.flat[max(len(protocol.curves) - columns, 0) : len(protocol.curves)]:
        axes.set_xlabel(f"share of {'pixels' if protocol.unit == 'pixels' else unit} changed")
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)
