"""Photos named one by one or by their folder."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from PIL import Image

from vitrail.adapters import Preprocessing
from vitrail.data.finding import images_below, is_folder
from vitrail.data.folders import Unreadable
from vitrail.data.images import open_image
from vitrail.errors import ImageError, InvalidInputError


@dataclass(frozen=True)
class PhotoFile:
    """A photo on disk.

    Attributes:
        path: Its file.
        label: A name for results, unlike that of every other photo of the call.
        required: Whether the user named this very file: then it must be readable.
    """

    path: Path
    label: str
    required: bool

    def open(self, preprocessing: Preprocessing) -> Image.Image | Unreadable:
        """Open the photo, or say why it has to be skipped.

        Raises:
            ImageError: A required photo cannot be read, or is none that the model can take.
        """
        try:
            image = open_image(self.path)
            preprocessing.check(image)
        except ImageError as error:
            reason = str(error) if str(self.path) in str(error) else f"cannot use {self.path}: {error}"
            if self.required:
                raise ImageError(reason) from error
            return Unreadable(str(self.path), reason)
        return image


def list_photos(paths: Sequence[Path], taken: Collection[str] = ()) -> list[PhotoFile]:
    """List photos: the named files, and the images below the named folders.

    Args:
        paths: Files and folders.
        taken: Labels that no photo may have.

    Raises:
        InvalidInputError: A folder holds no images.
    """
    used, photos = set(taken), list[PhotoFile]()
    for path in paths:
        found = images_below(path) if is_folder(path) else [path]
        if not found:
            raise InvalidInputError(f"expected images in the folder {path}, found none")
        for file in found:
            candidates = (file.stem if i == 1 else f"{file.stem}-{i}" for i in count(1))
            label = next(label for label in candidates if label not in used)
            used.add(label)
            photos.append(PhotoFile(file, label, required=file == path))
    return photos


def relative_name(path: Path, root: Path) -> str:
    """An image's name below the folder that was named, with slashes; of a file that was named itself, its own name."""
    return path.relative_to(root if path != root else path.parent).as_posix()


def result_labels(paths: Sequence[Path], root: Path) -> dict[Path, str]:
    """Names for results that are unlike each other: an image's name without suffix; with it, where only the suffix differs.

    Args:
        paths: All images below a folder, since a name depends on the others.
        root: The folder.
    """
    # Some file systems do not tell capitals from small letters.
    shared = Counter(str(path.with_suffix("")).casefold() for path in paths)
    used, labels = set[str](), dict[Path, str]()
    for path in paths:
        alone = shared[str(path.with_suffix("")).casefold()] == 1
        name = relative_name(path, root).removesuffix(path.suffix if alone else "")
        candidates = (name if i == 1 else f"{name}-{i}" for i in count(1))
        labels[path] = next(label for label in candidates if label.casefold() not in used)
        used.add(labels[path].casefold())
    return labels
