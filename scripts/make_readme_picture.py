"""Draw the first picture of README.md: one photo, what eight methods say of it, and how faithful each is.

    python scripts/make_readme_picture.py [FILE]

Uses a bundled model and a photo of scikit-image that is in the public domain. Without FILE, docs/pictures/photo.webp is replaced.
"""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import vitrail
from vitrail.demo import demo_photo
from vitrail.viz.overlay import overlay

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "photo.webp"
MODEL = "vitrail:hit-pets"
METHODS = ("hit", "shapley", "chefer", "grad-cam", "integrated-gradients", "rollout", "attention", "random")
PROTOCOL = "hit"
NUM_COLUMNS, WIDTH, DPI = 3, 10.0, 150
"""The width is in inches: README shows the picture about 830 pixels wide, so that letters of 9 points are read as such."""


def draw_cell(axes: Axes, picture: Image.Image, title: str, note: str) -> None:
    """Draw a picture with a title above it and a note below it."""
    axes.imshow(picture)
    axes.set_title(title, fontsize=12)
    axes.set_xlabel(note, fontsize=9.5)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw(photo: Image.Image) -> Image.Image:
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
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    draw(demo_photo()).save(out, quality=86, method=6)
