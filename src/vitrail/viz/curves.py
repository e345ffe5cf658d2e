"""Curves: of training, and of insertion and deletion."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitrail.files import atomic_write
from vitrail.metrics import Curves
from vitrail.metrics.perturbation import DIRECTIONS

MAX_INSIDE = 5
"""The legend of more methods would hide the curves: it stands beside them."""


def plot_learning_curve(rows: Sequence[Mapping[str, int | float]], path: str | Path) -> None:
    """Draw losses and accuracies over epochs.

    Args:
        rows: One mapping an epoch, with "epoch" from 1 and any of "train_loss", "val_loss", "val_top1", "val_top5".
        path: The picture to write.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for name in ("train_loss", "val_loss", "val_top1", "val_top5"):
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        if points:
            axes = losses if name.endswith("loss") else accuracies
            axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), marker=".")
    for axes, title in ((losses, "loss"), (accuracies, "accuracy")):
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)


def plot_perturbation(curves: Mapping[str, Curves], path: str | Path) -> None:
    """Draw mean insertion and deletion curves, one panel a baseline and direction, one line a method.

    Args:
        curves: Curves under the name of their method, all of one protocol.
        path: The picture to write.
    """
    protocol = next(iter(curves.values())).protocol
    beside = len(curves) > MAX_INSIDE
    width = 4.2 + 2.6 * beside
    figure = Figure(figsize=(width * len(DIRECTIONS), 3.4 * len(protocol.baselines)), layout="constrained")
    panels = figure.subplots(len(protocol.baselines), len(DIRECTIONS), squeeze=False, sharex=True, sharey=True)
    styles = _styles(list(curves))
    for i, baseline in enumerate(protocol.baselines):
        for j, direction in enumerate(DIRECTIONS):
            axes = panels[i, j]
            for method, measured in curves.items():
                scores, auc = measured.scores[:, i, j].cpu(), measured.auc()[:, i, j].mean()
                fractions, mean = measured.fractions.cpu(), scores.mean(0)
                colour, dashes = styles[method]
                axes.plot(fractions, mean, color=colour, linestyle=dashes, label=f"{method} (AUC {auc:.3f})")
                if len(scores) > 1:
                    spread = scores.std(0) / len(scores) ** 0.5
                    axes.fill_between(fractions, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
            axes.set_title(f"{direction}, {baseline} ({protocol.better(direction)} is better)", fontsize=10)
            axes.legend(
                fontsize=8, **({"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False} if beside else {})
            )
            axes.grid(alpha=0.3)
    for axes in panels[-1]:
        axes.set_xlabel("share of cells changed")
    for axes in panels[:, 0]:
        axes.set_ylabel(f"{protocol.score} of the class")
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)


def _styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and dashes of every method: no two alike, and the control dotted and grey."""
    others = [method for method in methods if method != "random"]
    styles = {method: (f"C{i % 10}", ("-", "--", "-.")[i // 10 % 3]) for i, method in enumerate(others)}
    return {**styles, "random": ("0.4", ":")}
