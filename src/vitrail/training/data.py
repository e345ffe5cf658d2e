"""Lightning data module of training and validation images."""

import hashlib
import os
from collections.abc import Iterator
from typing import Any, final

import lightning
import numpy as np
from torch.utils.data import BatchSampler, DataLoader

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.augmentation.transforms import AugmentationConfig, make_training_transform
from vitrail.datasets.collate import collate
from vitrail.datasets.dataset import NO_LABEL, LabeledImages, Sample, Transform, Unreadable
from vitrail.datasets.decoded import DecodedImages
from vitrail.datasets.named import DATA
from vitrail.datasets.open import read_data, read_stream
from vitrail.datasets.sampler import ProcessShare
from vitrail.datasets.streaming import StreamedImages
from vitrail.datasets.workers import explain_killed_workers
from vitrail.training.sampling import EpochBatches, ReproducibleImages
from vitrail.training.sections import ImagesConfig

AnyImages = LabeledImages | StreamedImages
"""Images by index, or a stream of images."""


@final
class TrainingData(lightning.LightningDataModule):
    """Training and validation images of one data set.

    Args:
        config: Section `data` of the recipe.
        augmentation: Augmentation of training images.
        preprocessing: Preprocessing of validation images; training images take its size and normalization.
        seed: Seed of order and augmentation.
        labeled: Whether the labels are learned: then every image needs one, and both splits need the same classes.

    Raises:
        InvalidInputError: A split is missing or empty, or the splits have different classes.
        ImageError: No image of a split can be read.
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
        transform = make_training_transform(augmentation, preprocessing)
        self.train_images, self.val_images = _read_splits(config, transform, preprocessing)
        if labeled:
            _check_classes(self.train_images, self.val_images, config)
        for images in (self.train_images, self.val_images):
            _check_readable(images)
        self.train_images = _decode(self.train_images, config, config.short_side)
        self.val_images = _decode(self.val_images, config, None)  # As `vitrail test` sees them.

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return list(self.train_images.class_names)

    @property
    def num_train_images(self) -> int | None:
        """Number of training images, or None if a stream does not know it."""
        images = self.train_images
        return len(images) if isinstance(images, LabeledImages) else images.num_images

    def describe(self) -> dict[str, Any]:
        """Describe what a resumed run must find again: classes in order, numbers of images, and digests of their labels and names."""
        splits, digest, names = (self.train_images, self.val_images), hashlib.sha256(), hashlib.sha256()
        root = str(self.config.root)
        for images in splits:
            if not isinstance(images, LabeledImages):
                continue
            if self.labeled:
                digest.update(np.asarray(images.labels, dtype=np.int64).tobytes() + b"end")
            for index in range(len(images)):  # Relative to the root, which may have moved.
                names.update(os.fsencode(images.name(index).removeprefix(root)) + b"\0")
        train, validation = (len(split) if isinstance(split, LabeledImages) else split.num_images for split in splits)
        return {
            "class_names": self.class_names if self.labeled else None,
            "train_images": train,
            "validation_images": validation,
            "labels": digest.hexdigest()[:32],
            "names": names.hexdigest()[:32],
        }

    @property
    def streamed(self) -> bool:
        """Whether training images are a stream, so that a run cannot resume within an epoch."""
        return isinstance(self.train_images, StreamedImages)

    @property
    def num_batches(self) -> int:
        """Number of batches of this process per epoch."""
        if isinstance(self.train_images, LabeledImages):
            return len(self._create_batches(self.train_images))
        num_workers = max(self.config.num_workers, 1)
        num_processes = self._require_trainer().world_size * num_workers
        images_per_worker = -(-(self.train_images.num_images or 0) // num_processes)
        if 0 < images_per_worker < self.config.batch_size:
            raise InvalidInputError(
                f"expected at least one batch of {self.config.batch_size} images for each of {num_workers} workers in every process, got "
                f"{images_per_worker} images; use fewer data.num_workers or a smaller data.batch_size"
            )
        return images_per_worker // self.config.batch_size * num_workers

    def train_dataloader(self) -> DataLoader[Any]:
        trainer, images = self._require_trainer(), self.train_images
        if isinstance(images, LabeledImages):
            reproducible, batches = ReproducibleImages(images), self._create_batches(images)
            return DataLoader(reproducible, batch_sampler=batches, collate_fn=collate, **self._loader_options())
        stream = images.for_training(self.seed, trainer.global_rank, trainer.world_size)
        stream.set_epoch(trainer.current_epoch)
        return DataLoader(stream, self.config.batch_size, drop_last=True, collate_fn=collate, **self._loader_options())

    def _create_batches(self, images: LabeledImages) -> EpochBatches:
        trainer = self._require_trainer()
        return EpochBatches(
            len(images),
            self.config.batch_size,
            self.seed,
            trainer.global_rank,
            trainer.world_size,
            self.config.repeats,
            batches_done=lambda: _count_batches_done(trainer),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        trainer, images = self._require_trainer(), self.val_images
        if isinstance(images, StreamedImages):
            stream = images.share(trainer.global_rank, trainer.world_size)
            return DataLoader(stream, self.config.batch_size, collate_fn=collate, **self._loader_options())
        share = ProcessShare(len(images), trainer.global_rank, trainer.world_size)
        # A process without images gets one empty batch: the others wait for it in validation.
        batches = list(BatchSampler(share, self.config.batch_size, drop_last=False)) or [[]]
        return DataLoader(images, batch_sampler=batches, collate_fn=collate, **self._loader_options())

    def _require_trainer(self) -> lightning.Trainer:
        if self.trainer is None:
            raise RuntimeError("expected a Trainer, which determines this process's share of the images, got none")
        return self.trainer

    def _loader_options(self) -> dict[str, Any]:
        # Pinned memory is copied to a GPU while it computes.
        pinned = self._require_trainer().strategy.root_device.type == "cuda"
        return {"num_workers": self.config.num_workers, "persistent_workers": self.config.num_workers > 0, "pin_memory": pinned}


def _count_batches_done(trainer: lightning.Trainer) -> int:
    # Lightning counts the batches of the whole run and restores the count from a checkpoint.
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]


def _read_splits(config: ImagesConfig, train: Transform, validation: Transform) -> tuple[AnyImages, AnyImages]:
    images = _read_split(config, config.train, train)
    if not config.holdout:
        return images, _read_split(config, config.validation or _find_validation_split(config), validation)
    if config.validation is not None:
        raise InvalidInputError("expected data.validation or data.holdout, got both")
    if isinstance(images, StreamedImages):
        raise InvalidInputError(
            f"expected data.validation for {config.name}, got data.holdout: a stream has no parts to hold out"
        )
    count = config.holdout if isinstance(config.holdout, int) else round(config.holdout * len(images))
    if not 0 < count < len(images):
        raise InvalidInputError(f"expected a data.holdout between 1 and {len(images) - 1} of {len(images)} images, got {count}")
    # Hold out the same images for every seed, so that runs are comparable.
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    return images.subset(sorted(order[count:])), images.subset(sorted(order[:count])).with_transform(validation)


def _read_split(config: ImagesConfig, split: str, transform: Transform) -> AnyImages:
    read = read_data if DATA[config.name].read is not None else read_stream
    return read(config.name, config.root, split, transform, **config.options)


def _decode(images: AnyImages, config: ImagesConfig, short_side: int | None) -> AnyImages:
    if short_side is None and config.cache == "none":
        return images
    if isinstance(images, StreamedImages):
        raise InvalidInputError(
            f"expected data.cache none and data.short_side null for {config.name}, which is a stream, got {config.cache} and "
            f"{short_side}"
        )
    decoded = DecodedImages.wrap(images, short_side)
    if config.cache == "none":
        return decoded
    with explain_killed_workers("start again with fewer data.num_workers, or with data.cache none"):
        return decoded.keep_in_memory(config.num_workers)


def _find_validation_split(config: ImagesConfig) -> str:
    splits = DATA[config.name].splits
    if splits is None:  # Depends on the files.
        splits = tuple(split for split in ("val", "test") if (config.root / str(config.options.get(split, split))).is_dir())
        if not splits:
            raise InvalidInputError(
                f"expected a folder val or test in {config.root} next to {config.train}; set data.validation to another folder, or "
                "data.holdout to hold out training images"
            )
    return "val" if "val" in splits else "test"


def _check_classes(training: AnyImages, validation: AnyImages, config: ImagesConfig) -> None:
    if not training.class_names:
        raise InvalidInputError(f"expected one folder per class in {config.root / config.train}, found photos only")
    if len(training.class_names) < 2:
        raise InvalidInputError(f"expected at least two classes in {config.root}, found one: {training.class_names[0]}")
    if list(training.class_names) != list(validation.class_names):
        odd = sorted(set(training.class_names) ^ set(validation.class_names))
        raise InvalidInputError(
            f"expected the same classes for training and validation in {config.root}; only one of them has: {', '.join(odd[:8])}"
        )
    for images in (training, validation):
        if isinstance(images, LabeledImages) and NO_LABEL in images.labels:
            count = sum(label == NO_LABEL for label in images.labels)
            raise InvalidInputError(
                f"expected a class for every image in {config.root}, found {count} of {len(images)} without one"
            )


def _check_readable(images: AnyImages) -> None:
    """Check that at least one image can be read; this usually reads the first one only."""
    samples: Iterator[Sample | Unreadable] = (
        iter(images) if isinstance(images, StreamedImages) else (images[index] for index in range(len(images)))
    )
    count, reason = 0, "the set is empty"
    for count, sample in enumerate(samples, 1):
        if not isinstance(sample, Unreadable):
            return
        reason = sample.reason if count == 1 else reason
    raise ImageError(f"none of {count} images could be read; the first: {reason}")
