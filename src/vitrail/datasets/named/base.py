"""The registry of published data sets, and their options."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vitrail.core.registry import Registry
from vitrail.datasets.dataset import LabeledImages
from vitrail.datasets.streaming import StreamedImages

Reader = Callable[..., LabeledImages]
StreamReader = Callable[..., StreamedImages]

NO_VALIDATION = "it has no validation split; hold out a part of train"


@dataclass(frozen=True)
class NamedData:
    """A published data set, read from its original files. Nothing is downloaded.

    A reader takes the root folder, the name of a split and the transform; its keyword-only parameters are the options of the data set.
    It may raise FileNotFoundError for a missing file: `vitrail.datasets.open.read_data` turns it into a message with layout and download
    instructions.

    Attributes:
        name: The name in recipes and on the command line.
        summary: One line: content, number of classes and of images.
        layout: The files below the root folder.
        download: What to download, from which page, and where to put it.
        read: Reader with random access to the images; None if the data set can only be streamed.
        stream: Reader of a stream; None if the data set cannot be streamed.
        index: Reader with random access, by an index made at the start, of a data set that training streams.
        splits: The available ones of "train", "val" and "test"; None if they depend on the files.
        note: Why a split is missing.
    """

    name: str
    summary: str
    layout: str
    download: str
    read: Reader | None = None
    stream: StreamReader | None = None
    index: Reader | None = None
    splits: tuple[str, ...] | None = ("train", "test")
    note: str = ""

    def options(self) -> Mapping[str, inspect.Parameter]:
        """Return the options of `read`, or of `stream` if there is no other reader."""
        reader = self.read or self.stream
        return {} if reader is None else keyword_options(reader)


DATA: Registry[NamedData] = Registry("data set")
"""Published data sets by name."""


def named_data(name: str, summary: str, **fields: Any) -> Callable[[Reader], Reader]:
    """Return a decorator that registers a reader in `DATA`; `fields` are those of `NamedData`."""

    def decorate(reader: Reader) -> Reader:
        DATA.register(name)(NamedData(name, summary, read=reader, **fields))
        return reader

    return decorate


def list_data() -> list[dict[str, Any]]:
    """Return the description and the options, with their defaults, of every data set, as JSON values."""
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


def keyword_options(reader: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the keyword-only parameters of a reader."""
    parameters = inspect.signature(reader).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
