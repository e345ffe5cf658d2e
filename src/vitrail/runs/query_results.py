"""The classes shown for a photo, and the table of all photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrail.core.files import write_text
from vitrail.core.json_io import json_text
from vitrail.datasets.dataset import Unreadable
from vitrail.datasets.photos import PhotoFile
from vitrail.explainers.intr import INTRQueries

FORMAT = "vitrail queries 1"


@dataclass(frozen=True)
class QueriedClass:
    """A class whose query is shown, with the model's prediction for it."""

    name: str
    index: int
    logit: float
    probability: float


@dataclass(frozen=True)
class PhotoQueries:
    """The classes shown for a photo. Attention maps stay on disk, since those of many photos would fill the memory.

    Attributes:
        photo: The file.
        true_class: Index of the true class, if known.
        predicted: Index of the most probable class.
        classes: The classes, in the order of `choose_classes`.
    """

    photo: PhotoFile
    true_class: int | None
    predicted: int
    classes: Sequence[QueriedClass]

    @property
    def maps_file(self) -> str:
        """Name of the file of attention maps, relative to the output folder."""
        return f"{self.photo.result_name}.safetensors"

    def describe_class(self, index: int) -> str:
        """Return "true class", "predicted", or an empty text for other classes."""
        return "true class" if index == self.true_class else "predicted" if index == self.predicted else ""


def write_table(path: Path, explainer: INTRQueries, results: Sequence[PhotoQueries], unreadable: Sequence[Unreadable]) -> None:
    """Write the table of all photos as JSON."""
    config, model = explainer.intr.config, explainer.model

    def describe(index: int) -> dict[str, str | int]:
        return {"name": model.class_name(index), "index": index}

    photos = [
        {
            "source": str(result.photo.path),
            "maps": result.maps_file,
            "true_class": None if result.true_class is None else describe(result.true_class),
            "predicted": describe(result.predicted),
            "classes": [vars(queried) for queried in result.classes],
        }
        for result in results
    ]
    content = {
        "format": FORMAT,
        "model": model.name,
        "layer": explainer.layer % config.decoder_depth,
        "num_layers": config.decoder_depth,
        "num_heads": config.num_heads,
        "photos": photos,
        "unreadable": [file._asdict() for file in unreadable],
    }
    write_text(path, json_text(content, indent=2))
