"""Building, listing and describing synthetic data sets by name."""

from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from vitrail.core.options import convert_options
from vitrail.datasets.synthetic import birds, counting  # noqa: F401 (registers the data sets)
from vitrail.datasets.synthetic.base import SYNTHETIC, SyntheticDataset

__all__ = ["SYNTHETIC", "describe_synthetic", "list_synthetic", "make_synthetic", "synthetic_name"]


def make_synthetic(name: str, **options: Any) -> SyntheticDataset:
    """Build a synthetic data set by name; strings and numbers are converted to the type of the option.

    Raises:
        UnknownNameError: There is no synthetic data set of that name.
        InvalidInputError: The data set has no such option, or a value does not fit.
    """
    dataset_class = SYNTHETIC[name]
    known = [option.name for option in fields(dataset_class)]
    return dataset_class(**convert_options(name, known, get_type_hints(dataset_class), options))


def list_synthetic() -> list[dict[str, Any]]:
    """Return name, summary and options, with their defaults, of every synthetic data set, as JSON values."""
    return [
        {
            "name": name,
            "summary": (dataset_class.__doc__ or "").strip().splitlines()[0],
            "options": {option.name: _to_json(option.default) for option in fields(dataset_class)},
        }
        for name, dataset_class in SYNTHETIC.items()
    ]


def synthetic_name(dataset: SyntheticDataset) -> str:
    """Return the registered name of a synthetic data set, or the name of its class if it is not registered."""
    return next((name for name, entry in SYNTHETIC.items() if entry is type(dataset)), type(dataset).__name__)


def describe_synthetic(dataset: SyntheticDataset) -> dict[str, Any]:
    """Return a description as JSON values; `make_synthetic` rebuilds the data set from the entries "task" and "options"."""
    description: dict[str, Any] = {
        "task": synthetic_name(dataset),
        "options": {option.name: _to_json(getattr(dataset, option.name)) for option in fields(dataset)},
        "class_names": list(dataset.class_names),
        "image_size": list(dataset.image_size),
    }
    if isinstance(dataset, birds.Birds):
        labels = dict(zip(dataset.class_names, range(len(dataset.class_names)), strict=True))
        description["separating_parts"] = {
            first: {second: list(birds.separating_parts(a, b)) for second, b in labels.items() if second != first}
            for first, a in labels.items()
        }
    return description


def _to_json(value: Any) -> Any:
    if isinstance(value, Path):
        return value.as_posix()
    return list(value) if isinstance(value, tuple) else value
