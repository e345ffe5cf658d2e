"""Folders of images: labelled by their sub-folders, or just photos."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from vitrail.data.labelled import NO_LABEL, Batch, LabelledFiles, Sample, Transform, Unreadable, collate
from vitrail.errors import InvalidInputError

logger = logging.getLogger(__name__)

__all__ = [
    "NO_LABEL",
    "Batch",
    "ImageFolder",
    "Sample",
    "Transform",
    "Unreadable",
    "collate",
    "images_below",
    "split_folder",
]


@dataclass(frozen=True)
class ImageFolder(LabelledFiles):
    """Images found below a folder; the classes are the names of the sub-folders, sorted, or none for a folder of photos.

    torchvision's own `ImageFolder` raises on the first damaged file and knows no photos without a class, hence this one.
    """

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
        below = {
            entry: images_below(entry) for entry in sorted(root.iterdir()) if entry.is_dir() and not _hidden(Path(entry.name))
        }
        classes = [folder for folder, paths in below.items() if paths]
        if classes:
            if empty := [folder.name for folder in below if folder not in classes]:
                logger.warning("left out, since there are no images in them: %s in %s", ", ".join(empty[:8]), root)
            found = [(path, label) for label, folder in enumerate(classes) for path in below[folder]]
            beside = sum(_is_image(path) for path in root.iterdir())
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


def split_folder(root: str | Path, names: Sequence[str]) -> Path:
    """Return the first of the sub-folders `names` that exists below `root`, else `root` itself."""
    return next((Path(root) / name for name in names if (Path(root) / name).is_dir()), Path(root))


def images_below(folder: Path) -> list[Path]:
    """Image files below a folder, by their suffix, sorted."""
    return sorted(path for path in folder.rglob("*") if _is_image(path) and not _hidden(path.relative_to(folder)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".") and path.is_file()


def _hidden(path: Path) -> bool:
    """Such as .ipynb_checkpoints, .thumbnails, and the ._ files of macOS."""
    return any(part.startswith(".") for part in path.parts)
