"""Draw the pictures of README.md: one photo with what eight methods say of it, and three birds whose deciding part is known.

    python scripts/make_readme_picture.py [FOLDER]

Uses bundled models, a photo of scikit-image that is in the public domain, and drawn birds. Without FOLDER, the pictures in docs/pictures
are replaced.
"""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import vitrail
from vitrail.datasets.synthetic.base import GROUND_TRUTH
from vitrail.datasets.synthetic.birds import Birds
from vitrail.demo import demo_photo
from vitrail.explainers import EXPLAINERS
from vitrail.viz.ground_truth import fade_outside
from vitrail.viz.overlay import fade, overlay

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
MODEL = "vitrail:hit-pets"
METHODS = ("hit", "shapley", "chefer", "grad-cam", "integrated-gradients", "rollout", "attention", "random")
PROTOCOL = "hit"
NUM_COLUMNS, WIDTH, DPI = 3, 10.0, 150
"""The width is in inches: README shows the picture about 830 pixels wide, so that letters of 9 points are read as such."""

BIRDS = (1, 3, 4)
"""Numbers of birds of the test split: red-billed, fork-tailed, crested."""

BIRD_METHODS = (
    ("hit", "vitrail:hit-birds"),
    ("intr", "vitrail:intr-birds"),
    ("rollout", "vitrail:vit-birds"),
    ("chefer", "vitrail:vit-birds"),
    ("diffmask", "vitrail:vit-birds"),
)


def draw_cell(axes: Axes, picture: Image.Image, title: str, note: str = "") -> None:
    """Draw a picture with a title above it and a note below it."""
    axes.imshow(picture)
    axes.set_title(title, fontsize=12)
    axes.set_xlabel(note, fontsize=9.5)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_photo(photo: Image.Image) -> Image.Image:
    """Draw the photo and all explanations of the predicted class."""
    classifier = vitrail.load(MODEL)
    explanations = vitrail.explain(classifier, photo, METHODS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.png"
        photo.save(path)
        means = vitrail.score(classifier, path, METHODS, PROTOCOL).means()
    name, probability = explanations[METHODS[0]].top_classes(0, 1)[0]
    num_rows = -(-(len(METHODS) + 1) // NUM_COLUMNS)
    height = WIDTH / NUM_COLUMNS * photo.height / photo.width + 0.55
    figure = Figure(figsize=(WIDTH, height * num_rows), layout="constrained", dpi=DPI)
    cells = list(figure.subplots(num_rows, NUM_COLUMNS).flat)
    draw_cell(cells[0], photo, f"{name} {probability:.0%}", "the photo, and the answer")
    box = classifier.preprocessing.visible_box(photo.height, photo.width)
    for cell, (method, explanation) in zip(cells[1:], explanations.items(), strict=True):
        picture = overlay(photo, explanation.relevance[0], box, signed=explanation.signed)
        insertion, deletion = (means[method][f"{PROTOCOL}.{direction}_zero"] for direction in ("insertion", "deletion"))
        draw_cell(cell, picture, method, f"insertion {insertion:.2f} \u00b7 deletion {deletion:.2f}")
    return rasterize(figure)


def draw_birds() -> Image.Image:
    """Draw birds as rows: the bird, the part that decides its species, and an explanation by every method."""
    models = {name: vitrail.load(name) for _, name in BIRD_METHODS}
    task = Birds(size=96, num_classes=9)
    box = (0.0, 0.0, 96.0, 96.0)
    num_columns = 2 + len(BIRD_METHODS)
    figure = Figure(figsize=(WIDTH, (WIDTH / num_columns + 0.08) * len(BIRDS) + 0.3), layout="constrained", dpi=DPI)
    for row, (cells, number) in enumerate(zip(figure.subplots(len(BIRDS), num_columns), BIRDS, strict=True)):
        sample = task.draw("test", number)
        titles = iter(["photo", "what decides", *(method for method, _ in BIRD_METHODS)] if row == 0 else [""] * num_columns)
        draw_cell(cells[0], sample.image, next(titles))
        cells[0].set_ylabel(task.class_names[sample.label], fontsize=9.5)
        draw_cell(cells[1], fade_outside(sample.image, sample.masks[GROUND_TRUTH]), next(titles))
        for cell, (method, name) in zip(cells[2:], BIRD_METHODS, strict=True):
            explanation = vitrail.explain(models[name], sample.image, method, target=task.class_names[sample.label])
            relevance = explanation.relevance[0]
            is_mask = EXPLAINERS[method].gives_probabilities
            picture = (
                fade(sample.image, relevance, box)
                if is_mask
                else overlay(sample.image, relevance, box, signed=explanation.signed)
            )
            draw_cell(cell, picture, next(titles))
    return rasterize(figure)


def rasterize(figure: Figure) -> Image.Image:
    """Return a figure as a picture."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES
    draw_photo(demo_photo()).save(out / "photo.webp", quality=86, method=6)
    draw_birds().save(out / "birds.webp", quality=86, method=6)
