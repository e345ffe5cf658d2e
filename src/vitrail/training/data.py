"""Training and validation images, as Lightning loads them."""

import hashlib
from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
from torch.utils.data import BatchSampler, DataLoader

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.augmentation.transforms import AugmentationConfig, training_transform
from vitrail.datasets.dataset import NO_LABEL, LabeledImages, Sample, Transform, Unreadable, collate
from vitrail.datasets.named import DATA, read_data, read_stream
from vitrail.datasets.sampler import ProcessShare
from vitrail.datasets.streaming import StreamedImages
from vitrail.training.sampling import EpochBatches, ReproducibleImages
from vitrail.training.sections import ImagesConfig

AnyImages = LabeledImages | StreamedImages
"""Images that can be picked one by one, and those that come one after another."""


class TrainingData(lightning.LightningDataModule):
    """Training and validation images of one data set.

    Args:
        config: Which set, and how it is read.
        augmentation: How training images are varied.
        preprocessing: Of validation images; its size and normalization are those of training images too.
        seed: Of order and augmentation.
        labeled: Whether labels are learned, so that every image needs one, and both parts the same classes.

    Raises:
        InvalidInputError: A part is missing or empty, or the two parts have different classes.
        ImageError: Not one image of a part can be read.
    """

    def __init__(
        self,
        config: ImagesConfig,
        augmentation: AugmentationConfig,
        preprocessing: Preprocessing,
        seed: int = 0,
        labeled: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.seed, self.labeled = config, seed, labeled
        self.train_images, self.val_images = _parts(config, training_transform(augmentation, preprocessing), preprocessing)
        if labeled:
            _check_classes(self.train_images, self.val_images, config)
        for images in (self.train_images, self.val_images):
            _check_readable(images)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return list(self.train_images.class_names)

    @property
    def num_train_images(self) -> int | None:
        """Training images, where that is known."""
        images = self.train_images
        return len(images) if isinstance(images, LabeledImages) else images.num_images

    def describe(self) -> dict[str, Any]:
        """What a resumed run has to find again: classes in their order, numbers of images, and a digest of their labels."""
        parts, digest = (self.train_images, self.val_images), hashlib.sha256()
        for images in parts:
            if self.labeled and isinstance(images, LabeledImages):
                digest.update(np.asarray(images.labels, dtype=np.int64).tobytes() + b"end")
        train, validation = (len(each) if isinstance(each, LabeledImages) else each.num_images for each in parts)
        return {
            "class_names": self.class_names if self.labeled else None,
            "train_images": train,
            "validation_images": validation,
            "labels": digest.hexdigest()[:32],
        }

    @property
    def streamed(self) -> bool:
        """Whether training images come one after another, so that a run cannot be resumed within an epoch."""
        return isinstance(self.train_images, StreamedImages)

    @property
    def num_batches(self) -> int:
        """Batches of this process in an epoch."""
        if isinstance(self.train_images, LabeledImages):
            return len(self._batches(self.train_images))
        workers = max(self.config.num_workers, 1)
        each = -(-(self.train_images.num_images or 0) // (self._running().world_size * workers))
        if 0 < each < self.config.batch_size:
            raise InvalidInputError(
                f"expected at least one batch of {self.config.batch_size} images for each of {workers} workers in every process, got "
                f"{each} images; take fewer data.num_workers, or a smaller data.batch_size"
            )
        return each // self.config.batch_size * workers

    def train_dataloader(self) -> DataLoader[Any]:
        trainer, images = self._running(), self.train_images
        if isinstance(images, LabeledImages):
            reproducible, batches = ReproducibleImages(images), self._batches(images)
            return DataLoader(reproducible, batch_sampler=batches, collate_fn=collate, **self._workers())
        stream = images.for_training(self.seed, trainer.global_rank, trainer.world_size)
        stream.set_epoch(trainer.current_epoch)
        return DataLoader(stream, self.config.batch_size, drop_last=True, collate_fn=collate, **self._workers())

    def _batches(self, images: LabeledImages) -> EpochBatches:
        trainer = self._running()
        return EpochBatches(
            len(images),
            self.config.batch_size,
            self.seed,
            trainer.global_rank,
            trainer.world_size,
            self.config.repeats,
            batches_done=lambda: _batches_done(trainer),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        trainer, images = self._running(), self.val_images
        if isinstance(images, StreamedImages):
            stream = images.share(trainer.global_rank, trainer.world_size)
            return DataLoader(stream, self.config.batch_size, collate_fn=collate, **self._workers())
        share = ProcessShare(len(images), trainer.global_rank, trainer.world_size)
        # A process without a share has one empty batch: it validates with the others, which wait for it.
        batches = list(BatchSampler(share, self.config.batch_size, drop_last=False)) or [[]]
        return DataLoader(images, batch_sampler=batches, collate_fn=collate, **self._workers())

    def _running(self) -> lightning.Trainer:
        if self.trainer is None:
            raise RuntimeError("expected a Trainer, which decides what share of the images this process takes")
        return self.trainer

    def _workers(self) -> dict[str, Any]:
        # Pages that stay in place are copied to a GPU while it computes.
        pinned = self._running().strategy.root_device.type == "cuda"
        return {"num_workers": self.config.num_workers, "persistent_workers": self.config.num_workers > 0, "pin_memory": pinned}


def _batches_done(trainer: lightning.Trainer) -> int:
    # Lightning counts the batches of a whole run, and restores the count with a checkpoint.
    count: int = trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
    return count


def _parts(config: ImagesConfig, train: Transform, validation: Transform) -> tuple[AnyImages, AnyImages]:
    images = _read(config, config.train, train)
    if not config.holdout:
        return images, _read(config, config.validation or _validation_split(config), validation)
    if config.validation is not None:
        raise InvalidInputError("expected data.validation or data.holdout, got both")
    if isinstance(images, StreamedImages):
        raise InvalidInputError(f"expected data.validation for {config.name}: a part of a stream cannot be held out")
    count = config.holdout if isinstance(config.holdout, int) else round(config.holdout * len(images))
    if not 0 < count < len(images):
        raise InvalidInputError(f"expected a data.holdout between 1 and {len(images) - 1} of {len(images)} images, got {count}")
    # The same part for every seed of a run: runs are compared on it.
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    return images.subset(sorted(order[count:])), images.subset(sorted(order[:count])).with_transform(validation)


def _read(config: ImagesConfig, split: str, transform: Transform) -> AnyImages:
    read = read_data if DATA[config.name].read is not None else read_stream
    return read(config.name, config.root, split, transform, **config.options)


def _validation_split(config: ImagesConfig) -> str:
    known = DATA[config.name].splits
    if known is None:  # It depends on the files.
        known = tuple(split for split in ("val", "test") if (config.root / str(config.options.get(split, split))).is_dir())
        if not known:
            raise InvalidInputError(
                f"expected a folder val or test in {config.root} beside {config.train}; name another by data.validation, or hold out a "
                "part of the training images by data.holdout"
            )
    return "val" if "val" in known else "test"


def _check_classes(training: AnyImages, validation: AnyImages, config: ImagesConfig) -> None:
    if not training.class_names:
        raise InvalidInputError(f"expected one folder per class in {config.root / config.train}, found photos only")
    if len(training.class_names) < 2:
        raise InvalidInputError(f"expected at least two classes in {config.root}, found one: {training.class_names[0]}")
    if list(training.class_names) != list(validation.class_names):
        odd = sorted(set(training.class_names) ^ set(validation.class_names))
        raise InvalidInputError(
            f"expected the same classes for training and validation in {config.root}; only in one of them: {', '.join(odd[:8])}"
        )
    for images in (training, validation):
        if isinstance(images, LabeledImages) and NO_LABEL in images.labels:
            count = sum(label == NO_LABEL for label in images.labels)
            raise InvalidInputError(
                f"expected a class for every image in {config.root}, found {count} of {len(images)} without one"
            )


def _check_readable(images: AnyImages) -> None:
    """Read images until one can be: as a rule the first."""
    found: Iterator[Sample | Unreadable] = (
        iter(images) if isinstance(images, StreamedImages) else (images[index] for index in range(len(images)))
    )
    count, reason = 0, "there is none"
    for count, image in enumerate(found, 1):
        if not isinstance(image, Unreadable):
            return
        reason = image.reason if count == 1 else reason
    raise ImageError(f"not one of {count} images could be read; the first: {reason}")
