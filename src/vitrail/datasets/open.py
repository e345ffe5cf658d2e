"""Opening data: the one place that turns a path, or the name of a data set, into images."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_type_hints

from vitrail.core.errors import InvalidInputError
from vitrail.core.options import convert_options
from vitrail.datasets.dataset import LabeledImages, Transform
from vitrail.datasets.file_search import find_images, is_folder, is_image_name
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.lists import is_list, read_list
from vitrail.datasets.named import DATA, NamedData
from vitrail.datasets.named.base import keyword_options
from vitrail.datasets.named.table_splits import default_split, is_table
from vitrail.datasets.named.webdataset import CLASS_FILE, read_class_names
from vitrail.datasets.streaming import StreamedImages
from vitrail.datasets.tars import SUFFIX, find_tars, is_tar_pattern, read_tars


def open_dataset(
    root: str | Path,
    transform: Transform,
    name: str | None = None,
    split: str | None = None,
    *,
    labeled: bool = True,
    **options: Any,
) -> LabeledImages:
    """Open images with random access, wherever they are: in a folder, a list, tar files, a table, or a data set by its name.

    Args:
        root: One of: a photo; a folder of photos, or with one sub-folder per class; a list of paths (`vitrail.datasets.lists`), "-" for
            standard input; a tar file, or several by `{000..099}`, `{a,b}` or wildcards, or a folder of them (`vitrail.datasets.tars`);
            a folder that the datasets library wrote by `save_to_disk`, or a folder of Parquet files. With `name`, the root folder of that
            data set.
        transform: From an opened image to a tensor.
        name: One of `vitrail.datasets.named.DATA`; None for anything else.
        split: "train", "val" or "test" of the named data set; "test" by default. Also the split of a table.
        labeled: Whether classes matter; else, images of a folder may lie beside its class folders, and get no class.
        options: Options of the named data set.

    Raises:
        UnknownNameError: There is no data set of that name.
        InvalidInputError: There are no images, a split or options are given without a name, or as for `read_data`.
        MissingExtraError: The data set needs a package that is not installed.
    """
    path = Path(root)
    if name is None and detect_kind(path) == "table":
        name = "huggingface"
    if name == "huggingface":
        split = split or default_split(path)
    if name is not None:
        return _read_by_index(name, path, split or "test", transform, options)
    if split is not None or options:
        raise InvalidInputError("expected split and options together with the name of a data set, got no name")
    match detect_kind(path):
        case "list":
            return read_list(path, transform)
        case "tars":
            visible = (shard for shard in path.glob(f"*{SUFFIX}") if not shard.name.startswith("."))
            shards = sorted(visible) if path.is_dir() else find_tars(path)
            listed = [read_class_names(folder / CLASS_FILE) for folder in dict.fromkeys(shard.parent for shard in shards)]
            if any(names != listed[0] for names in listed):
                raise InvalidInputError(f"expected the same {CLASS_FILE} beside all tar files of {path}, got different ones")
            return read_tars(shards, transform, listed[0])
    return ImageFolder.scan(path, transform) if labeled else ImageFolder.scan_without_classes(path, transform)


def detect_kind(path: Path) -> Literal["list", "tars", "table", "folder"]:
    """Return what a path holds, without reading it: a folder with images is a folder, whatever else is there."""
    if is_list(path):
        return "list"
    if is_tar_pattern(path):
        return "tars"
    if not is_folder(path):
        return "folder"
    names = set[str]()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if is_image_name(Path(entry.name)):
                    return "folder"
                names.add(entry.name)
    except OSError:
        return "folder"  # Which reports why.
    has_tars = any(name.endswith(SUFFIX) and not name.startswith(".") for name in names)
    if not (has_tars or is_table(path)) or find_images(path).paths:
        return "folder"
    return "tars" if has_tars else "table"


def _read_by_index(name: str, root: Path, split: str, transform: Transform, options: Mapping[str, Any]) -> LabeledImages:
    """Read a data set by its name with random access, even if training streams it."""
    entry = DATA[name]
    if entry.read is None and entry.index is not None:
        return _call_reader(entry, entry.index, root, split, transform, options)
    return read_data(name, root, split, transform, **options)


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
    return _call_reader(entry, entry.read, Path(root), split, transform, options)


def read_stream(name: str, root: str | Path, split: str, transform: Transform, **options: Any) -> StreamedImages:
    """Read a split of a data set by its name as a stream; arguments and errors are those of `read_data`."""
    entry = DATA[name]
    if entry.stream is None:
        streams = ", ".join(name for name, other in DATA.items() if other.stream)
        raise InvalidInputError(f"{name} cannot be streamed; use read_data (streams: {streams})")
    return _call_reader(entry, entry.stream, Path(root), split, transform, options)


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
