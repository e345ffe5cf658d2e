"""Scores as pictures and as one page that opens offline."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitrail.core.files import output_folder
from vitrail.evaluation.scoring.claim import PICTURES, remove_other_results
from vitrail.evaluation.scoring.files import write_comparisons, write_curves, write_images, write_summary
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.table import Table
from vitrail.evaluation.scoring.text import (
    metric_names,
    metric_rows,
    overview_rows,
    rank_rows,
    too_few_images,
    undefined_lines,
)
from vitrail.viz.comparison import Panel, plot_panels
from vitrail.viz.curves import plot_perturbation
from vitrail.viz.report import Picture, Section, write_report
from vitrail.viz.report import Table as PageTable


def write_everything(folder: Path, scores: Sequence[Scores], about: dict[str, str] | None = None) -> Table:
    """Write tables, pictures and the page of one or several models' scores.

    Written are images.csv, summary.json, cost.json, comparisons.csv, curves.csv (if there are curves), per metric a picture in
    pictures/, and index.html.

    Args:
        folder: Where to write.
        scores: Of one or several models, on the same images.
        about: Captions of contact sheets that were written to the folder before, by file name.

    Returns:
        What the files hold, for printing.

    Raises:
        InvalidInputError: The scores are of different images.
        OutputError: A file cannot be written.
    """
    table = Table.of(scores)
    write_images(folder, scores, table)
    write_summary(folder, scores, table)
    write_comparisons(folder, table)
    names = ["images.csv", "summary.json", "cost.json", "comparisons.csv", "index.html", *(about or {})]
    if any(each.protocols for each in scores):
        write_curves(folder, scores)
        names.append("curves.csv")
    pictures = output_folder(folder / PICTURES)
    warned = [_unproven(table)] if table.unproven else []
    sections = [_overview(table), *warned, *(_of_metric(pictures, scores, table, name) for name in metric_names(table))]
    sheets = [Picture(folder / name, caption, wide=True) for name, caption in (about or {}).items()]
    if sheets:
        sections.insert(1 + len(warned), Section("Images", pictures=sheets))
    head, rows = rank_rows(table)
    text = "The place of every method by its mean; 1 is best. Measures of the same images are not independent of each other."
    sections.append(Section("Ranks", text, table=PageTable(head, rows)))
    if unreadable := scores[0].unreadable:
        rows = [[file.path, file.reason] for file in unreadable]
        sections.append(Section("Files that were left out", table=PageTable(["file", "reason"], rows)))
    models = ", ".join(each.model for each in scores)
    lead = (
        f"{len(table.methods)} methods on {len(scores[0])} images. Numbers are means with half the width of their 95 % bootstrap "
        "intervals."
    )
    write_report(folder / "index.html", f"Which explanations of {models} are true?", lead, sections)
    shown = [picture.path for section in sections for picture in section.pictures]
    remove_other_results(folder, {*shown, *(folder / name for name in names)})
    return table


def _overview(table: Table) -> Section:
    head, rows = overview_rows(table)
    text = (
        "passes: what an explanation costs, in forward passes of its own network, counted in floating-point operations. "
        "ms per image: on the machine of this run. mean rank: over all measures that have a direction."
    )
    if table.controls and not table.unproven:
        text += " Every method that was compared with random beats it on every measure (paired sign-flip test, Holm-corrected, 5 %)."
    return Section("Which to trust", text, table=PageTable(head, rows))


def _unproven(table: Table) -> Section:
    """What is not shown to beat chance."""
    by_method = dict[str, list[str]]()
    for each in table.unproven:
        by_method.setdefault(each.method, []).append(each.measure)
    text = "Paired sign-flip test on the same images, Holm-corrected over the methods of a measure, 5 %."
    if too_few := too_few_images(table.num_images, table.num_compared):
        text += f" {too_few[0].upper()}{too_few[1:]}."
    rows = [[method, ", ".join(measures)] for method, measures in by_method.items()]
    return Section("Warning: not shown to beat random", text, table=PageTable(["method", "on"], rows))


def _of_metric(pictures: Path, scores: Sequence[Scores], table: Table, metric: str) -> Section:
    path = pictures / f"{metric}.png"
    columns = [i for i, column in enumerate(table.columns) if column.metric == metric]
    # What is the same for all methods says something of the data, not of them.
    telling = [i for i in columns if len(table.methods) == 1 or not _is_of_the_data(table, i)]
    plot_panels([_panel(table, i) for i in telling or columns], path)
    shown = [Picture(path, f"{metric}: means with 95 % intervals, and boxes over images; dotted: random.", wide=True)]
    for each in scores:
        if metric in each.protocols:
            shown += _curves(pictures, each, metric, several=len(scores) > 1)
    head, rows = metric_rows(table, metric)
    text = "; ".join(f"{table.columns[i].measure.name}: {table.columns[i].measure.description}" for i in columns)
    sentences = [f"{line[0].upper()}{line[1:]}." for line in (text, *undefined_lines(table, metric))]
    return Section(metric, " ".join(sentences), shown, PageTable(head, rows))


def _curves(pictures: Path, scores: Scores, protocol: str, several: bool) -> list[Picture]:
    """The mean curves of a model; and, where all of them have such a form, between baseline and image."""
    of = f", {scores.model}" if several else ""
    path = pictures / f"curves-{protocol}{f'-{file_name(scores.model)}' if several else ''}.png"
    means = scores.mean_curves(protocol)
    plot_perturbation(means, path)
    shown = [Picture(path, f"Mean curves of {protocol}{of}.", wide=True)]
    if all(curve.normalized for curve in scores.protocols[protocol].curves):
        relative = path.with_stem(f"{path.stem}-normalized")
        plot_perturbation(
            {name: curves.normalized() for name, curves in means.items()}, relative, "share of the way to the image"
        )
        shown.append(
            Picture(relative, f"The same{of}, from the score of the baseline (0) to that of the image (1).", wide=True)
        )
    return shown


def _is_of_the_data(table: Table, column: int) -> bool:
    first, *others = (values[:, column] for values in table.values.values())
    return all(np.array_equal(first, other, equal_nan=True) for other in others)


def _panel(table: Table, column: int) -> Panel:
    measure = table.columns[column].measure
    title = measure.name + (f" ({measure.better} is better)" if measure.better else "")
    means = {
        name: (float(each.mean[column]), float(each.low[column]), float(each.high[column]))
        for name, each in table.intervals.items()
    }
    return Panel(title, {name: values[:, column] for name, values in table.values.items()}, means)


def file_name(model: str) -> str:
    """A model's name as a part of a file's."""
    return "".join(letter if letter.isalnum() else "-" for letter in model).strip("-")
