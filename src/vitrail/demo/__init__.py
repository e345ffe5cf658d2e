"""The demo: a photo explained and scored by every method that needs no training, photos of other things, and drawn birds."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from vitrail.adapters import load
from vitrail.api import explain, score
from vitrail.core.errors import MissingExtraError
from vitrail.core.files import output_folder, results_folder
from vitrail.core.outputs import format_share
from vitrail.demo.birds import HIT as BIRDS_MODEL
from vitrail.demo.birds import BirdResults, draw_bird, explain_birds
from vitrail.demo.page import CURVES, PHOTO, SCORES, write_page
from vitrail.demo.photos import OtherAnswers, explain_others
from vitrail.demo.photos import demo_photo as demo_photo
from vitrail.evaluation.scoring.ceiling import CEILING
from vitrail.evaluation.scoring.report import write_results
from vitrail.evaluation.scoring.table import Table
from vitrail.explainers import usable_methods
from vitrail.explanation import Explanation
from vitrail.metrics import Curves
from vitrail.viz.curves import plot_perturbation
from vitrail.viz.overlay import overlay
from vitrail.viz.sheet import SheetRow, contact_sheet

logger = logging.getLogger(__name__)

MODEL = "vitrail:hit-pets"
PROTOCOL = "hit"
METHODS_SHEET = "methods.png"


@dataclass(frozen=True)
class Subject:
    """What the demo explains first.

    Attributes:
        photo: The photo.
        name: Its name.
        model: Name of the model that explains it.
    """

    photo: Image.Image
    name: str
    model: str


def choose_subject() -> Subject:
    """Return the photo of a cat, or a drawn bird where scikit-image, which has the photo, is not installed."""
    try:
        return Subject(demo_photo(), "chelsea", MODEL)
    except MissingExtraError as error:
        logger.info("a drawn bird takes the place of the photos: %s", error)
        return Subject(*draw_bird(), BIRDS_MODEL)


def run_demo(out: str | Path) -> Iterator[str]:
    """Write a page, its pictures, the explanation and the scores into `out`; yield the lines to print.

    Results of an earlier demo are replaced.
    """
    subject = choose_subject()
    photo, classifier = subject.photo, load(subject.model)
    methods = sorted((name for name in usable_methods(classifier) if name != CEILING), key=_sort_key)
    explained = explain(classifier, photo, methods, keep_photos=False)
    explanations = {name: explanation.with_sources([subject.name]) for name, explanation in explained.items()}
    box = classifier.preprocessing.visible_box(photo.height, photo.width)
    # Only the folder of an earlier demo is overwritten.
    with results_folder(out, overwrite=(Path(out) / METHODS_SHEET).exists()) as folder:
        photo.save(folder / PHOTO)
        for name, explanation in explanations.items():
            overlay(photo, explanation.relevance[0], box, signed=explanation.signed).save(folder / f"{name}.png")
        contact_sheet([SheetRow(photo, box, list(explanations.values()), subject.name)], folder / METHODS_SHEET)
        explanations["hit"].save(folder / "explanations.npz")
        # The results take their place in `out` at the end: until then, the photo's path is a temporary one.
        scores = replace(score(classifier, folder / PHOTO, methods, PROTOCOL), paths=[PHOTO])
        write_results(output_folder(folder / SCORES), Table.from_scores([scores]))
        curves = scores.mean_curves(PROTOCOL)
        plot_perturbation(curves, folder / CURVES)
        others = explain_others(folder) if subject.model == MODEL else None
        birds = explain_birds(folder)
        size = "{}x{}".format(*classifier.preprocessing.size)
        visible = "the whole photo" if box == (0, 0, photo.width, photo.height) else "the part inside of the white frames"
        write_page(folder, explanations, curves, others, birds, f"The photo. The model sees {visible} at {size} pixels.")
    yield from _describe_results(explanations["hit"], curves, others, birds)
    yield f"open {Path(out) / 'index.html'}"


def _sort_key(method: str) -> int:
    """Put the methods of the model itself first and the control last."""
    return 0 if method.startswith("hit") else 2 if method == "random" else 1


def _describe_results(
    hit: Explanation, curves: dict[str, Curves], others: OtherAnswers | None, birds: BirdResults
) -> Iterator[str]:
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
    if others is not None:
        yield f"photos of other things, which {others.model} does not know:"
        for name, answer, probability in others.answers:
            yield f"  {name:<20} {answer} {probability:.1%}"
    yield f"birds: strongest patch on the part that identifies the species (a random patch: {birds.chance:.0%})"
    for name, share in birds.pointing.items():
        yield f"  {name:<20} {share:.0%}"
