"""Curves: of training, and of insertion and deletion."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitrail.core.files import atomic_write
from vitrail.metrics import Curves

MAX_INSIDE = 5
"""The legend of more methods would hide the curves: it stands beside them."""

CLASSIFIER = {"loss": ("train_loss", "val_loss"), "accuracy": ("val_top1", "val_top5")}
GATES = {
    "loss": ("train_loss",),
    "KL divergence (nats)": ("train_kl", "val_kl"),
    "kept patches and agreement": ("train_kept", "val_kept", "train_agreement", "val_agreement"),
}
"""Panels of a learning curve, and the figures in each."""


SCORE_WORDS = {"kl": "KL divergence (nats)", "top1": "share of images that keep the class"}


def plot_learning_curve(rows: Sequence[Mapping[str, int | float]], path: str | Path) -> None:
    """Draw the figures of a training run over epochs.

    Args:
        rows: One mapping an epoch, with "epoch" from 1 and any of the figures of a classifier, or of DiffMask's gates.
        path: The picture to write.
    """
    panels = GATES if any("train_kl" in row or "val_kl" in row for row in rows) else CLASSIFIER
    figure = Figure(figsize=(4.5 * len(panels), 3.5), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name in names:
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), marker=".")
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)


def plot_perturbation(curves: Mapping[str, Curves], path: str | Path, label: str | None = None) -> None:
    """Draw mean curves, one panel a curve of the protocol, one line a method.

    A row is a baseline and a score, a column an order and a direction.

    Args:
        curves: Curves under the name of their method, all of one protocol.
        path: The picture to write.
        label: What the curves measure, where that is not the score itself.
    """
    protocol = next(iter(curves.values())).protocol
    columns = min(len(protocol.orders) * len(protocol.directions), len(protocol.curves))
    rows = -(-len(protocol.curves) // columns)
    beside = len(curves) > MAX_INSIDE
    width = 4.2 + 2.6 * beside
    figure = Figure(figsize=(width * columns, 3.4 * rows), layout="constrained")
    # Only panels of one score have a common scale; where curves are left out, a row is of no one score.
    sharey: Any = "all" if len(protocol.scores) == 1 else False if protocol.without else "row"
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=sharey)
    styles = _styles(list(curves))
    for i, (curve, axes) in enumerate(zip(protocol.curves, panels.flat, strict=False)):
        for method, measured in curves.items():
            scores, areas = measured.scores[:, i].cpu(), measured.auc()[:, i].cpu()
            known = scores.isfinite().all(-1)
            scores, auc = scores[known], areas[known].mean()
            fractions, mean = measured.fractions.cpu(), scores.mean(0)
            area = f"AUC {auc:.3f}" if auc.isfinite() else "undefined"
            color, dashes = styles[method]
            axes.plot(fractions, mean, color=color, linestyle=dashes, label=f"{method} ({area})")
            if len(scores) > 1:
                spread = scores.std(0) / len(scores) ** 0.5
                axes.fill_between(fractions, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
        order = f", {curve.order} relevant first" if protocol.orders != ("most",) else ""
        axes.set_title(f"{curve.direction}, {curve.baseline}{order} ({curve.better} is better)", fontsize=10)
        axes.legend(fontsize=8, **({"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False} if beside else {}))
        axes.grid(alpha=0.3)
        if i % columns == 0 or not sharey:
            axes.set_ylabel(label or SCORE_WORDS.get(curve.score, f"{curve.score} of the class"))
    for axes in panels.flat[len(protocol.curves) :]:
        axes.set_visible(False)
    for axes in panels.flat[max(len(protocol.curves) - columns, 0) : len(protocol.curves)]:
        axes.set_xlabel("share of pixels changed" if protocol.unit == "pixels" else "share of cells changed")
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)


def _styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Color and dashes of every method: no two alike, and the control dotted and gray."""
    others = [method for method in methods if method != "random"]
    styles = {method: (f"C{i % 10}", ("-", "--", "-.")[i // 10 % 3]) for i, method in enumerate(others)}
    return {**styles, "random": ("0.4", ":")}
