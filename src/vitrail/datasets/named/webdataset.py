"""WebDataset: tar files that contain images and their labels as neighboring files."""

import errno
import random
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from vitrail.core.errors import InvalidInputError, MissingExtraError
from vitrail.core.json_io import parse_json
from vitrail.datasets.dataset import LabeledImages, Transform, Unreadable
from vitrail.datasets.file_search import SUFFIXES
from vitrail.datasets.named.annotations import damaged, need, read_json, read_table
from vitrail.datasets.named.base import DATA, NamedData
from vitrail.datasets.streaming import ImageStream, Record, Share, StreamedImages
from vitrail.datasets.tars import read_tars

CLASS_FILE = "classes.txt"

IMAGE_KEYS = [suffix.removeprefix(".") for suffix in SUFFIXES]


@dataclass(frozen=True)
class TarStream(ImageStream):
    """Images in tar files, with their labels.

    Args:
        shards: The tar files.
        label: The field of an image's `.json` that holds its class; None to read the class from a file `.cls` beside the image.
        buffer: Number of images in the shuffle buffer.
    """

    shards: Sequence[Path]
    label: str | None = None
    buffer: int = 2048

    def records(self, share: Share, seed: int | None) -> Iterator[Record | Unreadable]:
        shards = list(self.shards)
        if seed is not None:
            random.Random(seed).shuffle(shards)
        first = share.rank * share.num_workers + share.worker
        own_shards = shards[first :: share.world_size * share.num_workers]
        records = (record for shard in own_shards for record in self._read_shard(shard))
        return records if seed is None else shuffle_stream(records, self.buffer, random.Random(f"{seed} {first}"))

    def _read_shard(self, shard: Path) -> Iterator[Record | Unreadable]:
        from webdataset.tariterators import tarfile_samples  # noqa: PLC0415 (an extra)

        try:
            for sample in tarfile_samples([{"url": str(shard)}]):
                yield self._make_record(sample, f"{shard}/{sample['__key__']}")
        except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
            yield Unreadable(str(shard), f"damaged tar file {shard}: {error!r}; download it again")

    def _make_record(self, sample: Mapping[str, Any], name: str) -> Record | Unreadable:
        image = next((key for key in IMAGE_KEYS if key in sample), None)
        if image is None:
            return Unreadable(name, f"expected an image in {name}, found {', '.join(key for key in sample if key[0] != '_')}")
        try:
            label = int(sample["cls"]) if self.label is None else int(parse_json(sample["json"])[self.label])
        except (KeyError, TypeError, ValueError):
            file = ".cls" if self.label is None else f".json with {self.label!r}"
            return Unreadable(name, f"expected a class as a number in a {file} beside the image, found none")
        return Record(sample[image], label, f"{name}.{image}")


def shuffle_stream(records: Iterator[Record | Unreadable], size: int, rng: random.Random) -> Iterator[Record | Unreadable]:
    """Yield records in random order, drawn from a buffer of `size` records that the stream refills."""
    buffer = list(islice(records, size))
    for record in records:
        index = rng.randrange(size)
        yield buffer[index]
        buffer[index] = record
    rng.shuffle(buffer)
    yield from buffer


def read_webdataset(
    root: Path,
    split: str,
    transform: Transform,
    *,
    shards: str | None = None,
    label: str | None = None,
    num_images: int | None = None,
    num_classes: int | None = None,
    buffer: int = 2048,
) -> StreamedImages:
    """Read the tar files of a split.

    Args:
        root: Folder of the tar files.
        split: A part of their names.
        shards: A pattern for the tar files of the split below `root`, such as "part1/*.tar".
        label: The field of an image's `.json` that holds its class; None to read the class from a file `.cls` beside the image.
        num_images: Number of images in the split.
        num_classes: Number of classes, if there is no classes.txt; class names are numbers then.
        buffer: Number of images in the shuffle buffer of each worker.
    """
    try:
        import webdataset  # noqa: F401, PLC0415 (an extra)
    except ImportError:
        raise MissingExtraError("the data set webdataset", "webdataset") from None
    files, info = _find_shards(root, split, shards)
    # webdataset would take the part of a relative path before a colon for a protocol.
    stream = TarStream([file.resolve() for file in files], label, buffer)
    class_names = read_class_names(root / CLASS_FILE, num_classes)
    if class_names is None:
        raise InvalidInputError(
            f"webdataset: expected the class names in {root / CLASS_FILE}, one per line, or the option num_classes"
        )
    return StreamedImages(stream, class_names, transform, num_images or info.get("num_samples"))


def index_webdataset(
    root: Path,
    split: str,
    transform: Transform,
    *,
    shards: str | None = None,
    label: str | None = None,
    num_classes: int | None = None,
) -> LabeledImages:
    """Read the tar files of a split with random access; the options are those of `read_webdataset`.

    Without classes.txt and `num_classes`, there are as many classes as the labels need.
    """
    files, _ = _find_shards(root, split, shards)
    return read_tars(files, transform, read_class_names(root / CLASS_FILE, num_classes), label)


def _find_shards(root: Path, split: str, shards: str | None) -> tuple[list[Path], Mapping[str, Any]]:
    """Return the tar files of a split, and its entry in timm's _info.json if there is one."""
    info = _read_info(need(root), split)
    patterns = [shards] if shards is not None else [f"*{split}*.tar", f"{split}/*.tar"]
    if info and shards is None:
        files = [need(root / name) for name in info["filenames"]]
    else:
        files = next((matches for matches in (sorted(root.glob(pattern)) for pattern in patterns) if matches), [])
    if not files:
        raise FileNotFoundError(errno.ENOENT, "no tar files", " or ".join(str(root / pattern) for pattern in patterns))
    return files, info


def _read_info(root: Path, split: str) -> Mapping[str, Any]:
    """Return the entry of a split in timm's _info.json; empty if there is no such file."""
    path = next((root / name for name in ("_info.json", "info.json") if (root / name).exists()), None)
    if path is None:
        return {}
    content = read_json(path)
    splits = content.get("splits") if isinstance(content, dict) else None
    if not isinstance(splits, dict) or not splits:
        raise damaged(path, "expected 'splits'")
    if split not in splits:
        raise InvalidInputError(f"webdataset: {path} has no split {split!r}, only {' and '.join(splits)}")
    if not isinstance(splits[split], dict) or not isinstance(splits[split].get("filenames"), list):
        raise damaged(path, f"expected 'filenames' of {split}")
    return splits[split]


def read_class_names(path: Path, num_classes: int | None = None) -> list[str] | None:
    """Return the class names of a file, one per line, or the numbers of `num_classes` classes; None if there are neither."""
    if num_classes is not None:
        return [str(index) for index in range(num_classes)]
    return [name for (name,) in read_table(path, str)] if path.exists() else None


DATA.register("webdataset")(
    NamedData(
        "webdataset",
        "any images in tar files; always streamed",
        """
<name>-train-0000.tar ... (or train/*.tar; any name that contains the split)
  000001.jpg  000001.cls (the number of the class)
  000002.jpg  000002.cls ...
classes.txt (one name per class; or the option num_classes)
_info.json (optional: timm's list of splits, shards and numbers of images)
""",
        "write your own with webdataset.ShardWriter, or download shards there, for example with\n"
        "hf download timm/imagenet-1k-wds --repo-type dataset --local-dir FOLDER",
        stream=read_webdataset,
        index=index_webdataset,
        splits=None,
    )
)
