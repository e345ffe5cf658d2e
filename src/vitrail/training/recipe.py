"""From a recipe to a trained model on disk."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging
from timm.optim import list_optimizers

from vitrail.adapters import Classifier, Preprocessing
from vitrail.data.augmentation import label_mixing
from vitrail.distributed import started_rank
from vitrail.errors import InvalidInputError, OutputError
from vitrail.files import output_folder, write_text
from vitrail.registry import unknown_name
from vitrail.training.callbacks import RunLog, TimeLimit, Timing, progress
from vitrail.training.checkpoints import Checkpoints, WholeCheckpointIO, newest_checkpoint
from vitrail.training.classifier import ImageClassifier
from vitrail.training.cluster import Placement, placement
from vitrail.training.config import TrainingConfig
from vitrail.training.data import TrainingData
from vitrail.training.distillation import Teacher
from vitrail.training.export import BEST, Export
from vitrail.training.loggers import create_loggers
from vitrail.training.network import build_network, prepare_to_learn
from vitrail.training.randomness import random_state_kept, seed_all
from vitrail.training.runs import CONFIG, claim, is_complete, write_summary

logger = logging.getLogger(__name__)


def train(config: TrainingConfig, out: str | Path, resume: bool = False) -> Path:
    """Train a classifier; return the path of the best model.

    Writes into `out`: `config.yaml`, `metrics.csv`, `learning_curve.png`, `summary.json`, `best.safetensors` and
    `last.safetensors` (models for `vitrail.load`), `checkpoints/` (the whole training state). The random state of the
    caller is left as it was.

    Args:
        config: The recipe.
        out: Folder of the run.
        resume: Whether to go on with the run that is in `out`, if any: to the weights that it would have come to undisturbed.

    Raises:
        InvalidInputError: The recipe or the data do not fit, or differ from those of the run to resume.
        CheckpointError: The run's checkpoints are broken.
        OutputError: `out` holds an earlier run and `resume` is false, or cannot be written.
        TrainingError: The loss is no longer finite.
    """
    out = output_folder(out)
    # Further processes of the same run may find what the first has written.
    if started_rank() == 0:
        claim(out, config, resume)
    if resume and is_complete(out):
        logger.info("the run in %s is complete", out)
        return out / BEST
    with random_state_kept():
        return _train(config, out, newest_checkpoint(out) if resume else None)


def _train(config: TrainingConfig, out: Path, checkpoint: Path | None) -> Path:
    started = time.monotonic()
    if config.optimizer.name.removeprefix("lookahead_") not in list_optimizers():
        raise unknown_name("optimiser", config.optimizer.name, list_optimizers())
    seed_all(config.engine.seed)
    classifier, data = _classifier_and_data(config, resumed=checkpoint is not None)
    distilled = config.distillation.kind != "none"
    teacher = Teacher(config.distillation, classifier.num_classes, classifier.preprocessing.size) if distilled else None
    prepare_to_learn(classifier.module, config.model.train, distilled, config.engine.fused_attention)
    mixing = label_mixing(config.augmentation, classifier.num_classes)
    learner = ImageClassifier(classifier, config, mixing, teacher)
    export = Export(out, classifier)
    placed = placement(config.engine)
    try:
        trainer = _trainer(config, out, placed, _callbacks(config, out, export, data.streamed))
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise InvalidInputError(f"engine: {error}") from error
    # Now that everything fits.
    if trainer.is_global_zero:
        write_text(out / CONFIG, config.to_yaml())
    if checkpoint is not None:
        logger.info("going on from %s", checkpoint)
    try:
        trainer.fit(learner, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stopped:
        # So Lightning answers Ctrl-C, without a word.
        if isinstance(stopped.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stopped
        raise
    except OSError as error:
        raise OutputError(f"cannot write into {out}: {error.strerror or error}; the models written before are whole") from error
    if learner.unreadable:
        for reason in list(learner.unreadable.values())[:10]:
            logger.warning("skipped: %s", reason)
        logger.warning("%d unreadable images were skipped in training", len(learner.unreadable))
    if trainer.is_global_zero:
        write_summary(out, trainer, learner, data, export.best, time.monotonic() - started)
    return out / BEST


def _classifier_and_data(config: TrainingConfig, resumed: bool) -> tuple[Classifier, TrainingData]:
    """The untrained classifier with the recipe's preprocessing, and the data, each needing a number of the other."""
    bare = config.model.model_copy(update={"pretrained": False, "start_from": None})
    # A network of two classes tells the image size, which the data needs to tell the classes.
    size = build_network(bare, ["", ""], len(config.data.mean))
    preprocessing = Preprocessing(
        size=size.preprocessing.size,
        crop_fraction=config.data.crop_fraction,
        crop_mode=config.data.crop_mode,
        interpolation=config.data.interpolation,
        mean=config.data.mean,
        std=config.data.std,
    )
    data = TrainingData(config.data, config.augmentation, preprocessing, config.engine.seed)
    seed_all(config.engine.seed)
    # A checkpoint has all weights: what the run started from may be gone by now.
    return build_network(bare if resumed else config.model, data.class_names, len(config.data.mean), preprocessing), data


def _callbacks(config: TrainingConfig, out: Path, export: Export, streamed: bool) -> list[Callback]:
    engine, patience = config.engine, config.schedule.patience
    if streamed and engine.checkpoint_every is not None:
        raise InvalidInputError(
            f"expected engine.checkpoint_every: null, since a run on {config.data.name} cannot be resumed within an epoch"
        )
    chosen: list[Callback] = [export]
    if engine.ema_decay is not None:
        chosen.append(EMAWeightAveraging(decay=engine.ema_decay))
    if engine.max_minutes is not None:
        chosen.append(TimeLimit(engine.max_minutes))
    if patience is not None:
        chosen.append(EarlyStopping("val_top1", mode="max", patience=patience, check_finite=False))
    # The log before the checkpoint, which takes the log's rows with it.
    return [*chosen, Timing(), RunLog(out), *progress(), Checkpoints(out, engine.checkpoint_every, within_epochs=not streamed)]


def _trainer(config: TrainingConfig, out: Path, placed: Placement, callbacks: list[Callback]) -> lightning.Trainer:
    engine = config.engine
    strategy: dict[str, Any] = {}
    if placed.distributed or placed.devices not in (1, "1"):
        strategy = {"strategy": "ddp_find_unused_parameters_true" if engine.find_unused_parameters else "ddp"}
        if engine.accelerator != "cpu" and placed.devices == "auto" and not engine.find_unused_parameters:
            strategy = {"strategy": "auto"}
    return lightning.Trainer(
        accelerator=engine.accelerator,
        devices=placed.devices,
        num_nodes=placed.num_nodes,
        plugins=[WholeCheckpointIO(), *placed.plugins],
        precision=engine.precision,
        max_epochs=config.schedule.epochs,
        accumulate_grad_batches=engine.accumulate,
        check_val_every_n_epoch=engine.validate_every,
        gradient_clip_val=config.optimizer.gradient_clip,
        gradient_clip_algorithm=config.optimizer.clip_by if config.optimizer.gradient_clip else None,
        callbacks=callbacks,
        logger=create_loggers(config, out),
        default_root_dir=out,
        # The order of images and their share per process are ours.
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_checkpointing=True,
        enable_progress_bar=sys.stdout.isatty(),
        num_sanity_val_steps=0,
        log_every_n_steps=1_000_000,
        **strategy,
    )
