"""What layers give: tables, curves over ablations, and bars, drawn from numbers per image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vitrail.core.files import atomic_write, write_text
from vitrail.core.json_io import json_text
from vitrail.viz.report import Picture, Section, Table, write_report
from vitrail.viz.tables import write_csv

KINDS = {
    "first": "the first k layers alone",
    "without_first": "all but the first k layers",
    "single": "layer k alone",
    "without": "all but layer k",
}
"""The kinds of ablations, and what they keep; layers are counted from 0."""

WORDS = {
    "top1": "top-1 accuracy",
    "agreement": "agreement with the whole model",
    "probability": "probability of the predicted class",
}
MARKERS = ("o", "s", "^", "v")


class Mean(NamedTuple):
    """Over images: the mean, and its standard error, which is NaN of a single image."""

    value: float
    error: float


@dataclass(frozen=True)
class LayerFigures:
    """What is drawn and written.

    Attributes:
        ablations: Kind, k, and the layers that are kept, for each of `k` sets of layers.
        measures: Per name in `WORDS`, a number for every image and set.
        whole: The same of the whole model, for every image.
        layers: What each layer gave to the logit of the predicted class.
        bias: What no layer gave to it.
        logits: That logit.
        paths: Name of every image.
        targets: Its predicted class, by name.
        labels: Its true class, by name, where there are labels.
        settings: What summary.json begins with.
    """

    ablations: Sequence[tuple[str, int, Sequence[int]]]
    measures: Mapping[str, Float[Tensor, "b k"]]
    whole: Mapping[str, Float[Tensor, " b"]]
    layers: Float[Tensor, "b l"]
    bias: Float[Tensor, " b"]
    logits: Float[Tensor, " b"]
    paths: Sequence[str]
    targets: Sequence[str]
    labels: Sequence[str] | None
    settings: Mapping[str, Any]

    def mean(self, measure: str, kind: str) -> dict[int, Mean]:
        """A measure over the k of a kind."""
        values = self.measures[measure]
        return {k: _mean(values[:, i]) for i, (each, k, _) in enumerate(self.ablations) if each == kind}

    def given(self) -> list[tuple[str, Mean, Mean]]:
        """What each layer gave, what none did, and the logit that they add up to: names, and means of values and of magnitudes."""
        parts = {str(layer): values for layer, values in enumerate(self.layers.T)} | {"bias": self.bias, "logit": self.logits}
        return [(name, _mean(values), _mean(values.abs())) for name, values in parts.items()]


def layer_table(figures: LayerFigures) -> list[str]:
    """Lines of aligned columns, one per k: the first measure of every kind of ablation, and what layer k gave.

    Above them stands what they are.
    """
    given = figures.given()
    num_layers = figures.layers.shape[1]
    kinds = [figures.mean(next(iter(figures.measures)), kind) for kind in KINDS]
    rows = [["k", *KINDS, "given", "error", "magnitude"]]
    for k in range(num_layers + 1):
        cells = [f"{kind[k].value:.4f}" if k in kind else "" for kind in kinds]
        rows.append([str(k), *cells, *(_given(given[k]) if k < num_layers else ["", "", ""])])
    rows += [[name, *[""] * len(KINDS), *_given((name, value, size))] for name, value, size in given[num_layers:]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = f"{WORDS[next(iter(figures.measures))]} by the layers that are kept, and what layer k gave to the predicted class' logit"
    return [words] + ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def write_layers(folder: Path, figures: LayerFigures) -> None:
    """Write layers.csv (a line an ablation), saliency.csv (a line a layer), images.csv (a line an image) and summary.json.

    What is undefined, such as the standard error of a single image, stays empty.
    """
    means = {name: [_mean(values[:, i]) for i in range(values.shape[1])] for name, values in figures.measures.items()}
    lines = [
        [kind, k, " ".join(map(str, kept)), *(_cell(number) for each in means.values() for number in each[i])]
        for i, (kind, k, kept) in enumerate(figures.ablations)
    ]
    head = ["kind", "k", "kept", *(column for name in means for column in (name, f"{name}_error"))]
    write_csv(folder / "layers.csv", head, lines)
    given = [[name, *map(_cell, value), *map(_cell, size)] for name, value, size in figures.given()]
    write_csv(folder / "saliency.csv", ["layer", "mean", "error", "mean_magnitude", "magnitude_error"], given)
    _write_images(folder / "images.csv", figures)
    whole = {name: _mean(values) for name, values in figures.whole.items()}
    summary = {
        **figures.settings,
        "num_layers": figures.layers.shape[1],
        "num_images": len(figures.paths),
        # JSON has no NaN: what is undefined is null.
        "whole_model": {
            name: {"mean": mean.value, "error": None if math.isnan(mean.error) else mean.error} for name, mean in whole.items()
        },
        "mean_layer_saliency": [value.value for _, value, _ in figures.given()[:-2]],
        "mean_bias": _mean(figures.bias).value,
        "mean_logit": _mean(figures.logits).value,
    }
    write_text(folder / "summary.json", json_text(summary, indent=2))


def plot_layers(figures: LayerFigures, path: str | Path) -> None:
    """Draw two panels: the first measure over k for every kind of ablation, and what every layer gave, with one standard error.

    Args:
        figures: What was measured.
        path: The picture to write.
    """
    num_layers = figures.layers.shape[1]
    figure = Figure(figsize=(11 + 0.15 * num_layers, 4.6), layout="constrained")
    curves, bars = figure.subplots(1, 2)
    _draw_curves(curves, figures)
    given = [value for _, value, _ in figures.given()[:num_layers]]
    errors = [0.0 if math.isnan(mean.error) else mean.error for mean in given]
    bars.bar(range(num_layers), [mean.value for mean in given], yerr=errors, color="C0", ecolor="0.3", capsize=3)
    bars.axhline(0, color="0.3", linewidth=0.8)
    bars.set(xlabel="layer", ylabel="mean contribution to the logit")
    whole, none = _mean(figures.logits).value, _mean(figures.bias).value
    bars.set_title(f"mean logit of the predicted class: {whole:z.2f}, of which {none:z.2f} from no layer", fontsize=10)
    bars.xaxis.set_major_locator(MaxNLocator(integer=True))
    bars.grid(alpha=0.3, axis="y")
    bars.set_axisbelow(True)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)


def _draw_curves(axes: Axes, figures: LayerFigures) -> None:
    measure = next(iter(figures.measures))
    for i, (kind, words) in enumerate(KINDS.items()):
        means = figures.mean(measure, kind)
        heights = [mean.value for mean in means.values()]
        axes.plot(list(means), heights, color=f"C{i}", marker=MARKERS[i], markersize=5, label=words)
        if len(figures.paths) > 1:
            low, high = ([mean.value + sign * mean.error for mean in means.values()] for sign in (-1, 1))
            axes.fill_between(list(means), low, high, color=f"C{i}", alpha=0.15, linewidth=0)
        if measure != "agreement":
            agreement = [mean.value for mean in figures.mean("agreement", kind).values()]
            axes.plot(list(means), agreement, color=f"C{i}", linestyle="--", linewidth=0.9)
    axes.axhline(_mean(figures.whole[measure]).value, color="0.3", linestyle=":", label="the whole model")
    if measure != "agreement":
        axes.plot([], [], color="0.3", linestyle="--", linewidth=0.9, label=WORDS["agreement"])
    axes.set(xlabel="k (layers are counted from 0)", ylabel=WORDS[measure], ylim=(-0.03, 1.03))
    axes.set_title("some layers' updates kept, the others left out", fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Below, where it hides no curve.
    axes.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    axes.grid(alpha=0.3)


def layer_page(figures: LayerFigures, folder: Path, lead: str) -> None:
    """Write index.html: the picture layers.png of the same folder, and every table."""
    num_layers = figures.layers.shape[1]
    sections = [
        Section(
            "Layers",
            "An ablation leaves layers' updates out of the sum that the class token is, and computes norm and head anew. The updates "
            "themselves stay those of the whole forward pass. Layers are counted from 0.",
            [
                Picture(
                    folder / "layers.png",
                    "On the left: what is predicted from some layers. On the right: what each gave.",
                    True,
                )
            ],
        )
    ]
    for measure in figures.measures:
        kinds = [figures.mean(measure, kind) for kind in KINDS]
        rows = [[str(k), *(kind[k].value if k in kind else "" for kind in kinds)] for k in range(num_layers + 1)]
        whole = f"Of the whole model: {_mean(figures.whole[measure]).value:.4g}."
        sections.append(Section(WORDS[measure].capitalize(), whole, table=Table(["k", *KINDS.values()], rows)))
    given = [
        [name, *("" if math.isnan(number) else number for number in (*value, *size))] for name, value, size in figures.given()
    ]
    head = ["layer", "mean", "standard error", "mean magnitude", "standard error"]
    words = (
        "What each layer gave to the logit of the predicted class; with the bias, which no layer gave, it adds up to the logit."
    )
    sections.append(Section("Mean layer saliency", words, table=Table(head, given)))
    write_report(folder / "index.html", "What each layer gives", lead, sections)


def _write_images(path: Path, figures: LayerFigures) -> None:
    labels = {} if figures.labels is None else {"label": figures.labels}
    named = {"image": figures.paths, **labels, "target": figures.targets}
    numbers = {f"layer_{layer}": values.tolist() for layer, values in enumerate(figures.layers.T)}
    numbers |= {"bias": figures.bias.tolist(), "logit": figures.logits.tolist()}
    write_csv(path, [*named, *numbers], list(zip(*named.values(), *numbers.values(), strict=True)))


def _mean(values: Float[Tensor, " b"]) -> Mean:
    values = values.cpu().double()
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else math.nan
    return Mean(float(values.mean()), error)


def _cell(number: float) -> float | str:
    return "" if math.isnan(number) else number


def _given(part: tuple[str, Mean, Mean]) -> list[str]:
    _, value, size = part
    return [f"{value.value:.4f}", "-" if math.isnan(value.error) else f"{value.error:.4f}", f"{size.value:.4f}"]
