"""From a recipe to a trained model on disk."""

import logging
import time
from contextlib import nullcontext
from pathlib import Path

from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging
from timm.optim import list_optimizers

from vitrail.adapters import Classifier, Preprocessing
from vitrail.core.distributed import started_rank
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import output_folder
from vitrail.core.locking import only_run
from vitrail.core.registry import unknown_name
from vitrail.datasets.augmentation.transforms import label_mixing
from vitrail.training.checkpoints import newest_checkpoint
from vitrail.training.classifier import ImageClassifier
from vitrail.training.config import TrainingConfig
from vitrail.training.data import TrainingData
from vitrail.training.determinism import determinism
from vitrail.training.diffmask.config import MaskTrainingConfig
from vitrail.training.diffmask.recipe import train_mask
from vitrail.training.distillation import Teacher
from vitrail.training.engine import create_trainer, fit
from vitrail.training.export import BEST, Export
from vitrail.training.network import (
    RANDOM_AND_FROZEN,
    build_network,
    freeze_backbone,
    is_random_and_frozen,
    prepare_to_learn,
)
from vitrail.training.randomness import random_state_kept, seed_all
from vitrail.training.run_dir import claim, is_complete, write_summary
from vitrail.training.sections import Recipe

logger = logging.getLogger(__name__)


def train(config: Recipe, out: str | Path, resume: bool = False) -> Path:
    """Train a classifier, or an explainer; return the path of the best weights.

    Writes into `out`: `config.yaml`, `metrics.csv`, `learning_curve.png`, `summary.json`, `best.safetensors` and
    `last.safetensors` (models for `vitrail.load`, or gates for `method="diffmask"`), `checkpoints/` (the whole training state). The
    random state of the caller is left as it was.

    Args:
        config: The recipe.
        out: Folder of the run.
        resume: Whether to go on with the run that is in `out`, if any: to the weights that it would have come to undisturbed.

    Raises:
        InvalidInputError: The recipe or the data do not fit, or differ from those of the run to resume.
        CheckpointError: The run's checkpoints are broken.
        OutputError: `out` holds an earlier run and `resume` is false, another run is writing there, or it cannot be written.
        ProcessError: A process that reads images was killed, or another one of several that train together ended.
        TrainingError: The loss is no longer finite.
    """
    out = output_folder(out)
    # Further processes of the same run may find what the first has written.
    with only_run(out) if started_rank() == 0 else nullcontext():
        if started_rank() == 0:
            claim(out, config, resume)
        if resume and is_complete(out):
            logger.info("the run in %s is complete", out)
            return out / BEST
        checkpoint = newest_checkpoint(out) if resume else None
        with random_state_kept(on_cuda=config.engine.accelerator != "cpu"), determinism(config.engine.deterministic):
            if isinstance(config, MaskTrainingConfig):
                train_mask(config, out, checkpoint)
            elif isinstance(config, TrainingConfig):
                _train_classifier(config, out, checkpoint)
    return out / BEST


def _train_classifier(config: TrainingConfig, out: Path, checkpoint: Path | None) -> None:
    started = time.monotonic()
    if config.optimizer.name.removeprefix("lookahead_") not in list_optimizers():
        raise unknown_name("optimizer", config.optimizer.name, list_optimizers())
    seed_all(config.engine.seed)
    classifier, data = _classifier_and_data(config, resumed=checkpoint is not None)
    distilled = config.distillation.kind != "none"
    teacher = Teacher(config.distillation, classifier.num_classes, classifier.preprocessing.size) if distilled else None
    prepare_to_learn(classifier.module, config.model.train, distilled, config.engine.fused_attention)
    if config.optimizer.backbone_learning_rate == 0:
        freeze_backbone(classifier.module)
    mixing = label_mixing(config.augmentation, classifier.num_classes)
    learner = ImageClassifier(classifier, config, mixing, teacher)
    export = Export(out, classifier)
    trainer = create_trainer(
        config,
        out,
        config.schedule.epochs,
        _callbacks(config, export),
        data,
        config.engine.find_unused_parameters,
        accumulate_grad_batches=config.engine.accumulate,
        gradient_clip_val=config.optimizer.gradient_clip,
        gradient_clip_algorithm=config.optimizer.clip_by if config.optimizer.gradient_clip else None,
    )
    fit(trainer, learner, data, config, out, checkpoint)
    if trainer.is_global_zero:
        write_summary(out, trainer, learner, data, export.best, time.monotonic() - started)


def _classifier_and_data(config: TrainingConfig, resumed: bool) -> tuple[Classifier, TrainingData]:
    """The untrained classifier with the recipe's preprocessing, and the data, each needing a number of the other."""
    bare = config.model.model_copy(update={"pretrained": False, "start_from": None})
    # A network of two classes tells the image size, which the data needs to tell the classes.
    own = build_network(bare, ["", ""], len(config.data.mean)).preprocessing
    if not own.fixed and config.data.crop_mode != "whole" and config.model.image_size is None:
        raise InvalidInputError(
            f"expected model.image_size for {config.model.name} with data.crop_mode {config.data.crop_mode}, since it takes images of any "
            "size; or data.crop_mode whole"
        )
    if own.fixed and config.data.crop_mode == "whole":
        raise InvalidInputError(
            f"expected data.crop_mode center or squash for {config.model.name}, got whole: it cannot tell padding from image"
        )
    preprocessing = Preprocessing(
        size=own.size,
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
    # A checkpoint has all weights: what the run started from may be gone by now.
    return build_network(bare if resumed else config.model, data.class_names, len(config.data.mean), preprocessing), data


def _callbacks(config: TrainingConfig, export: Export) -> list[Callback]:
    engine, patience = config.engine, config.schedule.patience
    chosen: list[Callback] = [export]
    if engine.ema_decay is not None:
        chosen.append(EMAWeightAveraging(decay=engine.ema_decay))
    if patience is not None:
        chosen.append(EarlyStopping("val_top1", mode="max", patience=patience, check_finite=False))
    return chosen
