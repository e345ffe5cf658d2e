"""Training and validation images, as Lightning loads them."""

from typing import Any

import lightning
from torch.utils.data import DataLoader

from vitrail.adapters import Preprocessing
from vitrail.data.augmentation import training_transform
from vitrail.data.folders import ImageFolder, Unreadable, collate, split_folder
from vitrail.errors import ImageError, InvalidInputError
from vitrail.training.config import TrainingConfig


class FolderData(lightning.LightningDataModule):
    """Training and validation images of one folder tree.

    Raises:
        InvalidInputError: A part is missing or empty, or the two parts have different classes.
        ImageError: Not one image of a part can be read.
    """

    def __init__(self, config: TrainingConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.config = data = config.data
        if not data.root.is_dir():
            raise InvalidInputError(f"no such folder of images: {data.root}; name yours by data.root")
        training = data.root / data.train
        validation = data.root / data.validation if data.validation else split_folder(data.root, ["val", "test"])
        if validation == data.root:
            raise InvalidInputError(
                f"expected a folder val or test in {data.root} beside {data.train}; name another by data.validation"
            )
        self.train_images = ImageFolder.scan(training, training_transform(config.augmentation, preprocessing))
        self.val_images = ImageFolder.scan(validation, preprocessing)
        if not self.class_names:
            raise InvalidInputError(f"expected one folder per class in {training}, found photos only")
        if self.class_names != list(self.val_images.class_names):
            odd = sorted(set(self.class_names) ^ set(self.val_images.class_names))
            raise InvalidInputError(
                f"expected the same classes in {data.train} and {validation.name}; only in one of them: {', '.join(odd[:8])}"
            )
        if len(self.class_names) < 2:
            raise InvalidInputError(f"expected at least two classes in {training}, found one: {self.class_names[0]}")
        for images in (self.train_images, self.val_images):
            _check_readable(images)

    @property
    def class_names(self) -> list[str]:
        """Names of the class folders."""
        return list(self.train_images.class_names)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.train_images, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.val_images, shuffle=False)

    def _loader(self, images: ImageFolder, shuffle: bool) -> DataLoader[Any]:
        workers: dict[str, Any] = {"num_workers": self.config.num_workers, "persistent_workers": self.config.num_workers > 0}
        drop_last = shuffle and len(images) >= self.config.batch_size
        return DataLoader(images, self.config.batch_size, shuffle=shuffle, drop_last=drop_last, collate_fn=collate, **workers)


def _check_readable(images: ImageFolder) -> None:
    """Read images until one can be: as a rule the first."""
    reason = ""
    for index in range(len(images)):
        image = images[index]
        if not isinstance(image, Unreadable):
            return
        reason = reason or image.reason
    raise ImageError(f"not one of {len(images)} images could be read; the first: {reason}")
