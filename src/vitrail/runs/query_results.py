"""The classes shown for a photo, and the table of all photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrail.core.files import write_text
from vitrail.core.json_io import json_text
from vitrail.core.outputs import format_value
from vitrail.datasets.dataset import Unreadable
from vitrail.datasets.photos import PhotoFile
from vitrail.explainers.intr import INTRQueries

FORMAT = "vitrail queries 1"


@dataclass(frozen=True)
class QueriedClass:
    """A class whose query is shown, with the model's prediction for it.

    Attributes:
        name: Name of the class.
        index: Number of the class.
        logit: Its logit, or its value.
        probability: Its probability; None for outputs without probabilities.
    """

    name: str
    index: int
    logit: float
    probability: float | None

    def format_value(self) -> str:
        """Format the probability or, for outputs without probabilities, the value."""
        if self.probability is None:
            return format_value(self.logit, "none")
        # If the model is sure of a class, all others would show as 0.0%.
        return f"{self.probability:.1%}" if self.probability >= 5e-4 else "< 0.1%"


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
