"""Folders of images: labeled by their sub-folders, or just photos."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.dataset import NO_LABEL, Batch, LabeledFiles, Sample, Transform, Unreadable, collate
from vitrail.datasets.file_search import expect_exists, find_images, images_below, unreadable_folders
from vitrail.datasets.formats import SUFFIXES

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
class ImageFolder(LabeledFiles):
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
        expect_exists(root)
        if root.is_file():
            return cls([root], [NO_LABEL], [], transform)
        found = find_images(root)
        if lost := unreadable_folders(found):
            # A class that is missing would give those after it other numbers.
            raise InvalidInputError(
                f"expected folders of images that can be read, got {lost[0].path} ({lost[0].reason}); change its permissions, or move "
                "it elsewhere"
            )
        found.warn(root)
        depth = len(root.parts)
        owners = [path.parts[depth] if len(path.parts) > depth + 1 else None for path in found.paths]
        classes = sorted({owner for owner in owners if owner is not None})
        if classes:
            if empty := [folder.name for folder in found.folders if folder.name not in classes]:
                logger.warning("left out, since there are no images in them: %s in %s", ", ".join(empty[:8]), root)
            if beside := owners.count(None):
                raise InvalidInputError(
                    f"expected images in {root} or in one folder per class, found {beside} beside the folders"
                )
        if not found.paths:
            raise InvalidInputError(f"expected images ({', '.join(SUFFIXES)}) in {root} or in one folder per class, found none")
        indices = {name: index for index, name in enumerate(classes)}
        return cls(found.paths, [NO_LABEL if owner is None else indices[owner] for owner in owners], classes, transform)


def split_folder(root: str | Path, names: Sequence[str]) -> Path:
    """Return the first of the sub-folders `names` that exists below `root`, else `root` itself."""
    return next((Path(root) / name for name in names if (Path(root) / name).is_dir()), Path(root))
