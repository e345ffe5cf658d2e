"""Folders of images: labelled by their sub-folders, or just photos."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from vitrail.data.images import open_image
from vitrail.errors import ImageError, InvalidInputError

NO_LABEL = -1

Transform = Callable[[Image.Image], Tensor]


class Unreadable(NamedTuple):
    """A file that was skipped, and why."""

    path: str
    reason: str


class Sample(NamedTuple):
    """One readable image; `label` is `NO_LABEL` where there is no ground truth."""

    image: Tensor
    label: int
    path: str


class Batch(NamedTuple):
    """Readable images, stacked, and what had to be left out."""

    images: Tensor
    labels: Tensor
    paths: list[str]
    unreadable: list[Unreadable]


@dataclass(frozen=True)
class ImageFolder(Dataset[Sample | Unreadable]):
    """Images found below a folder. A file that cannot be read becomes an `Unreadable`, never another image.

    torchvision's own `ImageFolder` raises on the first damaged file and knows no photos without a class, hence this one.

    Args:
        paths: Image files.
        labels: Ground truth per file, an index into `class_names`, or `NO_LABEL`.
        class_names: Names of the sub-folders, sorted; empty for a plain folder of photos.
        transform: From a photo to a tensor.
    """

    paths: Sequence[Path]
    labels: Sequence[int]
    class_names: Sequence[str]
    transform: Transform = field(repr=False)

    @classmethod
    def scan(cls, root: str | Path, transform: Transform) -> "ImageFolder":
        """Find the images below `root`: one file, a folder of photos, or one sub-folder per class (nested ones count to it).

        Raises:
            InvalidInputError: No such folder, or no images in it.
        """
        root = Path(root)
        if root.is_file():
            return cls([root], [NO_LABEL], [], transform)
        if not root.is_dir():
            raise InvalidInputError(f"no such file or folder of images: {root}")
        classes = sorted(
            entry for entry in root.iterdir() if entry.is_dir() and not _hidden(Path(entry.name)) and images_below(entry)
        )
        if classes:
            found = [(path, label) for label, folder in enumerate(classes) for path in images_below(folder)]
            beside = sum(path.parent == root for path in images_below(root))
            if beside:
                raise InvalidInputError(
                    f"expected images in {root} or in one folder per class, found {beside} beside the folders"
                )
        else:
            found = [(path, NO_LABEL) for path in images_below(root)]
        if not found:
            raise InvalidInputError(
                f"expected images ({', '.join(IMG_EXTENSIONS)}) in {root} or in one folder per class, found none"
            )
        return cls([path for path, _ in found], [label for _, label in found], [folder.name for folder in classes], transform)

    def spread(self, limit: int | None) -> "ImageFolder":
        """Return at most `limit` images, evenly spread over the folder, so that every class has its share."""
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise InvalidInputError(f"expected a limit of at least 1 image, got {limit}")
        chosen = [i * len(self) // limit for i in range(limit)]
        return replace(self, paths=[self.paths[i] for i in chosen], labels=[self.labels[i] for i in chosen])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample | Unreadable:
        path = self.paths[index]
        try:
            return Sample(self.transform(open_image(path)), self.labels[index], str(path))
        except ImageError as error:
            return Unreadable(str(path), str(error))


def collate(samples: Sequence[Sample | Unreadable]) -> Batch:
    """Stack what could be read; a batch may be smaller than asked for, or empty."""
    read = [sample for sample in samples if isinstance(sample, Sample)]
    return Batch(
        images=torch.stack([sample.image for sample in read]) if read else torch.empty(0),
        labels=torch.tensor([sample.label for sample in read], dtype=torch.long),
        paths=[sample.path for sample in read],
        unreadable=[sample for sample in samples if isinstance(sample, Unreadable)],
    )


def split_folder(root: str | Path, names: Sequence[str]) -> Path:
    """Return the first of the sub-folders `names` that exists below `root`, else `root` itself."""
    return next((Path(root) / name for name in names if (Path(root) / name).is_dir()), Path(root))


def images_below(folder: Path) -> list[Path]:
    """Image files below a folder, by their suffix, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMG_EXTENSIONS and path.is_file() and not _hidden(path.relative_to(folder))
    )


def _hidden(path: Path) -> bool:
    """Such as .ipynb_checkpoints, .thumbnails, and the ._ files of macOS."""
    return any(part.startswith(".") for part in path.parts)
