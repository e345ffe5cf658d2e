"""Curves: of training, and of insertion and deletion."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vitrail.files import atomic_write


def plot_learning_curve(rows: Sequence[Mapping[str, str]], path: str | Path) -> None:
    """Draw losses and accuracies over epochs.

    Args:
        rows: One mapping a log line, with "epoch" and any of "train_loss", "val_loss", "val_top1", "val_top5".
        path: The picture to write.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for name in ("train_loss", "val_loss", "val_top1", "val_top5"):
        points = [(int(row["epoch"]) + 1, float(row[name])) for row in rows if row.get(name)]
        if points:
            axes = losses if name.endswith("loss") else accuracies
            axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), marker=".")
    for axes, title in ((losses, "loss"), (accuracies, "accuracy")):
        axes.set(xlabel="epoch", title=title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)
