"""Where the images of a run come from: a path, or a data set by name."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vitrail.adapters import Preprocessing
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import real_path
from vitrail.datasets.dataset import LabeledImages
from vitrail.datasets.folder import split_folder
from vitrail.datasets.lists import STANDARD_INPUT
from vitrail.datasets.named import DATA
from vitrail.datasets.open import detect_kind, open_dataset
from vitrail.datasets.tars import find_tars

logger = logging.getLogger(__name__)

TEST_SPLITS = ("test", "val")


@dataclass(frozen=True)
class DataSource:
    """A path to images, or a data set by name.

    Attributes:
        root: As `vitrail.datasets.open.open_dataset` takes it: a photo, a folder, a list, tar files, a table; of a named data set, its
            root folder.
        data_set: Name of a data set; None for anything else.
        split: Split of the data set or the table; test if not given, or val if there is no test split.
        options: Options of the data set.
    """

    root: Path
    data_set: str | None = None
    split: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_named = self.data_set is not None
        if not is_named and (self.options or (self.split is not None and detect_kind(self.root) != "table")):
            raise InvalidInputError("expected --split and --data-option together with --data-set, got no --data-set")

    def read(self, preprocessing: Preprocessing, subfolders: Sequence[str] = (), labeled: bool = True) -> LabeledImages:
        """Read the images.

        Args:
            subfolders: Of a folder, use the first of these subfolders that exists, such as "test".
            labeled: Whether classes matter; see `open_dataset`.

        Raises:
            UnknownNameError: No such data set.
            InvalidInputError: No such folder or split, no images, or an option that the data set does not have.
        """
        root, split = self.root, self.split
        if self.data_set is None:
            root = split_folder(root, subfolders) if split is None else root  # A table's splits are folders, too.
            if root != self.root:  # It may as well be a class of that name.
                logger.info("reading the images in %s", root)
        elif split is None and self.data_set != "huggingface":
            split = self._default_split(self.data_set)
        return open_dataset(root, preprocessing, self.data_set, split, labeled=labeled, **self.options)

    @property
    def title(self) -> str:
        """The source in words: the data set with its split, or the name of the folder or file in quotes."""
        if self.data_set is None:
            return "standard input" if self.root == STANDARD_INPUT else f'"{self.root.resolve().name}"'
        return f"{self.data_set}, split {self.split}" if self.split else self.data_set

    @cached_property
    def folder(self) -> Path:
        """Where the keys of images start: names of images are relative to it (`vitrail.datasets.keys.image_key`)."""
        if self.root == STANDARD_INPUT:
            return Path()
        match "folder" if self.data_set else detect_kind(self.root):
            case "list":
                return self.root.parent
            case "tars" if not self.root.is_dir():
                folders = {shard.parent for shard in find_tars(self.root)}
                is_mixed = len({folder.is_absolute() for folder in folders}) > 1
                return Path() if is_mixed else Path(os.path.commonpath(folders))
        return self.root

    def describe(self) -> dict[str, Any]:
        """Return the settings for the manifest of a run, ready for JSON."""
        root = str(real_path(self.root))  # Of standard input, in the folder to which its paths are relative.
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
