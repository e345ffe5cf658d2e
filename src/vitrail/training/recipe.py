"""Train by a recipe and write the model to disk."""

import logging
import time
from contextlib import nullcontext
from pathlib import Path

from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging
from timm.optim import list_optimizers

from vitrail.adapters import Classifier, Preprocessing
from vitrail.adapters.loading import check_name
from vitrail.core.distributed import started_rank
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import output_folder, removed_if_empty
from vitrail.core.locking import only_run
from vitrail.core.registry import unknown_name
from vitrail.datasets.augmentation.transforms import make_label_mixing
from vitrail.training.checkpoints import find_newest_checkpoint
from vitrail.training.classifier import ImageClassifier
from vitrail.training.config import TrainingConfig
from vitrail.training.data import TrainingData
from vitrail.training.diffmask.config import MaskTrainingConfig
from vitrail.training.diffmask.recipe import train_mask
from vitrail.training.distillation import Teacher
from vitrail.training.engine import create_trainer, fit
from vitrail.training.export import BEST, Export
from vitrail.training.feature_guide import FeatureGuide
from vitrail.training.network import (
    RANDOM_AND_FROZEN,
    build_network,
    freeze_backbone,
    is_random_and_frozen,
    prepare_for_training,
    store_channels_last,
)
from vitrail.training.quiet import quiet_lightning
from vitrail.training.reproducibility import deterministic_algorithms, preserve_random_state, seed_all
from vitrail.training.run_dir import claim_run, is_complete, write_summary
from vitrail.training.sections import Recipe

logger = logging.getLogger(__name__)


def train(config: Recipe, out: str | Path, resume: bool = False) -> Path:
    """Train a classifier or a DiffMask explainer and return the path of the best weights.

    Writes to `out`: `config.yaml`, `metrics.csv`, `learning_curve.png`, `summary.json`, `best.safetensors` and
    `last.safetensors` (models for `vitrail.load`, or gates for `method="diffmask"`), and `checkpoints/` (the full training state).
    Preserves the caller's random state.

    Args:
        config: Recipe.
        out: Run folder.
        resume: Whether to resume the run in `out`, if there is one; it ends with the weights of an uninterrupted run.

    Raises:
        InvalidInputError: Recipe and data do not fit each other, or differ from those of the run to resume.
        CheckpointError: The run's checkpoints are damaged.
        OutputError: `out` holds an earlier run and `resume` is false, another run is writing there, or it is not writable.
        ProcessError: A data loading process was killed, or another training process ended.
        TrainingError: The loss is not finite.
    """
    out = Path(out)
    # Other processes of the run may already see files of the first one.
    with removed_if_empty(out), (only_run if started_rank() == 0 else nullcontext)(output_folder(out)):
        if started_rank() == 0:
            claim_run(out, config, resume)
        if resume and is_complete(out):
            logger.info("the run in %s is complete", out)
            return out / BEST
        checkpoint = find_newest_checkpoint(out) if resume else None
        on_cuda = config.engine.accelerator != "cpu"
        with quiet_lightning(), preserve_random_state(on_cuda), deterministic_algorithms(config.engine.deterministic):
            if isinstance(config, MaskTrainingConfig):
                train_mask(config, out, checkpoint)
            elif isinstance(config, TrainingConfig):
                _train_classifier(config, out, checkpoint)
    return out / BEST


def _train_classifier(config: TrainingConfig, out: Path, checkpoint: Path | None) -> None:
    start_time = time.monotonic()
    if config.optimizer.name.removeprefix("lookahead_") not in list_optimizers():
        raise unknown_name("optimizer", config.optimizer.name, list_optimizers())
    if config.distillation.teacher is not None:
        check_name(config.distillation.teacher)  # Before photos are decoded, which takes minutes.
    seed_all(config.engine.seed)
    classifier, data = _build_classifier_and_data(config, resumed=checkpoint is not None)
    distilled = config.distillation.kind != "none"
    teacher = Teacher(config.distillation, classifier) if distilled else None
    prepare_for_training(classifier.module, config.model.train, distilled, config.engine.fused_attention)
    if config.engine.channels_last:
        for network in (classifier, teacher.classifier) if teacher is not None else (classifier,):
            store_channels_last(network.module)
    if config.optimizer.backbone_learning_rate == 0:
        freeze_backbone(classifier.module)
    mixing = make_label_mixing(config.augmentation, classifier.num_classes)
    guide = None
    if teacher is not None and config.distillation.features is not None:
        guide = FeatureGuide(config.distillation.features, classifier, teacher)
    learner = ImageClassifier(classifier, config, mixing, teacher, guide)
    export = Export(out, classifier)
    trainer = create_trainer(
        config,
        out,
        config.schedule.epochs,
        _create_callbacks(config, export),
        data,
        config.engine.find_unused_parameters,
        accumulate_grad_batches=config.engine.accumulate,
        gradient_clip_val=config.optimizer.gradient_clip,
        gradient_clip_algorithm=config.optimizer.clip_by if config.optimizer.gradient_clip else None,
    )
    fit(trainer, learner, data, config, out, checkpoint)
    if trainer.is_global_zero:
        write_summary(out, trainer, learner, data, export.best, time.monotonic() - start_time)


def _build_classifier_and_data(config: TrainingConfig, resumed: bool) -> tuple[Classifier, TrainingData]:
    """Build the classifier and open the data: the data needs the network's image size, the network the data's classes."""
    untrained = config.model.model_copy(update={"pretrained": False, "start_from": None})
    # A throwaway network of two classes gives the image size.
    default = build_network(untrained, ["", ""], len(config.data.mean)).preprocessing
    if not default.fixed and config.data.crop_mode != "whole" and config.model.image_size is None:
        raise InvalidInputError(
            f"expected model.image_size for {config.model.name} with data.crop_mode {config.data.crop_mode}, since it takes images of any "
            "size; or data.crop_mode whole"
        )
    if default.fixed and config.data.crop_mode == "whole":
        raise InvalidInputError(
            f"expected data.crop_mode center or squash for {config.model.name}, got whole: the network does not support padding"
        )
    preprocessing = Preprocessing(
        size=default.size,
        crop_fraction=config.data.crop_fraction,
        crop_mode=config.data.crop_mode,
        interpolation=config.data.interpolation,
        mean=config.data.mean,
        std=config.data.std,
    )
    data = TrainingData(config.data, config.augmentation, preprocessing, config.engine.seed)
    seed_all(config.engine.seed)
    if not resumed and is_random_and_frozen(config.model):
        logger.warning("%s", RANDOM_AND_FROZEN)
    # A checkpoint holds all weights; the pretrained ones may be gone by now.
    model = untrained if resumed else config.model
    return build_network(model, data.class_names, len(config.data.mean), preprocessing), data


def _create_callbacks(config: TrainingConfig, export: Export) -> list[Callback]:
    engine, patience = config.engine, config.schedule.patience
    callbacks: list[Callback] = [export]
    if engine.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=engine.ema_decay))
    if patience is not None:
        callbacks.append(EarlyStopping("val_top1", mode="max", patience=patience, check_finite=False))
    return callbacks
