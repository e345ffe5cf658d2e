"""From a recipe to a trained model on disk."""

import logging
import sys
from datetime import timedelta
from pathlib import Path

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from timm.optim import list_optimizers

from vitrail.adapters import Classifier, Preprocessing, adapt, save
from vitrail.data.augmentation import label_mixing
from vitrail.errors import InvalidInputError, OutputError
from vitrail.files import output_folder, write_text
from vitrail.models.hit import HiT
from vitrail.registry import unknown_name
from vitrail.training.callbacks import LearningCurve, progress
from vitrail.training.classifier import ImageClassifier
from vitrail.training.config import ModelConfig, TrainingConfig
from vitrail.training.folder_data import FolderData

logger = logging.getLogger(__name__)


def build_model(config: ModelConfig, num_classes: int, in_channels: int) -> HiT:
    """Build the untrained network of a recipe."""
    fields = config.model_dump(exclude={"name"}, exclude_none=True)
    if isinstance(fields.get("image_size"), int):
        fields["image_size"] = (fields["image_size"],) * 2
    return HiT.from_name(config.name, num_classes=num_classes, in_channels=in_channels, **fields)


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
