"""Opening data: the one place that turns a folder path, or the name of a data set, into images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from vitrail.core.errors import InvalidInputError
from vitrail.core.options import convert_options
from vitrail.datasets.dataset import LabeledImages, Transform
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.named import DATA, NamedData
from vitrail.datasets.named.base import keyword_options
from vitrail.datasets.streaming import StreamedImages


def open_dataset(
    root: str | Path, transform: Transform, name: str | None = None, split: str | None = None, **options: Any
) -> LabeledImages:
    """Open a folder of images, or a split of a data set by its name.

    Args:
        root: A photo, a folder of photos, or a folder with one sub-folder per class; with `name`, the root folder of that data set.
        transform: From an opened image to a tensor.
        name: One of `vitrail.datasets.named.DATA`; None for a folder.
        split: "train", "val" or "test" of the named data set; "test" by default.
        options: Options of the named data set.

    Raises:
        UnknownNameError: There is no data set of that name.
        InvalidInputError: The folder holds no images, a split or options are given without a name, or as for `read_data`.
        MissingExtraError: The data set needs a package that is not installed.
    """
    if name is not None:
        return read_data(name, root, split or "test", transform, **options)
    if split is not None or options:
        raise InvalidInputError("expected split and options together with the name of a data set, got no name")
    return ImageFolder.scan(root, transform)


def read_data(name: str, root: str | Path, split: str, transform: Transform, **options: Any) -> LabeledImages:
    """Read a split of a data set by its name.

    Args:
        name: One of `vitrail.datasets.named.DATA`.
        root: The folder that holds the data set in its published layout.
        split: "train", "val" or "test".
        transform: From an opened image to a tensor.
        options: Options of the data set; strings and numbers are converted to the type of the option.

    Raises:
        UnknownNameError: There is no data set of that name.
        InvalidInputError: A file is missing (the message says where to download it) or damaged, the data set has no such split or
            option, or it can only be streamed.
        MissingExtraError: The data set needs a package that is not installed.
    """
    entry = DATA[name]
    if entry.read is None:
        raise InvalidInputError(f"{name} can only be streamed, since it has no random access to its images; use read_stream")
    images: LabeledImages = _call_reader(entry, entry.read, Path(root), split, transform, options)
    return images


def read_stream(name: str, root: str | Path, split: str, transform: Transform, **options: Any) -> StreamedImages:
    """Read a split of a data set by its name as a stream; arguments and errors are those of `read_data`."""
    entry = DATA[name]
    if entry.stream is None:
        streams = ", ".join(name for name, other in DATA.items() if other.stream)
        raise InvalidInputError(f"{name} cannot be streamed; use read_data (streams: {streams})")
    images: StreamedImages = _call_reader(entry, entry.stream, Path(root), split, transform, options)
    return images


def _call_reader(
    entry: NamedData, reader: Callable[..., Any], root: Path, split: str, transform: Transform, options: Mapping[str, Any]
) -> Any:
    if entry.splits is not None and split not in entry.splits:
        note = f"; {entry.note}" if entry.note else ""
        raise InvalidInputError(f"{entry.name} has no split {split!r}, only {' and '.join(entry.splits)}{note}")
    values = convert_options(entry.name, keyword_options(reader), get_type_hints(reader), options)
    try:
        return reader(root, split, transform, **values)
    except FileNotFoundError as error:
        layout = "\n".join(f"  {line}" for line in entry.layout.strip("\n").splitlines())
        raise InvalidInputError(
            f"{entry.name}: no such file or folder: {error.filename or error}\nexpected below {root}:\n{layout}\n"
            f"to get it: {entry.download}"
        ) from None
    except OSError as error:
        raise InvalidInputError(f"{entry.name}: cannot read {error.filename}: {error.strerror}") from error
