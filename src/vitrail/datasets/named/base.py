"""What a named data set says of itself, and how one is read by its name."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from vitrail.core.errors import InvalidInputError
from vitrail.core.registry import Registry
from vitrail.datasets.dataset import LabeledImages, Transform
from vitrail.datasets.options import fit_options
from vitrail.datasets.streaming import StreamedImages

Reader = Callable[..., LabeledImages]
StreamReader = Callable[..., StreamedImages]


@dataclass(frozen=True)
class NamedData:
    """A data set that is read by its name from the files that its makers publish. Nothing is ever downloaded.

    A reader takes the root folder, the name of a split and the transform; what it takes by keyword only are the options of
    the set. It may leave a missing file to Python's own FileNotFoundError: `read_data` says where to get it.

    Attributes:
        name: As it is called everywhere.
        summary: One line: what it shows, with the number of classes and images.
        layout: The files below the root folder.
        download: What to download, from which page, and where to put it.
        read: Reads images that can be picked one by one; None for a set that can only be streamed.
        stream: Reads images one after another; None for a set that need not be.
        splits: What there is of "train", "val" and "test"; None where that depends on the files.
        note: Why a split is missing.
    """

    name: str
    summary: str
    layout: str
    download: str
    read: Reader | None = None
    stream: StreamReader | None = None
    splits: tuple[str, ...] | None = ("train", "test")
    note: str = ""

    def options(self) -> Mapping[str, inspect.Parameter]:
        """The options of `read`, or of `stream` where there is no other reader."""
        reader = self.read or self.stream
        return {} if reader is None else _options(reader)


DATA: Registry[NamedData] = Registry("data set")
"""Data sets by name."""


def named_data(name: str, summary: str, **fields: Any) -> Callable[[Reader], Reader]:
    """Return a decorator that files a reader in `DATA`; `fields` are those of `NamedData`."""

    def decorate(reader: Reader) -> Reader:
        DATA.register(name)(NamedData(name, summary, read=reader, **fields))
        return reader

    return decorate


def read_data(name: str, root: str | Path, split: str, transform: Transform, **options: Any) -> LabeledImages:
    """Read a split of a data set by its name.

    Args:
        name: One of `DATA`.
        root: The folder that holds the set, as its layout says.
        split: "train", "val" or "test".
        transform: From an opened image to a tensor.
        options: Of the set; texts and numbers are brought to the type of the option.

    Raises:
        UnknownNameError: No such data set.
        InvalidInputError: A file is missing (the message says where to get it) or damaged, the set has no such split or
            option, or it can only be streamed.
        MissingExtraError: The set needs a package that is not installed.
    """
    entry = DATA[name]
    if entry.read is None:
        raise InvalidInputError(f"{name} can only be streamed, since its images cannot be picked one by one; use read_stream")
    images: LabeledImages = _call(entry, entry.read, Path(root), split, transform, options)
    return images


def read_stream(name: str, root: str | Path, split: str, transform: Transform, **options: Any) -> StreamedImages:
    """Read a split of a data set by its name, one image after another; arguments and errors as for `read_data`."""
    entry = DATA[name]
    if entry.stream is None:
        streams = ", ".join(name for name, other in DATA.items() if other.stream)
        raise InvalidInputError(f"{name} cannot be streamed; use read_data (streams: {streams})")
    images: StreamedImages = _call(entry, entry.stream, Path(root), split, transform, options)
    return images


def list_data() -> list[dict[str, Any]]:
    """Every data set: all it says of itself, and its options with their defaults, ready for JSON."""
    return [
        {
            "name": name,
            "summary": entry.summary,
            "splits": None if entry.splits is None else list(entry.splits),
            "options": {option: parameter.default for option, parameter in entry.options().items()},
            "streamed": entry.read is None,
            "layout": entry.layout.strip("\n"),
            "download": entry.download,
        }
        for name, entry in DATA.items()
    ]


def _call(entry: NamedData, reader: Callable[..., Any], root: Path, split: str, transform: Transform, options: Any) -> Any:
    if entry.splits is not None and split not in entry.splits:
        note = f"; {entry.note}" if entry.note else ""
        raise InvalidInputError(f"{entry.name} has no split {split!r}, only {' and '.join(entry.splits)}{note}")
    fitting = fit_options(entry.name, _options(reader), get_type_hints(reader), options)
    try:
        return reader(root, split, transform, **fitting)
    except FileNotFoundError as error:
        layout = "\n".join(f"  {line}" for line in entry.layout.strip("\n").splitlines())
        raise InvalidInputError(
            f"{entry.name}: no such file or folder: {error.filename or error}\nexpected below {root}:\n{layout}\n"
            f"to get it: {entry.download}"
        ) from None
    except OSError as error:
        raise InvalidInputError(f"{entry.name}: cannot read {error.filename}: {error.strerror}") from error


def _options(reader: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(reader).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
