"""Images in tar files, read in place: an index of the members gives random access without unpacking anything."""

import glob
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int64
from PIL import Image

from vitrail.core.errors import ImageError, InvalidInputError, failures_as
from vitrail.core.files import regular_file
from vitrail.core.json_io import parse_json
from vitrail.datasets.dataset import NO_LABEL, LabeledImages, Transform
from vitrail.datasets.file_search import SUFFIXES
from vitrail.datasets.image_io import decode_image
from vitrail.datasets.image_limits import MAX_BYTES, MEGA

SUFFIX = ".tar"
MAX_LABEL_BYTES = 1_000_000
"""Largest file of a label that is read."""

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)
MAX_SHARDS = 1_000_000


class _Member(NamedTuple):
    """A file in a tar file, at `offset`; `label` is the class that lies beside an image."""

    name: str
    offset: int
    num_bytes: int
    label: int = NO_LABEL
    damage: str = ""


@dataclass(frozen=True, eq=False)
class TarImages(LabeledImages):
    """Images in tar files.

    A tar file that is damaged or ends too early is listed as an image that cannot be read, after the images before the damage.

    Args:
        members: Name of every image in its tar file; empty for a damaged tar file.
        places: Number of the tar file, offset and number of bytes of every image.
        damage: Why an image cannot be read; empty for others.
    """

    shards: Sequence[Path]
    members: Sequence[str] = field(repr=False)
    places: Int64[np.ndarray, "images 3"] = field(repr=False)
    damage: Sequence[str] = field(repr=False)
    labels: Sequence[int] = field(repr=False)
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    per_image: ClassVar[tuple[str, ...]] = ("members", "places", "damage", "labels")

    def open(self, index: int) -> Image.Image:
        name = self.name(index)
        if self.damage[index]:
            raise ImageError(f"{self.damage[index]}: {name}")
        shard, offset, num_bytes = self.places[index].tolist()
        if num_bytes > MAX_BYTES:
            raise ImageError(
                f"expected an image file of at most {MAX_BYTES // MEGA:,} MB, got {num_bytes / MEGA:,.0f} MB: {name}"
            )
        with failures_as(ImageError, f"cannot read {name}"), regular_file(self.shards[shard]).open("rb") as file:
            file.seek(offset)
            content = file.read(num_bytes)
        if len(content) < num_bytes:
            raise ImageError(f"expected {num_bytes} bytes, got {len(content)}, since the tar file is cut short: {name}")
        return decode_image(content, name, num_channels=getattr(self.transform, "num_channels", 3))

    def name(self, index: int) -> str:
        shard = self.shards[int(self.places[index, 0])]
        return f"{shard}/{self.members[index]}" if self.members[index] else str(shard)

    def num_bytes(self, index: int) -> int:
        return int(self.places[index, 2])


def read_tars(
    shards: Sequence[Path], transform: Transform, class_names: Sequence[str] | None = None, label: str | None = None
) -> TarImages:
    """Index the images of tar files, in the order of the files and of their members.

    Of several images with one name up to the first dot, as `1.jpg` and `1.mask.png`, those without further dots are taken.

    Args:
        shards: Uncompressed tar files.
        transform: From an opened image to a tensor.
        class_names: One name per class; by default, the class numbers.
        label: The field of the `.json` beside an image that holds its class; None to read the class from the `.cls` beside it.

    Raises:
        InvalidInputError: There is no image in any of them.
    """
    members, places = list[_Member](), list[tuple[int, int, int]]()
    for number, shard in enumerate(shards):
        found = list(_index_shard(shard, label))
        members += found
        places += [(number, member.offset, member.num_bytes) for member in found]
    if not members:
        more = f" and {len(shards) - 1} more" if len(shards) > 1 else ""
        raise InvalidInputError(f"expected images ({', '.join(SUFFIXES)}) in {shards[0]}{more}, found none")
    labels = [member.label for member in members]
    if class_names is None:
        class_names = [str(index) for index in range(max(labels) + 1)]
    elif max(labels) >= len(class_names):
        raise InvalidInputError(f"expected classes from 0 to {len(class_names) - 1} in {shards[0].parent}, got {max(labels)}")
    return TarImages(
        shards,
        [member.name for member in members],
        np.array(places, np.int64),
        [member.damage for member in members],
        labels,
        class_names,
        transform,
    )


def _index_shard(shard: Path, label: str | None) -> Iterator[_Member]:
    """Yield the images of a tar file, and at last the tar file itself if it is damaged."""
    images, labels, damage = list[_Member](), dict[str, int](), ""
    label_suffix = "cls" if label is None else "json"
    try:
        with tarfile.open(regular_file(shard), "r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # Otherwise tarfile keeps all of them in memory.
                parts = [part for part in info.name.split("/") if part not in ("", ".")]
                if not info.isreg() or info.issparse() or any(part.startswith(".") and part != ".." for part in parts):
                    continue
                name = "/".join(parts)
                base, suffix = _split_suffix(name)
                if suffix == label_suffix and info.size <= MAX_LABEL_BYTES:
                    content = tar.extractfile(info)
                    labels[base] = _parse_label(b"" if content is None else content.read(), label)
                elif Path(name).suffix.lower() in SUFFIXES:
                    images.append(_Member(name, info.offset_data, info.size))
            damage = "" if _has_end(shard, tar.offset) else "expected the end of the tar file, found none; it may be cut short"
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        damage = f"expected an uncompressed tar file, got a damaged one ({getattr(error, 'strerror', None) or error})"
    counts = Counter(image.name for image in images)
    plain = {base for base, suffix in (_split_suffix(image.name) for image in images) if f".{suffix}" in SUFFIXES}
    for name, image in {image.name: image for image in images}.items():
        base, suffix = _split_suffix(name)
        if base in plain and f".{suffix}" not in SUFFIXES:
            continue
        twice = f"expected one file of this name in the tar file, found {counts[name]}" if counts[name] > 1 else ""
        yield image._replace(label=labels.get(base, NO_LABEL), damage=twice)
    if damage:
        yield _Member("", 0, -1, damage=damage)


def _split_suffix(name: str) -> tuple[str, str]:
    """Split a name at the first dot of its last part, as WebDataset does; the suffix in lower case."""
    folder, slash, file = name.rpartition("/")
    base, _, suffix = file.partition(".")
    return f"{folder}{slash}{base}", suffix.lower()


def _parse_label(content: bytes, field: str | None) -> int:
    try:
        label = int(content) if field is None else int(parse_json(content)[field])
    except (KeyError, TypeError, ValueError):
        return NO_LABEL
    return max(label, NO_LABEL)


def _has_end(shard: Path, offset: int) -> bool:
    """Return whether a block of zeros, the end of a tar file, is at an offset."""
    with shard.open("rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def is_tar_pattern(path: Path) -> bool:
    """Return whether a path names tar files: one, or several by braces or wildcards."""
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def find_tars(pattern: Path) -> list[Path]:
    """Return the tar files of a pattern such as `shards/{000..099}.tar`, `{train,val}.tar` or `shards/*.tar`.

    Raises:
        InvalidInputError: A file is missing.
    """
    shards = list[Path]()
    for name in dict.fromkeys(expand_braces(str(pattern))):
        if Path(name).exists():
            shards.append(Path(name))
            continue
        matches = sorted(map(Path, glob.glob(name))) if glob.has_magic(name) else []  # noqa: PTH207 (absolute or relative)
        if not matches:
            raise InvalidInputError(f"no such tar file: {name}" + (f" (of {pattern})" if name != str(pattern) else ""))
        shards += matches
    return list(dict.fromkeys(shards))


def expand_braces(pattern: str) -> list[str]:
    """Expand `{000..099}` and `{a,b}` as a shell does; other braces stay.

    Raises:
        InvalidInputError: The pattern expands to more than `MAX_SHARDS` names.
    """
    pieces, start, count = list[list[str]](), 0, 1
    for match in BRACES.finditer(pattern):
        choices = _list_choices(match[1])
        if choices is None:
            continue
        count *= len(choices)
        if count > MAX_SHARDS:
            raise InvalidInputError(f"expected at most {MAX_SHARDS:,} tar files, got {count:,} by {pattern}")
        pieces += [[pattern[start : match.start()]], list(map(str, choices))]
        start = match.end()
    return ["".join(parts) for parts in product(*pieces, [pattern[start:]])]


def _list_choices(text: str) -> Sequence[str] | None:
    if bounds := RANGE.fullmatch(text):
        first, last = int(bounds[1]), int(bounds[2])
        if last - first > MAX_SHARDS:
            raise InvalidInputError(f"expected at most {MAX_SHARDS:,} tar files, got {{{text}}}")
        width = len(bounds[1])
        return [f"{number:0{width}d}" for number in range(first, last + 1)] or None
    return text.split(",") if "," in text else None
