"""Where the images of an evaluation come from: a folder, or a data set by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitrail.adapters import Preprocessing
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import real_path
from vitrail.datasets.dataset import LabeledImages
from vitrail.datasets.folder import ImageFolder, split_folder
from vitrail.datasets.named import DATA
from vitrail.datasets.open import read_data

TEST_SPLITS = ("test", "val")


@dataclass(frozen=True)
class DataSource:
    """A folder of images, or a data set by name.

    Attributes:
        root: A photo, a folder of photos, or a folder with one subfolder per class; of a named data set, its root folder.
        data_set: Name of a data set; None for a folder.
        split: Split of the data set; test if not given, or val if there is no test split.
        options: Options of the data set.
    """

    root: Path
    data_set: str | None = None
    split: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data_set is None and (self.split is not None or self.options):
            raise InvalidInputError("expected --split and --data-option together with --data-set, got no --data-set")

    def read(self, preprocessing: Preprocessing, subfolders: Sequence[str] = ()) -> LabeledImages:
        """Read the images.

        Args:
            preprocessing: The preprocessing of the model.
            subfolders: Of a folder, use the first of these subfolders that exists, such as "test".

        Raises:
            UnknownNameError: No such data set.
            InvalidInputError: No such folder or split, no images, or an option that the data set does not have.
        """
        if self.data_set is None:
            return ImageFolder.scan(split_folder(self.root, subfolders), preprocessing)
        return read_data(
            self.data_set, self.root, self.split or self._default_split(self.data_set), preprocessing, **self.options
        )

    def describe(self) -> dict[str, Any]:
        """Return the settings for the manifest of a run, ready for JSON."""
        root = str(real_path(self.root))
        return {"data": root, "data_set": self.data_set, "split": self.split, "data_options": dict(self.options)}

    def _default_split(self, name: str) -> str:
        splits: Sequence[str] = DATA[name].splits or TEST_SPLITS[:1]
        if name == "folder":
            splits = [split for split in TEST_SPLITS if split in self.options or (self.root / split).is_dir()]
            if not splits:
                raise InvalidInputError(
                    f"expected a folder test or val in {self.root}, found neither; name another one by --split, or leave out --data-set to "
                    "read all images"
                )
        return "test" if "test" in splits else "val"
