"""WebDataset: tar files in which an image lies beside its label."""

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
from vitrail.datasets.dataset import Transform, Unreadable
from vitrail.datasets.formats import SUFFIXES
from vitrail.datasets.named.annotations import damaged, need, read_json, read_table
from vitrail.datasets.named.base import DATA, NamedData
from vitrail.datasets.streaming import ImageStream, Record, Share, StreamedImages

IMAGE_KEYS = [suffix.removeprefix(".") for suffix in SUFFIXES]


@dataclass(frozen=True)
class TarStream(ImageStream):
    """Images in tar files, with their labels.

    Args:
        shards: The tar files.
        label: The field of an image's `.json` that holds its class; None for a file `.cls` beside the image.
        buffer: Images held in memory to draw from, where the order is random.
    """

    shards: Sequence[Path]
    label: str | None = None
    buffer: int = 2048

    def records(self, share: Share, seed: int | None) -> Iterator[Record | Unreadable]:
        shards = list(self.shards)
        if seed is not None:
            random.Random(seed).shuffle(shards)
        own = share.rank * share.num_workers + share.worker
        found = (record for shard in shards[own :: share.world_size * share.num_workers] for record in self._read(shard))
        return found if seed is None else shuffled(found, self.buffer, random.Random(f"{seed} {own}"))

    def _read(self, shard: Path) -> Iterator[Record | Unreadable]:
        from webdataset.tariterators import tarfile_samples  # noqa: PLC0415 (an extra)

        try:
            for sample in tarfile_samples([{"url": str(shard)}]):
                yield self._record(sample, f"{shard}/{sample['__key__']}")
        except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
            yield Unreadable(str(shard), f"damaged tar file {shard}: {error!r}; download it again")

    def _record(self, sample: Mapping[str, Any], name: str) -> Record | Unreadable:
        image = next((key for key in IMAGE_KEYS if key in sample), None)
        if image is None:
            return Unreadable(name, f"expected an image in {name}, found {', '.join(key for key in sample if key[0] != '_')}")
        try:
            label = int(sample["cls"]) if self.label is None else int(parse_json(sample["json"])[self.label])
        except (KeyError, TypeError, ValueError):
            where = ".cls" if self.label is None else f".json with {self.label!r}"
            return Unreadable(name, f"expected a class as a number in a {where} beside the image, found none")
        return Record(sample[image], label, f"{name}.{image}")


def shuffled(records: Iterator[Record | Unreadable], size: int, rng: random.Random) -> Iterator[Record | Unreadable]:
    """Draw from a buffer that the stream keeps full: a stream cannot be shuffled any further."""
    buffer = list(islice(records, size))
    for record in records:
        place = rng.randrange(size)
        yield buffer[place]
        buffer[place] = record
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
        root: Holds the tar files.
        split: What occurs in their names.
        transform: From an opened image to a tensor.
        shards: A pattern for the tar files of the split below `root`, such as "part1/*.tar".
        label: The field of an image's `.json` that holds its class; None for a file `.cls` beside the image.
        num_images: Of the split.
        num_classes: Where there is no classes.txt; classes are called by their numbers then.
        buffer: Images held in memory per worker to draw from, in training.
    """
    try:
        import webdataset  # noqa: F401, PLC0415 (an extra)
    except ImportError:
        raise MissingExtraError("the data set webdataset", "webdataset") from None
    info = _info(need(root), split)
    patterns = [shards] if shards is not None else [f"*{split}*.tar", f"{split}/*.tar"]
    if info and shards is None:
        found = [need(root / name) for name in info["filenames"]]
    else:
        found = next((files for files in (sorted(root.glob(pattern)) for pattern in patterns) if files), [])
    if not found:
        raise FileNotFoundError(errno.ENOENT, "no tar files", " or ".join(str(root / pattern) for pattern in patterns))
    count = num_images or info.get("num_samples")
    # gopen, below webdataset, would take what stands before a colon for a protocol.
    stream = TarStream([shard.resolve() for shard in found], label, buffer)
    return StreamedImages(stream, _class_names(root / "classes.txt", num_classes), transform, count)


def _info(root: Path, split: str) -> Mapping[str, Any]:
    """What timm's _info.json says of a split, where there is one."""
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


def _class_names(path: Path, num_classes: int | None) -> list[str]:
    if num_classes is not None:
        return [str(index) for index in range(num_classes)]
    if not path.exists():
        raise InvalidInputError(
            f"webdataset: expected the names of the classes in {path}, one a line, or the option num_classes"
        )
    return [name for (name,) in read_table(path, str)]


DATA.register("webdataset")(
    NamedData(
        "webdataset",
        "any images in tar files, streamed",
        """
<name>-train-0000.tar ... (or train/*.tar; any name with the split in it)
  000001.jpg  000001.cls (the number of the class)
  000002.jpg  000002.cls ...
classes.txt (one name per class; or the option num_classes)
_info.json (optional: timm's list of splits, shards and numbers of images)
""",
        "write your own with webdataset.ShardWriter, or download shards there, for example by\n"
        "hf download timm/imagenet-1k-wds --repo-type dataset --local-dir FOLDER",
        stream=read_webdataset,
        splits=None,
    )
)
