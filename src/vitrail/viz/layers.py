"""Plot of layer ablations of a HiT: accuracy over layers, and contributions of layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vitrail.core.files import atomic_write
from vitrail.viz.styles import COLORS

MARKERS = ("o", "s", "^", "v")

ABLATION_KINDS = {
    "first": "the first k layers alone",
    "without_first": "all but the first k layers",
    "single": "layer k alone",
    "without": "all but layer k",
}
"""Kinds of ablations, and the layers that they keep; layers are counted from 0."""

MEASURE_NAMES = {
    "top1": "top-1 accuracy",
    "agreement": "agreement with the full model",
    "probability": "probability of the predicted class",
}


class Mean(NamedTuple):
    """A mean over images and its standard error, which is NaN for a single image."""

    value: float
    error: float

    @classmethod
    def over_images(cls, values: Float[Tensor, " b"]) -> "Mean":
        """Return the mean and its standard error, in double precision."""
        values = values.cpu().double()
        error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else math.nan
        return cls(float(values.mean()), error)


Curves = Mapping[str, Mapping[int, Mean]]
"""For each of `ABLATION_KINDS`, a mean for every k."""


@dataclass(frozen=True)
class LayerFigures:
    """The means that are plotted.

    Attributes:
        measure: One of `MEASURE_NAMES`: the measure of the curves.
        curves: Means of this measure.
        agreement: Means of the agreement with the full model; None if that is the measure.
        full: The measure of the full model.
        layers: Contribution of every layer to the logit of the predicted class.
        bias: Mean contribution of no layer.
        logit: Mean logit.
    """

    measure: str
    curves: Curves
    agreement: Curves | None
    full: float
    layers: Sequence[Mean]
    bias: float
    logit: float


def plot_layers(figures: LayerFigures, path: str | Path) -> None:
    """Plot the measure over k for every kind of ablation, and the contributions of layers, with one standard error."""
    num_layers = len(figures.layers)
    figure = Figure(figsize=(11 + 0.15 * num_layers, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_curves(left, figures)
    errors = [0.0 if math.isnan(mean.error) else mean.error for mean in figures.layers]
    right.bar(range(num_layers), [mean.value for mean in figures.layers], yerr=errors, color=COLORS[0], ecolor="0.3", capsize=3)
    right.axhline(0, color="0.3", linewidth=0.8)
    right.set(xlabel="layer", ylabel="mean contribution to the logit")
    right.set_title(
        f"mean logit of the predicted class: {figures.logit:z.2f}, of which {figures.bias:z.2f} from no layer", fontsize=10
    )
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.grid(alpha=0.3, axis="y")
    right.set_axisbelow(True)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)


def _draw_curves(axes: Axes, figures: LayerFigures) -> None:
    for i, (kind, label) in enumerate(ABLATION_KINDS.items()):
        means = figures.curves[kind]
        axes.plot(
            list(means), [mean.value for mean in means.values()], color=COLORS[i], marker=MARKERS[i], markersize=5, label=label
        )
        if not any(math.isnan(mean.error) for mean in means.values()):
            low, high = ([mean.value + sign * mean.error for mean in means.values()] for sign in (-1, 1))
            axes.fill_between(list(means), low, high, color=COLORS[i], alpha=0.15, linewidth=0)
        if figures.agreement is not None:
            agreement = figures.agreement[kind]
            axes.plot(
                list(agreement), [mean.value for mean in agreement.values()], color=COLORS[i], linestyle="--", linewidth=0.9
            )
    axes.axhline(figures.full, color="0.3", linestyle=":", label="the full model")
    if figures.agreement is not None:
        axes.plot([], [], color="0.3", linestyle="--", linewidth=0.9, label=MEASURE_NAMES["agreement"])
    axes.set(xlabel="k (layers are counted from 0)", ylabel=MEASURE_NAMES[figures.measure], ylim=(-0.03, 1.03))
    axes.set_title("updates of some layers kept, of the others removed", fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Below the axes, where it hides no curve.
    axes.legend(fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    axes.grid(alpha=0.3)
