"""The demo: one photo explained and scored by every method that needs no training, and drawn birds with known ground truth."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image

from vitrail.adapters import load
from vitrail.api import explain, score
from vitrail.core.command import running_command
from vitrail.core.errors import MissingExtraError
from vitrail.core.files import output_folder, results_folder
from vitrail.core.outputs import format_share
from vitrail.demo.birds import HIT, SHEET, VIT, BirdResults, explain_birds
from vitrail.evaluation.scoring.ceiling import CEILING
from vitrail.evaluation.scoring.report import write_results
from vitrail.evaluation.scoring.table import Table as ScoreTable
from vitrail.explainers import EXPLAINERS, usable_methods
from vitrail.explanation import Explanation
from vitrail.metrics import Curves
from vitrail.viz.curves import plot_perturbation
from vitrail.viz.overlay import overlay
from vitrail.viz.report import Picture, Section, Table, write_report
from vitrail.viz.report_tables import auc_table, class_table, patch_table
from vitrail.viz.sheet import SheetRow, contact_sheet

MODEL = "vitrail:hit-cifar10"
PROTOCOL = "hit"
PHOTO, METHODS_SHEET, CURVES, SCORES = "photo.png", "methods.png", "curves.png", "scores"
"""Names in the output folder; `SCORES` is the folder of the scores."""


def demo_photo() -> Image.Image:
    """Return the photo of Chelsea the cat from scikit-image, which is in the public domain.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    try:
        from skimage.data import chelsea  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise MissingExtraError("the demo photo", "demo") from error
    return Image.fromarray(chelsea())


def run_demo(out: str | Path) -> Iterator[str]:
    """Write a page, its pictures, the explanation and the scores into `out`; yield the lines to print.

    Results of an earlier demo are replaced.
    """
    photo = demo_photo()
    classifier = load(MODEL)
    methods = sorted((name for name in usable_methods(classifier) if name != CEILING), key=_sort_key)
    explained = explain(classifier, photo, methods, keep_photos=False)
    explanations = {name: explanation.with_sources(["chelsea"]) for name, explanation in explained.items()}
    box = classifier.preprocessing.visible_box(photo.height, photo.width)
    # Only the folder of an earlier demo is overwritten.
    with results_folder(out, overwrite=(Path(out) / METHODS_SHEET).exists()) as folder:
        photo.save(folder / PHOTO)
        for name, explanation in explanations.items():
            overlay(photo, explanation.relevance[0], box, signed=explanation.signed).save(folder / f"{name}.png")
        contact_sheet([SheetRow(photo, box, list(explanations.values()), "chelsea")], folder / METHODS_SHEET)
        explanations["hit"].save(folder / "explanations.npz")
        # The results take their place in `out` at the end: until then, the photo's path is a temporary one.
        scores = replace(score(classifier, folder / PHOTO, methods, PROTOCOL), paths=[PHOTO])
        write_results(output_folder(folder / SCORES), ScoreTable.from_scores([scores]))
        curves = scores.mean_curves(PROTOCOL)
        plot_perturbation(curves, folder / CURVES)
        birds = explain_birds(folder)
        size = "{}x{}".format(*classifier.preprocessing.size)
        visible = "the whole photo" if box == (0, 0, photo.width, photo.height) else "the part inside of the white frames"
        _write_page(folder, explanations, curves, birds, f"The photo. The model sees {visible} at {size} pixels.")
    yield from _describe_results(explanations["hit"], curves, birds)
    yield f"open {Path(out) / 'index.html'}"


def _sort_key(method: str) -> int:
    """Put the methods of the model itself first and the control last."""
    return 0 if method.startswith("hit") else 2 if method == "random" else 1


def _describe_results(hit: Explanation, curves: dict[str, Curves], birds: BirdResults) -> Iterator[str]:
    target, logit = hit.class_name(int(hit.targets[0])), float(hit.target_logits()[0])
    yield f"{hit.model} predicts: {', '.join(f'{name} {probability:.1%}' for name, probability in hit.top_classes(0, 3))}"
    strongest = ", ".join(
        f"row {row} column {col} {format_share(value, logit) or f'{value:+.3f}'}"
        for row, col, value in hit.strongest_patches(0, 3)
    )
    yield f"logit of {target} {logit:+.3f}, an exact sum over {hit.relevance[0].numel()} patches and a constant: {strongest}"
    yield f"completeness error: {hit.completeness_error():.1e} (largest |sum of parts - logit| / largest |logit|)"
    for name, measured in curves.items():
        auc = measured.summary()
        insertion, deletion = auc["insertion_zero"], auc["deletion_zero"]
        yield f"  {name:<20} insertion {insertion:.3f} (higher is better)  deletion {deletion:.3f} (lower is better)"
    yield f"birds: strongest patch on the part that identifies the species (a random patch: {birds.chance:.0%})"
    for name, share in birds.pointing.items():
        yield f"  {name:<20} {share:.0%}"


def _write_page(
    folder: Path, explanations: dict[str, Explanation], curves: dict[str, Curves], birds: BirdResults, caption: str
) -> None:
    hit = explanations["hit"]
    target, logit = hit.class_name(int(hit.targets[0])), float(hit.target_logits()[0])
    bias = float(hit.bias[0]) if hit.bias is not None else 0.0
    summaries = {name: (EXPLAINERS[name].__doc__ or "").strip().splitlines()[0].replace("`", "") for name in explanations}
    pictures = [Picture(folder / PHOTO, caption)]
    pictures += [Picture(folder / f"{name}.png", f"{name}: {summary}") for name, summary in summaries.items()]
    sections = [
        Section(
            "Which patches made the decision",
            "In red and blue heatmaps, red patches are evidence for the class and blue ones against it; stronger colors count more. "
            "The other heatmaps have no sign: purple is weak, yellow is strong, and the weakest patches stay clear.",
            pictures,
            class_table(hit.top_classes(0, 5)),
        ),
        Section(
            "The decision is a sum",
            f"The logit of {target} is {logit:+.4f}: patches {logit - bias:+.4f}, constants {bias:+.4f}. {_describe_error(hit)}",
            table=patch_table(hit, 8),
        ),
        Section(
            "How faithful are the explanations?",
            "Patches are inserted or deleted in the order of their relevance, and the probability of "
            f"{target} is measured. Faithful explanations give insertion curves that rise fast and deletion curves that fall fast; "
            f"random is the control. The folder {SCORES} holds all numbers.",
            [Picture(folder / CURVES, "Insertion and deletion curves of every method, for two baselines.", wide=True)],
            auc_table(curves, normalized=False),
        ),
        _birds_section(folder, birds),
    ]
    lead = f"vitrail explains a photo by {hit.model}, a classifier that is a sum over patches."
    write_report(folder / "index.html", f"Why is this a {target}?", lead, sections, running_command())


def _describe_error(explanation: Explanation) -> str:
    error = explanation.completeness_error()
    if not error:
        return "The sum of the parts is exactly the logit."
    return f"The sum of the parts differs from the logit by {error:.1e} of the largest logit."


def _birds_section(folder: Path, birds: BirdResults) -> Section:
    accuracy = ", ".join(f"{name} {share:.0%}" for name, share in birds.accuracy.items())
    rows: list[list[str | float]] = [[name, f"{share:.0%}"] for name, share in birds.pointing.items()]
    return Section(
        "Do they point at the right part?",
        "These birds are drawn, and species differ in one or two parts, so the ground truth is known: it is shown in color beside "
        f"each bird. hit explains {HIT}, the other methods {VIT}; both were trained on other birds of the same kind (accuracy on "
        f"these birds: {accuracy}). The table counts how often the strongest patch touches a part that identifies the species.",
        [Picture(folder / SHEET, "Birds, the parts that identify them, and the heatmaps of every method.", wide=True)],
        Table(["strongest patch on the ground truth", "share"], [*rows, ["a random patch", f"{birds.chance:.0%}"]]),
    )
