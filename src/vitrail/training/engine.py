"""The machine under every run: a trainer for a recipe, and its errors in our words."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from vitrail.errors import InvalidInputError, OutputError
from vitrail.files import write_text
from vitrail.training.callbacks import RunLog, TimeLimit, Timing, progress
from vitrail.training.checkpoints import Checkpoints, WholeCheckpointIO
from vitrail.training.cluster import placement
from vitrail.training.data import TrainingData
from vitrail.training.learner import Learner
from vitrail.training.loggers import create_loggers
from vitrail.training.runs import CONFIG
from vitrail.training.sections import Recipe

logger = logging.getLogger(__name__)


def create_trainer(
    recipe: Recipe,
    out: Path,
    epochs: int,
    callbacks: Sequence[Callback],
    data: TrainingData,
    unused_parameters: bool = False,
    **options: Any,
) -> lightning.Trainer:
    """Create the trainer of a run, with its log, its checkpoints and its time limit.

    Args:
        recipe: Where and how exactly.
        out: The folder of the run.
        epochs: How many.
        callbacks: Further ones, called before the log and the checkpoints.
        data: What is trained on.
        unused_parameters: Whether some parameters may get no gradient in a step.
        options: Of `lightning.Trainer`.

    Raises:
        InvalidInputError: What is asked for does not go together, or is not there on this machine.
    """
    engine = recipe.engine
    if data.streamed and engine.checkpoint_every is not None:
        raise InvalidInputError(
            f"expected engine.checkpoint_every: null, since a run on {recipe.data.name} cannot be resumed within an epoch"
        )
    limit = [] if engine.max_minutes is None else [TimeLimit(engine.max_minutes)]
    # The log before the checkpoint, which takes the log's rows with it.
    checkpoints = Checkpoints(out, engine.checkpoint_every, within_epochs=not data.streamed)
    whole = [*callbacks, *limit, Timing(), RunLog(out), *progress(), checkpoints]
    placed = placement(engine)
    strategy: dict[str, Any] = {}
    if placed.distributed or placed.devices not in (1, "1"):
        strategy = {"strategy": "ddp_find_unused_parameters_true" if unused_parameters else "ddp"}
        if engine.accelerator != "cpu" and placed.devices == "auto" and not unused_parameters:
            strategy = {"strategy": "auto"}
    try:
        return lightning.Trainer(
            accelerator=engine.accelerator,
            devices=placed.devices,
            num_nodes=placed.num_nodes,
            plugins=[WholeCheckpointIO(), *placed.plugins],
            precision=engine.precision,
            max_epochs=epochs,
            check_val_every_n_epoch=engine.validate_every,
            callbacks=whole,
            logger=create_loggers(recipe, out),
            default_root_dir=out,
            # The order of images and their share per process are ours.
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_checkpointing=True,
            enable_progress_bar=sys.stdout.isatty(),
            num_sanity_val_steps=0,
            log_every_n_steps=1_000_000,
            **strategy,
            **options,
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise InvalidInputError(f"engine: {error}") from error


def fit(
    trainer: lightning.Trainer, learner: Learner, data: TrainingData, recipe: Recipe, out: Path, checkpoint: Path | None
) -> None:
    """Write down the recipe and train, from a checkpoint on if there is one.

    Raises:
        OutputError: The folder cannot be written any more.
        TrainingError: The loss is no longer finite.
    """
    if trainer.is_global_zero:
        write_text(out / CONFIG, recipe.to_yaml())
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
    for reason in list(learner.unreadable.values())[:10]:
        logger.warning("skipped: %s", reason)
    if learner.unreadable:
        logger.warning("%d unreadable images were skipped in training", len(learner.unreadable))
