"""Generated tasks by name: the one place that knows them all."""

from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from vitrail.datasets.options import fit_options
from vitrail.datasets.synthetic import birds, counting  # noqa: F401 (registers its tasks)
from vitrail.datasets.synthetic.base import SYNTHETIC, SyntheticDataset

__all__ = ["SYNTHETIC", "describe_synthetic", "list_synthetic", "make_synthetic", "synthetic_name"]


def make_synthetic(name: str, **options: Any) -> SyntheticDataset:
    """Build a task by name; texts and numbers are brought to the type of the option.

    Raises:
        UnknownNameError: No such task.
        InvalidInputError: An option that the task does not have, or a value that does not fit.
    """
    task = SYNTHETIC[name]
    known = [option.name for option in fields(task)]
    return task(**fit_options(name, known, get_type_hints(task), options))


def list_synthetic() -> list[dict[str, Any]]:
    """Every task: its name, what it is, and its options with their defaults, ready for JSON."""
    return [
        {
            "name": name,
            "summary": (task.__doc__ or "").strip().splitlines()[0],
            "options": {option.name: _plain(option.default) for option in fields(task)},
        }
        for name, task in SYNTHETIC.items()
    ]


def synthetic_name(task: SyntheticDataset) -> str:
    """The name that a task is registered under, or else that of its class."""
    return next((name for name, entry in SYNTHETIC.items() if entry is type(task)), type(task).__name__)


def describe_synthetic(task: SyntheticDataset) -> dict[str, Any]:
    """What a task is, ready for JSON; `make_synthetic` builds the same one from the entries "task" and "options"."""
    description: dict[str, Any] = {
        "task": synthetic_name(task),
        "options": {option.name: _plain(getattr(task, option.name)) for option in fields(task)},
        "class_names": list(task.class_names),
        "image_size": list(task.image_size),
    }
    if isinstance(task, birds.Birds):
        numbers = dict(zip(task.class_names, range(len(task.class_names)), strict=True))
        description["separating_parts"] = {
            first: {second: list(birds.separating_parts(a, b)) for second, b in numbers.items() if second != first}
            for first, a in numbers.items()
        }
    return description


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.as_posix()
    return list(value) if isinstance(value, tuple) else value
