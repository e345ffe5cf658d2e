"""Write scores as tables, pictures, and one page that opens offline."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitrail.core.command import running_command
from vitrail.core.files import output_folder
from vitrail.evaluation.scoring.citation import Setup, describe_methods_for_citation
from vitrail.evaluation.scoring.files import write_comparisons, write_curves, write_images, write_summary
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.stale_results import PICTURES, remove_stale_results
from vitrail.evaluation.scoring.table import Table
from vitrail.evaluation.scoring.text import (
    ROUGH_TIME,
    comparison_cells,
    describe_ceiling,
    describe_undefined,
    explain_too_few_images,
    group_unproven,
    metric_cells,
    metric_names,
    overview_cells,
    rank_cells,
)
from vitrail.evaluation.scoring.verdict import Verdict, reach_verdict
from vitrail.metrics.statistics import CONTROL
from vitrail.metrics.statistics.resampling import divide
from vitrail.viz.comparison import Panel, plot_panels
from vitrail.viz.curves import MAX_BANDS, plot_perturbation
from vitrail.viz.forest import ForestPanel, plot_forest
from vitrail.viz.report import Picture, Section, write_report
from vitrail.viz.report import Table as PageTable
from vitrail.viz.styles import is_control, method_styles

MAX_FOREST_PANELS = 6


def write_results(folder: Path, table: Table, captions: dict[str, str] | None = None, setup: Setup | None = None) -> None:
    """Write the tables, pictures and page of a table of scores.

    These are images.csv, summary.json, cost.json, comparisons.csv, curves.csv (if there are curves), one picture per metric in pictures/,
    and index.html. Results of an earlier run are removed.

    Args:
        captions: Captions of the contact sheets in the folder, by file name.
        setup: What the paragraph for a paper says about the run.

    Raises:
        OutputError: A file cannot be written.
    """
    captions = captions or {}
    write_images(folder, table)
    write_summary(folder, table)
    write_comparisons(folder, table)
    names = ["images.csv", "summary.json", "cost.json", "comparisons.csv", "index.html", *captions]
    if any(scores.protocols for scores in table.scores):
        write_curves(folder, table)
        names.append("curves.csv")
    pictures = output_folder(folder / PICTURES)
    verdicts = [reach_verdict(scores) for scores in table.scores]
    sections = [_verdict_section(pictures, table, verdicts), _overview_section(table)]
    sections += [_warning_section(table)] if table.unproven else []
    sections += _comparison_sections(table, verdicts)
    if captions:
        sheets = [Picture(folder / name, caption, wide=True) for name, caption in captions.items()]
        sections.append(Section("Images", pictures=sheets))
    sections += [_metric_section(pictures, table, name) for name in metric_names(table)]
    head, rows = rank_cells(table)
    text = "The rank of every method by its mean; 1 is best. Measures of the same images are not independent of each other."
    sections.append(Section("Ranks", text, table=PageTable(head, rows)))
    if unreadable := table.scores[0].unreadable:
        rows = [[file.path, file.reason] for file in unreadable]
        sections.append(Section("Skipped files", table=PageTable(["file", "reason"], rows)))
    sections.append(Section("Methods paragraph for a paper", describe_methods_for_citation(table, setup)))
    models = " and ".join(scores.model for scores in table.scores)
    counts = [
        f"{count:,} {word}{'s' * (count != 1)}" for count, word in ((len(table.methods), "method"), (table.num_images, "image"))
    ]
    numbers = "means ± half of their 95% bootstrap interval" if table.num_images > 1 else "those of this image"
    lead = f"{' on '.join(counts)}. Numbers are {numbers}."
    write_report(folder / "index.html", f"Scores of explanations of {models}", lead, sections, running_command())
    shown = [picture.path for section in sections for picture in section.pictures]
    remove_stale_results(folder, {*shown, *(folder / name for name in names)})


def _verdict_section(pictures: Path, table: Table, verdicts: Sequence[Verdict]) -> Section:
    words = "\n".join(map(str, verdicts))
    panels = _forest_panels(table)
    if not panels:
        return Section("Verdict", words)
    path = pictures / "verdict.png"
    plot_forest(panels, path)
    caption = (
        "Mean difference from random on the same images, with 95% intervals; right of the dotted line is better than random. The tests "
        "behind the verdict are corrected for the number of methods, the intervals are not."
    )
    if len(panels) == MAX_FOREST_PANELS:
        caption += f" The tables below have all measures, this picture at most {MAX_FOREST_PANELS}."
    return Section("Verdict", words, [Picture(path, caption, wide=True, plot=True)])


def _comparison_sections(table: Table, verdicts: Sequence[Verdict]) -> list[Section]:
    """Compare the recommended method of every model, or its control if none is, with the others."""
    chosen = [(verdict.model, verdict.method or CONTROL) for verdict in verdicts]
    names = [f"{model}/{method}" if len(chosen) > 1 else method for model, method in chosen]
    head, rows = comparison_cells(table, [name for name in names if name in table.methods])
    if not rows:
        return []
    text = (
        "Mean differences on the same images with 95% intervals, and p-values of paired tests, corrected for the number of pairs of a "
        "measure (Holm), not for the number of measures. comparisons.csv has all pairs, images.csv the numbers of every image."
    )
    return [Section("Comparisons", text, table=PageTable(head, rows))]


def _forest_panels(table: Table) -> list[ForestPanel]:
    """Return the differences of all methods from the control of their model, on the first measures that compare methods."""
    # Normalized AUCs repeat what the raw ones say.
    directed = [
        i
        for i, column in enumerate(table.columns)
        if table.comparing[i] and not column.measure.name.startswith("normalized_") and not _is_equal_for_all(table, i)
    ][:MAX_FOREST_PANELS]
    if not table.controls or not directed:
        return []
    compared = {(entry.measure, entry.first, entry.second): entry for entry in table.comparisons}
    panels = []
    for i in directed:
        measure = table.columns[i].name
        differences = {}
        for name, control in table.controls.items():
            entry = compared.get((measure, name, control)) or compared[measure, control, name]
            ends = entry.difference, entry.low, entry.high
            # Positive where the method is better.
            turned = (entry.first == name) != (table.columns[i].measure.better == "higher")
            differences[name] = (-ends[0], -ends[2], -ends[1]) if turned else ends
        if any(not np.isnan(mean) for mean, _, _ in differences.values()):  # The control may lack the measure.
            panels.append(ForestPanel(measure, differences))
    return panels


def _overview_section(table: Table) -> Section:
    head, rows = overview_cells(table)
    text = (
        "The mean rank is over the measures that have a direction, are defined for all methods, and do not depend on the scale of a map; "
        "1 is best. Passes are the cost of an explanation in forward passes of the network, counted in floating-point operations. "
        "Milliseconds per image are those of this run on its machine."
    )
    if any(cost.is_rough for cost in table.cost.values()):
        text += f" {ROUGH_TIME}."
    if len(table.scores) > 1:
        text += (
            " Ranks of methods of different models say as much about the models: one that keeps its answer longer has higher insertion "
            "AUCs with any method, so compare each method with random of its own model."
        )
    if table.controls and not table.unproven:
        text += " Every method is significantly better than random on every measure (paired sign-flip test, Holm-corrected, 5% level)."
    return Section("Overview", text, table=PageTable(head, rows))


def _warning_section(table: Table) -> Section:
    text = "Paired sign-flip test on the same images, Holm-corrected over the methods of a measure, 5% level."
    if too_few := explain_too_few_images(table.num_images, table.num_compared):
        text += f" {too_few[0].upper()}{too_few[1:]}."
    groups = group_unproven(table.unproven)
    rows = [[method, *(", ".join(names) for names in measures)] for method, measures in groups.items()]
    head = ["method", "significantly worse on", "not distinguishable on"]
    if not any(worse for worse, _ in groups.values()):
        head, rows = ["method", "on"], [[method, undecided] for method, _, undecided in rows]
    return Section("Warning: not significantly better than random", text, table=PageTable(head, rows))


def _metric_section(pictures: Path, table: Table, metric: str) -> Section:
    path = pictures / f"{metric}.png"
    columns = [i for i, column in enumerate(table.columns) if column.metric == metric]
    # Columns that are equal for all methods describe the data, not the methods.
    telling = [i for i in columns if len(table.methods) == 1 or not _is_equal_for_all(table, i)]
    plot_panels([_make_panel(table, i) for i in telling or columns], path)
    controls = [table.values[name][:, columns] for name in table.methods if is_control(name)]
    dotted = "; dotted: random" if any(not np.isnan(values).all() for values in controls) else ""
    caption = f"{metric}: means with 95% intervals, and boxes over images, without outliers{dotted}."
    shown = [Picture(path, caption, wide=True, plot=True)]
    measured = [scores for scores in table.scores if metric in scores.protocols]
    limits = _common_limits(measured, metric) if len(measured) > 1 else None
    for scores in measured:
        shown += _plot_curves(pictures, scores, metric, limits, table)
    head, rows = metric_cells(table, metric)
    descriptions = "; ".join(f"{table.columns[i].measure.name}: {table.columns[i].measure.description}" for i in columns)
    lines = (f"Measured: {descriptions}", *describe_undefined(table, metric), *describe_ceiling(table, metric))
    # Names of measures keep their case.
    sentences = [f"{line}." if "_" in line.split()[0] else f"{line[0].upper()}{line[1:]}." for line in lines]
    measured_rows = [row for row in rows if set(row[1:]) - {"", "-"}]
    if len(measured_rows) < len(rows):
        sentences.append(f"Not measurable: {', '.join(row[0] for row in rows if row not in measured_rows)}.")
    return Section(f"Protocol {metric}" if measured else metric, " ".join(sentences), shown, PageTable(head, measured_rows))


def _plot_curves(
    pictures: Path, scores: Scores, protocol: str, limits: tuple[float, float] | None, table: Table
) -> list[Picture]:
    """Draw the mean curves of a model, and their normalized form if all curves have one."""
    several, all_styles = len(table.scores) > 1, method_styles(table.methods)
    styles = {name: all_styles[f"{scores.model}/{name}" if several else name] for name in scores.methods}
    of_model = f", {scores.model}" if several else ""
    path = pictures / f"curves-{protocol}{f'-{file_name(scores.model)}' if several else ''}.png"
    means, errors = scores.mean_curves(protocol), scores.curve_errors(protocol)
    plot_perturbation(means, path, errors=errors, limits=limits, styles=styles)
    bands = ", with standard errors" if len(means) <= MAX_BANDS else ""
    shown = [Picture(path, f"Mean curves of the protocol {protocol}{of_model}{bands}.", wide=True, plot=True)]
    if all(curve.normalized for curve in scores.protocols[protocol].curves):
        normalized = path.with_stem(f"{path.stem}-normalized")
        curves = {name: curves.normalized() for name, curves in means.items()}
        spans = {name: np.ptp(curves.ends[0].cpu().numpy(), axis=-1, keepdims=True) for name, curves in means.items()}
        scaled = {name: divide(errors[name], spans[name]) for name in means}
        plot_perturbation(curves, normalized, "score, from baseline (0) to image (1)", errors=scaled, styles=styles)
        caption = (
            f"Mean curves of the protocol {protocol}{of_model}, normalized: 0 is the score of the baseline, 1 that of the "
            f"image{bands}"
        )
        if any(not each.scores.isfinite().all() for each in curves.values()):
            caption += "; undefined where these two scores nearly meet"
        caption += "."
        shown.append(Picture(normalized, caption, wide=True, plot=True))
    return shown


def _common_limits(models: Sequence[Scores], protocol: str) -> tuple[float, float] | None:
    """Return ends of the axes that hold the mean curves of all models; None if the protocol has scores on several scales."""
    if len(models[0].protocols[protocol].scores) > 1:
        return None
    curves = np.concatenate([each.scores.flatten() for scores in models for each in scores.mean_curves(protocol).values()])
    low, high = float(np.nanmin(curves)), float(np.nanmax(curves))
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def _is_equal_for_all(table: Table, column: int) -> bool:
    first, *others = (values[:, column] for values in table.values.values())
    return all(np.array_equal(first, other, equal_nan=True) for other in others)


def _make_panel(table: Table, column: int) -> Panel:
    measure = table.columns[column].measure
    title = measure.name + (f" ({measure.better} is better)" if measure.better else "")
    means = {
        name: (float(intervals.mean[column]), float(intervals.low[column]), float(intervals.high[column]))
        for name, intervals in table.intervals.items()
    }
    return Panel(title, {name: values[:, column] for name, values in table.values.items()}, means)


def file_name(model: str) -> str:
    """Return a model's name with other characters than letters and digits replaced, as a part of a file name."""
    return "".join(letter if letter.isalnum() else "-" for letter in model).strip("-")
