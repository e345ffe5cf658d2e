"""Data sets of the Hugging Face Hub, read from a folder by the datasets library."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from vitrail.core.errors import ImageError, InvalidInputError, MissingExtraError, failures_as
from vitrail.datasets.dataset import NO_LABEL, LabeledImages, Transform, Unreadable, file_bytes
from vitrail.datasets.image_io import decode_image
from vitrail.datasets.named.annotations import need
from vitrail.datasets.named.base import DATA, NamedData
from vitrail.datasets.named.table_splits import ONLY_SPLIT, SPLITS_FILE, is_single_table
from vitrail.datasets.streaming import ImageStream, Record, Share, StreamedImages


@dataclass(frozen=True, eq=False)
class TableImages(LabeledImages):
    """Images in a column of a table.

    Args:
        table: A `datasets.Dataset` whose images are not decoded.
        source: Prefix of the names of the images.
        numbers: Row numbers of the images in the table.
    """

    table: Any = field(repr=False)
    column: str
    labels: Sequence[int] = field(repr=False)
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    source: str
    numbers: Sequence[int] = field(repr=False)
    per_image: ClassVar[tuple[str, ...]] = ("labels", "numbers")

    def open(self, index: int) -> Image.Image:
        content = _read_cell(self.table[self.numbers[index]][self.column], self.name(index))
        return decode_image(content, self.name(index), num_channels=getattr(self.transform, "num_channels", 3))

    def name(self, index: int) -> str:
        return f"{self.source}/{self.numbers[index]}"

    def num_bytes(self, index: int) -> int:
        cell = self.table[self.numbers[index]][self.column]
        if cell is None:
            return -1
        return file_bytes(cell["path"] or "") if cell["bytes"] is None else len(cell["bytes"])


@dataclass(frozen=True)
class TableStream(ImageStream):
    """Images in a column of a table, read from its first row to its last.

    Args:
        table: A `datasets.IterableDataset` whose images are not decoded.
        image: The column of images.
        label: The column of classes.
        source: Prefix of the names of the images.
        buffer: Number of rows in the shuffle buffer.
    """

    table: Any = field(repr=False)
    image: str
    label: str
    source: str
    buffer: int

    def records(self, share: Share, seed: int | None) -> Iterator[Record | Unreadable]:
        from datasets.distributed import split_dataset_by_node  # noqa: PLC0415 (an extra)

        table = self.table if seed is None else self._shuffled(seed)
        # The library itself splits a share among the workers of a loader.
        for number, row in enumerate(split_dataset_by_node(table, rank=share.rank, world_size=share.world_size)):
            name = f"{self.source}/{share.rank}-{share.worker}-{number}"
            try:
                content = _read_cell(row[self.image], name)
            except ImageError as error:
                yield Unreadable(name, str(error))
            else:
                yield Record(content, NO_LABEL if row[self.label] is None else int(row[self.label]), name)

    def _shuffled(self, seed: int) -> Any:
        # Newer versions of the library mix several files, which leaves some workers without any.
        parameters = inspect.signature(self.table.shuffle).parameters
        one_file_at_a_time = {"max_buffer_input_shards": 1} if "max_buffer_input_shards" in parameters else {}
        return self.table.shuffle(seed=seed, buffer_size=self.buffer, **one_file_at_a_time)


def _read_cell(cell: Mapping[str, Any] | None, name: str) -> bytes:
    """Return the bytes of an image file, which is stored in the table or beside it."""
    if cell is None or (cell["bytes"] is None and not cell["path"]):
        raise ImageError(f"expected an image in {name}, found none")
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    with failures_as(ImageError, f"cannot read {cell['path']}"):
        if not Path(cell["path"]).is_file():
            raise ImageError(f"expected an image file, got none at {cell['path']}")
        return Path(cell["path"]).read_bytes()


def read_huggingface(
    root: Path, split: str, transform: Transform, *, image: str | None = None, label: str | None = None
) -> LabeledImages:
    """Read a split.

    Args:
        image: The column of images; by default the only one.
        label: The column of classes; by default the only one.
    """
    table, image, label, class_names = _load_table(root, split, image, label, streaming=False)
    classes = (
        [NO_LABEL] * len(table) if label is None else [NO_LABEL if value is None else int(value) for value in table[label]]
    )
    names = class_names or [str(index) for index in range(max(classes, default=NO_LABEL) + 1)]
    source = str(root) if is_single_table(root) else f"{root}/{split}"
    return TableImages(table, image, classes, names, transform, source, range(len(classes)))


def stream_huggingface(
    root: Path,
    split: str,
    transform: Transform,
    *,
    image: str | None = None,
    label: str | None = None,
    num_images: int | None = None,
    num_classes: int | None = None,
    buffer: int = 2048,
) -> StreamedImages:
    """Read a split as a stream; options beyond those of `read_huggingface` are those of webdataset."""
    table, image, label, class_names = _load_table(root, split, image, label, streaming=True)
    names = class_names or [str(index) for index in range(num_classes or 0)]
    if label is None or not names:
        raise InvalidInputError(f"huggingface: column {label!r} has no class names; set the option num_classes")
    info = (table.info.splits or {}).get(split)
    num_images = num_images or (info.num_examples if info is not None else None)
    return StreamedImages(TableStream(table, image, label, f"{root}/{split}", buffer), names, transform, num_images)


def _load_table(
    root: Path, split: str, image: str | None, label: str | None, streaming: bool
) -> tuple[Any, str, str | None, list[str]]:
    """Return the table, the names of its columns of images and of classes (None if there are no classes), and the class names."""
    try:
        import datasets  # noqa: PLC0415 (an extra)
    except ImportError:
        raise MissingExtraError("the data set huggingface", "datasets") from None
    if not need(root).is_dir():
        raise InvalidInputError(f"expected the folder of a data set, got the file {root}")
    if is_single_table(root) and not streaming and split != ONLY_SPLIT:
        raise InvalidInputError(
            f"huggingface: expected a table with the split {split!r}, got one without splits, {root}; "
            f"its images are the split {ONLY_SPLIT!r}"
        )
    try:
        if (root / SPLITS_FILE).exists() and not streaming:
            table = datasets.load_from_disk(str(root))[split]
        elif is_single_table(root) and not streaming:
            table = datasets.load_from_disk(str(root))
        else:
            table = datasets.load_dataset(str(root.resolve()), split=split, streaming=streaming)
    except Exception as error:  # The library raises errors of many types for a damaged or unsuitable folder.
        raise InvalidInputError(f"huggingface: cannot read split {split!r} of {root}: {error}") from error
    features = table.features or {}
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    image = _choose_column("image", image, images, features)
    if label is None and not labels and "label" not in features:
        return table.cast_column(image, datasets.Image(decode=False)), image, None, []
    label = _choose_column("label", label, labels or ["label"], features)
    if getattr(features[label], "dtype", "") == "string" and not streaming:
        table = table.class_encode_column(label)
    class_names = getattr(table.features[label], "names", None) or []
    return table.cast_column(image, datasets.Image(decode=False)), image, label, list(class_names)


def _choose_column(option: str, name: str | None, candidates: Sequence[str], features: Any) -> str:
    if name is None and len(candidates) == 1:
        name = candidates[0]
    if name not in features:
        raise InvalidInputError(
            f"huggingface: expected the option {option} to be one of the columns {', '.join(features)}, got {name!r}"
        )
    return str(name)


DATA.register("huggingface")(
    NamedData(
        "huggingface",
        "any labeled images that the datasets library can read; can be streamed",
        """
README.md (the files of a repository, unchanged)
data/
  train-00000-of-00001.parquet ...
""",
        "choose a data set at https://huggingface.co/datasets and download it there, for example with\n"
        "hf download uoft-cs/cifar10 --repo-type dataset --local-dir FOLDER",
        read=read_huggingface,
        stream=stream_huggingface,
        splits=None,
    )
)
