"""From a recipe to a trained model on disk."""

import logging
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from timm.optim import list_optimizers
from torch.utils.data import DataLoader

from vitrail.adapters import Classifier, Preprocessing, adapt, save
from vitrail.data.augmentation import label_mixing, training_transform
from vitrail.data.folders import ImageFolder, Unreadable, collate, split_folder
from vitrail.errors import ImageError, InvalidInputError, OutputError
from vitrail.files import output_folder, write_text
from vitrail.models.hit import HIT_SIZES, HiT
from vitrail.registry import unknown_name
from vitrail.training.callbacks import LearningCurve, progress
from vitrail.training.classifier import ImageClassifier
from vitrail.training.config import ModelConfig, TrainingConfig

logger = logging.getLogger(__name__)


class FolderData(lightning.LightningDataModule):
    """Training and validation images of one folder tree.

    Raises:
        InvalidInputError: A part is missing or empty, or the two parts have different classes.
    """

    def __init__(self, config: TrainingConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        data = config.data
        self.config = data
        if not data.root.is_dir():
            raise InvalidInputError(f"no such folder of images: {data.root}; name yours by data.root")
        validation = data.root / data.validation if data.validation else split_folder(data.root, ["val", "test"])
        if validation == data.root:
            raise InvalidInputError(
                f"expected a folder val or test in {data.root} beside {data.train}; name another by data.validation"
            )
        self.train_images = ImageFolder.scan(data.root / data.train, training_transform(config.augmentation, preprocessing))
        self.val_images = ImageFolder.scan(validation, preprocessing)
        if not self.train_images.class_names:
            raise InvalidInputError(f"expected one folder per class in {data.root / data.train}, found photos only")
        if list(self.train_images.class_names) != list(self.val_images.class_names):
            odd = sorted(set(self.train_images.class_names) ^ set(self.val_images.class_names))
            raise InvalidInputError(
                f"expected the same classes in {data.train} and {validation.name}; only in one of them: {', '.join(odd[:8])}"
            )

        if len(self.class_names) < 2:
            raise InvalidInputError(
                f"expected at least two classes in {data.root / data.train}, found one: {self.class_names[0]}"
            )
        for images in (self.train_images, self.val_images):
            # The first is readable but for the odd folder, so this reads one image.
            reasons: list[str] = []
            for index in range(len(images)):
                image = images[index]
                if not isinstance(image, Unreadable):
                    break
                reasons.append(image.reason)
            else:
                raise ImageError(f"not one of {len(images)} images could be read; the first: {reasons[0]}")

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


def build_model(config: ModelConfig, num_classes: int, in_channels: int) -> HiT:
    """Build the untrained network of a recipe."""
    if config.name not in HIT_SIZES:
        raise unknown_name("model", config.name, list(HIT_SIZES))
    fields = config.model_dump(exclude={"name"}, exclude_none=True)
    if isinstance(fields.get("image_size"), int):
        fields["image_size"] = (fields["image_size"],) * 2
    return HiT(HIT_SIZES[config.name], num_classes=num_classes, in_channels=in_channels, **fields)


class Export(Callback):
    """Write the validated model, under EMA its averaged weights, whenever it is the best so far, and always as the last.

    Must stand before the EMA callback, which takes the averaged weights away again at the same hook.
    """

    def __init__(self, folder: Path, classifier: Classifier) -> None:
        self.folder, self.classifier, self.best = folder, classifier, -1.0

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, ImageClassifier):
            return
        top1 = float(pl_module.top1.compute())
        if not trainer.is_global_zero:
            return
        notes = {"validation": {"top1": top1, "epoch": trainer.current_epoch + 1}}
        save(self.classifier, self.folder / "last.safetensors", notes=notes)
        if top1 > self.best:
            self.best = top1
            save(self.classifier, self.folder / "best.safetensors", notes=notes)


def train(config: TrainingConfig, out: str | Path) -> Path:
    """Train a classifier; return the path of the best model.

    Writes into `out`: `config.yaml`, `metrics.csv`, `learning_curve.png`, `best.safetensors` and `last.safetensors` (models for
    `vitrail.load`), `best.ckpt` and `last.ckpt` (the whole training state).

    Raises:
        InvalidInputError: The recipe or the folders do not fit.
        OutputError: `out` holds an earlier run, or cannot be written.
    """
    _quieten_lightning()
    out = output_folder(out)
    # Further processes of the same run start when the first has written its recipe.
    if getattr(rank_zero_only, "rank", 0) == 0 and any(out.iterdir()):
        raise OutputError(f"{out} is not empty; choose another --out")
    lightning.seed_everything(config.engine.seed, workers=True, verbose=False)
    size = build_model(config.model, 1, len(config.data.mean)).config.image_size
    preprocessing = Preprocessing(
        size=size,
        crop_fraction=config.data.crop_fraction,
        crop_mode=config.data.crop_mode,
        interpolation=config.data.interpolation,
        mean=config.data.mean,
        std=config.data.std,
    )
    if config.optimizer.name.removeprefix("lookahead_") not in list_optimizers():
        raise unknown_name("optimiser", config.optimizer.name, list_optimizers())
    data = FolderData(config, preprocessing)
    num_classes = len(data.class_names)
    model = build_model(config.model, num_classes, len(config.data.mean))
    classifier = ImageClassifier(model, config, num_classes, label_mixing(config.augmentation, num_classes))
    callbacks: list[Callback] = [
        Export(out, adapt(model, class_names=data.class_names, preprocessing=preprocessing)),
        LearningRateMonitor(logging_interval="epoch"),
        LearningCurve(out),
        ModelCheckpoint(out, "best", monitor="val_top1", mode="max", save_last=True, enable_version_counter=False),
        *progress(),
    ]
    if config.engine.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=config.engine.ema_decay))
    try:
        trainer = _trainer(config, out, callbacks)
    except (ValueError, MisconfigurationException) as error:
        raise InvalidInputError(f"engine: {error}") from error
    # Now that everything fits.
    if trainer.is_global_zero:
        write_text(out / "config.yaml", config.to_yaml())
    try:
        trainer.fit(classifier, datamodule=data)
    except OSError as error:
        raise OutputError(f"cannot write into {out}: {error.strerror or error}; the models written before are whole") from error
    if classifier.unreadable:
        for reason in list(classifier.unreadable.values())[:10]:
            logger.warning("skipped: %s", reason)
        logger.warning("%d unreadable images were skipped in training", len(classifier.unreadable))
    return out / "best.safetensors"


def _trainer(config: TrainingConfig, out: Path, callbacks: list[Callback]) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator=config.engine.accelerator,
        devices=config.engine.devices,
        precision=config.engine.precision,
        max_epochs=config.schedule.epochs,
        max_time=timedelta(minutes=config.engine.max_minutes) if config.engine.max_minutes else None,
        accumulate_grad_batches=config.engine.accumulate,
        gradient_clip_val=config.optimizer.gradient_clip,
        callbacks=callbacks,
        logger=CSVLogger(out, name="", version=""),
        default_root_dir=out,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
        num_sanity_val_steps=0,
        log_every_n_steps=1_000_000,
    )


def _quieten_lightning() -> None:
    """Leave out what tells a user nothing: advertisements, hardware that is absent, our own folder being ours."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        ".*exists and is not empty.*",
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*logging interval.*",
        ".*GPU available.*",
    ):
        warnings.filterwarnings("ignore", message=message, module="lightning.*")
