"""The demonstration: one photo, every method that needs no training of its own, and the proof; birds, and what tells them apart."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from vitrail.adapters import load
from vitrail.core.errors import MissingExtraError
from vitrail.core.files import results_folder
from vitrail.demo.birds import HIT, SHEET, VIT, BirdFigures, explain_birds
from vitrail.explainers import EXPLAINERS, make_explainer
from vitrail.explanation import Explanation, format_share
from vitrail.metrics import PROTOCOLS, perturbation_curves
from vitrail.runs.explain_images import explain_photos
from vitrail.viz.curves import plot_perturbation
from vitrail.viz.overlay import overlay
from vitrail.viz.report import Picture, Section, Table, write_report
from vitrail.viz.sheet import SheetRow, contact_sheet
from vitrail.viz.tables import write_scores

MODEL = "vitrail:hit-cifar10"


def demo_photo() -> Image.Image:
    """Chelsea the cat, in the public domain, from scikit-image.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    try:
        from skimage.data import chelsea  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise MissingExtraError("the demonstration's photo", "demo") from error
    return Image.fromarray(chelsea())


def run_demo(out: str | Path) -> Iterator[str]:
    """Write the page, the pictures and the arrays into `out`; yield lines that tell what was found.

    Results of an earlier demonstration are replaced.
    """
    photo = demo_photo()
    classifier = load(MODEL)
    # Gates for the bundled model would have to be trained first.
    able = (name for name, method in EXPLAINERS.items() if not method.refusal(classifier) and not method.needs_training)
    names = sorted(able, key=_place)
    explanations = {name: explain_photos(make_explainer(name, classifier), [photo], ["chelsea"]) for name in names}
    protocol = PROTOCOLS["hit"]
    images = classifier.prepare(photo)
    curves = {name: perturbation_curves(classifier, images, one, protocol) for name, one in explanations.items()}
    summary = {name: measured.summary() for name, measured in curves.items()}
    box = classifier.preprocessing.visible_box(photo.height, photo.width)
    hit = explanations["hit"]
    target, logit = hit.class_name(int(hit.targets[0])), float(hit.target_logits()[0])
    # An earlier demonstration is replaced; nobody else's folder is written into.
    with results_folder(out, overwrite=(Path(out) / "methods.png").exists()) as folder:
        photo.save(folder / "photo.png")
        for name, one in explanations.items():
            overlay(photo, one.relevance[0], box, signed=one.signed).save(folder / f"{name}.png")
        contact_sheet([SheetRow(photo, box, list(explanations.values()), "chelsea")], folder / "methods.png")
        plot_perturbation(curves, folder / "curves.png")
        write_scores(folder, curves, ["chelsea"], [target], classifier.name, "hit")
        hit.save(folder / "explanations.npz")
        whole = box == (0, 0, photo.width, photo.height)
        size = "{}x{}".format(*classifier.preprocessing.size)
        seen = f"The photo. The model sees {'all of it' if whole else 'what the white frames hold'}, at {size} pixels."
        birds = explain_birds(folder)
        _write_page(folder, explanations, summary, target, logit, seen, birds)
    yield f"{classifier.name} says: {', '.join(f'{name} {probability:.1%}' for name, probability in hit.top_classes(0, 3))}"
    strongest = ", ".join(
        f"row {row} column {col} gave {format_share(value, logit)}" for row, col, value in hit.strongest_patches(0, 3)
    )
    yield f"logit of {target} {logit:+.3f}, an exact sum over {hit.relevance[0].numel()} patches and a constant: {strongest}"
    yield f"completeness error: {hit.completeness_error():.1e} (largest |sum of parts - logit| / largest |logit|)"
    for name, row in summary.items():
        insertion, deletion = row["insertion_zero"], row["deletion_zero"]
        yield f"  {name:<20} insertion {insertion:.3f} (higher is better)  deletion {deletion:.3f} (lower is better)"
    yield f"birds: the strongest patch lies on what sets the bird apart (a patch picked at random: {birds.chance:.0%})"
    for name, share in birds.pointing.items():
        yield f"  {name:<20} {share:.0%}"
    yield f"open {Path(out) / 'index.html'}"


def _place(name: str) -> int:
    """The model's own methods first, chance last."""
    return 0 if name.startswith("hit") else 2 if name == "random" else 1


def _write_page(
    folder: Path,
    explanations: dict[str, Explanation],
    summary: dict[str, dict[str, float]],
    target: str,
    logit: float,
    seen: str,
    birds: BirdFigures,
) -> None:
    hit = explanations["hit"]
    docs = {name: (EXPLAINERS[name].__doc__ or "").strip().splitlines()[0].replace("`", "") for name in explanations}
    pictures = [Picture(folder / "photo.png", seen)]
    pictures += [Picture(folder / f"{name}.png", f"{name}: {docs[name]}") for name in explanations]
    patches: list[list[str | float]] = [
        [f"row {row}, column {col}", value, format_share(value, logit)] for row, col, value in hit.strongest_patches(0, 8)
    ]
    bias = float(hit.bias[0]) if hit.bias is not None else 0.0
    measures = next(iter(summary.values()))
    areas: list[list[str | float]] = [
        [measure.replace("_", " "), *(row[measure] for row in summary.values())] for measure in measures
    ]
    sections = [
        Section(
            "Which patches made the decision",
            "Where there is red and blue, red patches speak for the class and blue ones against it; the stronger the color, the more "
            "they count. The other maps have no sign: from dark to bright.",
            pictures,
            Table(["class", "probability"], [[name, value] for name, value in hit.top_classes(0, 5)]),
        ),
        Section(
            "The decision is a sum",
            f"The logit of {target} is {logit:+.4f}: the patches give {logit - bias:+.4f}, the constants {bias:+.4f}. "
            f"The sum of the parts misses the logit by {hit.completeness_error():.1e} of the largest logit.",
            table=Table(["strongest patches", "logit", "share"], patches),
        ),
        Section(
            "Is it true?",
            "Patches are brought in (insertion) or taken out (deletion) in the order of their relevance, and the probability of "
            f"{target} is measured. A true explanation rises fast and falls fast; chance is the control.",
            [Picture(folder / "curves.png", "Insertion and deletion curves of every method, for two baselines.", wide=True)],
            Table(["area under the curve", *summary], areas),
        ),
    ]
    sections.append(_birds_section(folder, birds))
    write_report(
        folder / "index.html",
        f"Why is this a {target}?",
        f"vitrail explains a photo by {hit.model}, a classifier that is a sum over patches.",
        sections,
    )


def _birds_section(folder: Path, birds: BirdFigures) -> Section:
    known = ", ".join(f"{name} {share:.0%}" for name, share in birds.accuracy.items())
    hits: list[list[str | float]] = [[name, f"{share:.0%}"] for name, share in birds.pointing.items()]
    return Section(
        "Does it point at the right place?",
        "These birds are drawn, and species differ in one or two parts, so the right answer is known: it stands in color beside "
        f"each bird. hit explains {HIT}, the other methods {VIT}; both were trained on other birds of the same kind (right on "
        f"these: {known}). The table tells how often the strongest patch touches a part that sets the bird apart.",
        [Picture(folder / SHEET, "Birds, what sets them apart, and what the methods say did.", wide=True)],
        Table(["strongest patch on the answer", "share"], [*hits, ["a patch picked at random", f"{birds.chance:.0%}"]]),
    )
