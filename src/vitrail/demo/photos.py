"""The photos of the demo, which are in the public domain, and what models say of those that show none of their classes."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from PIL import Image

from vitrail.adapters import load
from vitrail.api import explain
from vitrail.core.errors import MissingExtraError
from vitrail.viz.sheet import SheetRow, contact_sheet

OTHERS = ("rocket", "coffee")
OTHERS_MODEL = "vitrail:hit-imagenette"
OTHERS_METHODS = ("hit", "chefer", "grad-cam", "occlusion", "random")
OTHERS_SHEET = "others.png"


def demo_photo(name: str = "chelsea") -> Image.Image:
    """Return a photo of scikit-image that is in the public domain: by default, Chelsea the cat.

    Args:
        name: Of a function in `skimage.data` that needs no network, such as "rocket" or "coffee".

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    try:
        data = import_module("skimage.data")
    except ImportError as error:
        raise MissingExtraError("the demo photo", "demo") from error
    return Image.fromarray(getattr(data, name)())


@dataclass(frozen=True)
class OtherAnswers:
    """What a model says of photos that show none of its classes.

    Attributes:
        model: Name of the model.
        answers: Name of the photo, predicted class, and its probability.
    """

    model: str
    answers: list[tuple[str, str, float]]


def explain_others(folder: Path) -> OtherAnswers:
    """Explain photos that show none of the model's classes, and write a contact sheet."""
    classifier = load(OTHERS_MODEL)
    rows, answers = [], []
    for name in OTHERS:
        photo = demo_photo(name)
        explanations = explain(classifier, photo, OTHERS_METHODS, keep_photos=False)
        box = classifier.preprocessing.visible_box(photo.height, photo.width)
        rows.append(SheetRow(photo, box, list(explanations.values()), name))
        answers.append((name, *explanations[OTHERS_METHODS[0]].top_classes(0, 1)[0]))
    contact_sheet(rows, folder / OTHERS_SHEET)
    return OtherAnswers(classifier.name, answers)
