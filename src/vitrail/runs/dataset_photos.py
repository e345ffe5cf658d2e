"""The photos of a run: images of any source, with the keys by which results are found and the names of their result files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from PIL import Image

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError
from vitrail.datasets.dataset import LabeledImages, Unreadable
from vitrail.datasets.keys import image_key, name_results
from vitrail.datasets.photos import PhotoFile
from vitrail.datasets.source import DataSource


@dataclass(frozen=True)
class DatasetPhoto(PhotoFile):
    """A photo of a data set; `path` is its name there, which need not be a file of its own.

    Attributes:
        key: Identifies the photo in the results.
        images: The data set.
        index: Index in the data set.
    """

    key: str
    images: LabeledImages = field(repr=False, compare=False)
    index: int

    @property
    def num_bytes(self) -> int:
        return self.images.num_bytes(self.index)

    def open(self, preprocessing: Preprocessing) -> Image.Image | Unreadable:
        name = self.images.name(self.index)
        try:
            image = self.images.open(self.index)
            preprocessing.check(image)
        except ImageError as error:
            return Unreadable(name, str(error) if name in str(error) else f"cannot use {name}: {error}")
        return image


@dataclass(frozen=True, eq=False)
class DatasetPhotos(Sequence[DatasetPhoto]):
    """The photos of a data set; each is made when it is asked for.

    Attributes:
        images: The data set.
        root: Folder to which keys are relative.
        result_names: Names of the result files.
    """

    images: LabeledImages
    root: Path
    result_names: Sequence[str]

    @classmethod
    def from_source(cls, source: DataSource, preprocessing: Preprocessing, limit: int | None = None) -> "DatasetPhotos":
        """List the images of a source, or at most `limit` of them, evenly spread; their classes do not matter.

        Raises:
            InvalidInputError: There are none.
        """
        images = source.read(preprocessing, labeled=False)
        images = images.with_labels(range(len(images)))  # Numbers, to find the images of the sample again.
        names = name_results([image_key(images.name(index), source.folder) for index in range(len(images))])
        sample = images.subsample(limit)
        return cls(sample, source.folder, [names[index] for index in sample.labels])

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> DatasetPhoto: ...
    @overload
    def __getitem__(self, index: slice) -> list[DatasetPhoto]: ...
    def __getitem__(self, index: int | slice) -> DatasetPhoto | list[DatasetPhoto]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        name = self.images.name(index)
        return DatasetPhoto(
            Path(name), self.result_names[index], False, image_key(name, self.root), self.images, index % len(self)
        )
