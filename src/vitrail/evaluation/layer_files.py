"""Write a layer report: tables, summary, picture and page; print it as text."""

import math
from pathlib import Path

from vitrail.core.command import running_command
from vitrail.core.csv_io import write_csv
from vitrail.core.files import write_text
from vitrail.core.json_io import json_text
from vitrail.evaluation.layer_report import Contribution, LayerReport
from vitrail.evaluation.scoring.text import align_columns
from vitrail.viz.layers import ABLATION_KINDS, MEASURE_NAMES, LayerFigures, Mean, plot_layers
from vitrail.viz.report import Picture, Section, Table, write_report

PICTURE = "layers.png"


def layer_lines(report: LayerReport) -> list[str]:
    """Return the report as lines of text: the model, then a table with one row per k.

    The table has the first measure for every kind of ablation, and the contribution of layer k.
    """
    measure, contributions = _first_measure(report), report.contributions()
    kinds = [report.mean(measure, kind) for kind in ABLATION_KINDS]
    rows = []
    for k in range(report.num_layers + 1):
        cells = [f"{kind[k].value:.4f}" if k in kind else "" for kind in kinds]
        rows.append([str(k), *cells, *(_format(contributions[k]) if k < report.num_layers else ["", "", ""])])
    rows += [[part.name, *[""] * len(ABLATION_KINDS), *_format(part)] for part in contributions[report.num_layers :]]
    title = f"{MEASURE_NAMES[measure]} by the layers that are kept, and the contribution of layer k to the logit of the predicted class"
    table = align_columns(["k", *ABLATION_KINDS, "given", "error", "magnitude"], rows)
    reason = [f"top-1 is left out: {report.no_labels}"] if report.no_labels else []
    return [lead(report), *reason, *(f"  {line}" for line in (title, *table))]


def lead(report: LayerReport) -> str:
    """Return a line with the model, the number of layers and images, and the measures of the full model."""
    whole = ", ".join(
        f"{MEASURE_NAMES[name]} {float(values.double().mean()):.4f}"
        for name, values in report.whole().items()
        if name != "agreement"
    )
    return f"{report.model}, {report.num_layers} layers, {len(report.paths)} images: {whole}"


def write_layer_report(folder: Path, report: LayerReport) -> None:
    """Write layers.csv (one row per ablation), saliency.csv (per layer), images.csv (per image), summary.json, layers.png, index.html.

    Undefined numbers, such as the standard error for a single image, are left empty.
    """
    means = {
        name: [Mean.over_images(values[:, i]) for i in range(values.shape[1])] for name, values in report.measures().items()
    }
    rows = [
        [kind, k, " ".join(map(str, kept)), *(number for column in means.values() for number in column[i])]
        for i, (kind, k, kept) in enumerate(report.ablations)
    ]
    head = ["kind", "k", "kept", *(column for name in means for column in (name, f"{name}_error"))]
    write_csv(folder / "layers.csv", head, rows)
    saliency = [[part.name, *part.value, *part.magnitude] for part in report.contributions()]
    write_csv(folder / "saliency.csv", ["layer", "mean", "error", "mean_magnitude", "magnitude_error"], saliency)
    _write_images(folder / "images.csv", report)
    _write_summary(folder / "summary.json", report)
    plot_layers(_figures(report), folder / PICTURE)
    _write_page(folder, report)


def _write_images(path: Path, report: LayerReport) -> None:
    labels = {} if report.label_names is None else {"label": report.label_names}
    names = {"image": report.paths, **labels, "target": report.target_names}
    numbers = {f"layer_{layer}": values.tolist() for layer, values in enumerate(report.layers.T)}
    numbers |= {"bias": report.bias.tolist(), "logit": report.logits.tolist()}
    write_csv(path, [*names, *numbers], list(zip(*names.values(), *numbers.values(), strict=True)))


def _write_summary(path: Path, report: LayerReport) -> None:
    whole = {name: Mean.over_images(values) for name, values in report.whole().items()}
    *layers, bias, logit = report.contributions()
    summary = {
        "model": report.model,
        "no_labels": report.no_labels,
        "completeness_error": report.completeness_error,
        "unreadable": [file._asdict() for file in report.unreadable],
        "num_layers": report.num_layers,
        "num_images": len(report.paths),
        "whole_model": {name: {"mean": mean.value, "error": mean.error} for name, mean in whole.items()},
        "mean_layer_saliency": [layer.value.value for layer in layers],
        "mean_bias": bias.value.value,
        "mean_logit": logit.value.value,
    }
    write_text(path, json_text(summary, indent=2))


def _write_page(folder: Path, report: LayerReport) -> None:
    text = (
        "An ablation leaves updates of layers out of the sum that is the class token, and computes norm and head again. The other updates "
        "stay those of the full forward pass. Layers are counted from 0."
    )
    caption = "Left: predictions from some of the layers. Right: the contribution of each layer."
    sections = [Section("Layers", text, [Picture(folder / PICTURE, caption, wide=True, plot=True)])]
    for measure, values in report.whole().items():
        kinds = [report.mean(measure, kind) for kind in ABLATION_KINDS]
        rows = [[str(k), *(kind[k].value if k in kind else "" for kind in kinds)] for k in range(report.num_layers + 1)]
        whole = f"Full model: {Mean.over_images(values).value:.4g}."
        sections.append(Section(MEASURE_NAMES[measure].capitalize(), whole, table=Table(["k", *ABLATION_KINDS.values()], rows)))
    contributions = [
        [part.name, *("" if math.isnan(number) else number for number in (*part.value, *part.magnitude))]
        for part in report.contributions()
    ]
    head = ["layer", "mean", "standard error", "mean magnitude", "standard error"]
    text = "The contribution of each layer to the logit of the predicted class; layers and bias add up to the logit."
    sections.append(Section("Mean layer saliency", text, table=Table(head, contributions)))
    write_report(folder / "index.html", "What each layer contributes", lead(report), sections, running_command())


def _figures(report: LayerReport) -> LayerFigures:
    measure = _first_measure(report)
    *layers, bias, logit = report.contributions()
    return LayerFigures(
        measure=measure,
        curves={kind: report.mean(measure, kind) for kind in ABLATION_KINDS},
        agreement=None if measure == "agreement" else {kind: report.mean("agreement", kind) for kind in ABLATION_KINDS},
        full=Mean.over_images(report.whole()[measure]).value,
        layers=[layer.value for layer in layers],
        bias=bias.value.value,
        logit=logit.value.value,
    )


def _first_measure(report: LayerReport) -> str:
    return next(iter(report.measures()))


def _format(part: Contribution) -> list[str]:
    error = "-" if math.isnan(part.value.error) else f"{part.value.error:.4f}"
    return [f"{part.value.value:.4f}", error, f"{part.magnitude.value:.4f}"]
