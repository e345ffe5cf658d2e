"""Print the result of a command: as text for people, or as one JSON document for programs."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vitrail.core.json_io import json_text, read_json

if TYPE_CHECKING:
    from vitrail.datasets.dataset import Unreadable
    from vitrail.explanation import Explanation
    from vitrail.runs.explain_files import FolderResults

NUM_PATCHES = 3
"""Of every photo and method in a JSON document: as many as are printed by default."""

_results: ContextVar[list[Any] | None] = ContextVar("results", default=None)
"""What a command with `--json` has reported; None without `--json`."""


def print_result(content: Callable[[], Any], text: Callable[[], object]) -> None:
    """Print a result as text, or keep its content for `--json`.

    Args:
        content: Returns the result as plain values.
        text: Prints it for people.
    """
    results = _results.get()
    if results is None:
        text()
    else:
        results.append(content())


def read_result(folder: Path, name: str) -> dict[str, Any]:
    """Return a JSON file that a command has written, with its folder as `out`."""
    return {"out": str(folder), **read_json(folder / name)}


def describe_explanations(
    explanations: "Mapping[str, Sequence[Explanation]]", unreadable: "Sequence[Unreadable]", out: Path
) -> dict[str, Any]:
    """Return the explanations of photos as plain values, by method, without the relevance, which is in files."""
    methods = {
        name: {
            "options": files[0].provenance.get("options"),
            "photos": [
                {**image, "strongest_patches": photo.strongest_patches(0, NUM_PATCHES), "ties": photo.ties(0, NUM_PATCHES)}
                for saved in files
                for photo in saved
                for image in photo.describe()["images"]
            ],
        }
        for name, files in explanations.items()
    }
    first = next(iter(explanations.values()))[0]
    skipped = [file._asdict() for file in unreadable]
    made = {key: value for key, value in first.provenance.items() if key != "options"}
    return {"out": str(out), "model": first.model, **made, "methods": methods, "unreadable": skipped}


def describe_folder(results: "FolderResults") -> dict[str, Any]:
    """Return the summary of an explained folder as plain values."""
    return {**vars(results), "unreadable": [file._asdict() for file in results.unreadable]}


@contextmanager
def json_document(wanted: bool) -> Iterator[None]:
    """Print what the block reports as one JSON document, and everything else that it prints to standard error.

    Args:
        wanted: Whether to; else nothing changes.
    """
    if not wanted:
        yield
        return
    token = _results.set([])
    try:
        with redirect_stdout(sys.stderr):
            yield
        results = _results.get()
    finally:
        _results.reset(token)
    if results:  # Of several processes, one reports.
        typer.echo(json_text(results[-1], indent=2))
