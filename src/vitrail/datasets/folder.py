"""Folders of images: one sub-folder per class, or photos without classes."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.dataset import NO_LABEL, LabeledFiles, Transform
from vitrail.datasets.file_search import MAX_LISTED, SUFFIXES, expect_exists, find_images, images_below

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFolder(LabeledFiles):
    """Images below a folder. The classes are the sorted names of its sub-folders; a folder of photos has none.

    torchvision's `ImageFolder` raises an error at the first damaged file and does not accept photos without classes.
    """

    @classmethod
    def scan(cls, root: str | Path, transform: Transform) -> "ImageFolder":
        """List the images of `root`: one file, a folder of photos, or a folder with one sub-folder per class, searched recursively.

        Raises:
            InvalidInputError: The folder does not exist, holds no images, or has a class folder that cannot be read.
        """
        root = Path(root)
        expect_exists(root)
        if root.is_file():
            return cls([root], [NO_LABEL], [], transform)
        contents = find_images(root, getattr(transform, "num_channels", None))
        if unreadable := [entry for entry in contents.skipped if entry.path in contents.folders]:
            # Without this class, all classes after it would get other numbers.
            raise InvalidInputError(
                f"expected folders of images that can be read, got {unreadable[0].path} ({unreadable[0].reason}); change its "
                "permissions, or move it elsewhere"
            )
        contents.warn_about_skipped(root)
        depth = len(root.parts)
        owners = [path.parts[depth] if len(path.parts) > depth + 1 else None for path in contents.paths]
        classes = sorted({owner for owner in owners if owner is not None})
        if classes:
            if empty := [folder.name for folder in contents.folders if folder.name not in classes]:
                logger.warning("skipped folders without images: %s in %s", ", ".join(empty[:MAX_LISTED]), root)
            if num_loose := owners.count(None):
                raise InvalidInputError(
                    f"expected images in {root} or in one folder per class, found {num_loose} beside the folders"
                )
        if not contents.paths:
            raise InvalidInputError(f"expected images ({', '.join(SUFFIXES)}) in {root} or in one folder per class, found none")
        indices = {name: index for index, name in enumerate(classes)}
        return cls(contents.paths, [NO_LABEL if owner is None else indices[owner] for owner in owners], classes, transform)

    @classmethod
    def scan_without_classes(cls, root: str | Path, transform: Transform) -> "ImageFolder":
        """List the images of `root`, a file or a folder, without classes: images may lie beside class folders.

        Raises:
            InvalidInputError: The folder does not exist, or holds no images.
        """
        root = Path(root)
        expect_exists(root)
        paths = [root] if root.is_file() else images_below(root, getattr(transform, "num_channels", None))
        if not paths:
            raise InvalidInputError(f"expected images in {root}, found none")
        return cls(paths, [NO_LABEL] * len(paths), [], transform)


def split_folder(root: str | Path, names: Sequence[str]) -> Path:
    """Return the first of the sub-folders `names` that exists in `root`, or else `root` itself."""
    return next((Path(root) / name for name in names if (Path(root) / name).is_dir()), Path(root))
