"""The machine under every run: a trainer for a recipe, and its errors in our words."""

import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from vitrail.core.errors import CheckpointError, InvalidInputError, OutputError
from vitrail.core.files import write_text
from vitrail.core.peers import Peers
from vitrail.datasets.workers import explain_killed_workers
from vitrail.training.callbacks import RunLog, TimeLimit, Timing, progress
from vitrail.training.checkpoints import Checkpoints, WholeCheckpointIO
from vitrail.training.cluster import placement
from vitrail.training.data import TrainingData
from vitrail.training.determinism import REFUSED
from vitrail.training.learner import Learner
from vitrail.training.loggers import create_loggers
from vitrail.training.run_dir import CONFIG, record_data
from vitrail.training.sections import Recipe

logger = logging.getLogger(__name__)

READERS = "go on with --resume and fewer data.num_workers, or start anew with a smaller data.batch_size"


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
        InvalidInputError: The images are not those that the run began with, or an operation of the network is not deterministic.
        CheckpointError: The checkpoint does not fit the network.
        OutputError: The folder cannot be written any more.
        ProcessError: A process that reads images was killed, or another one of several that train together ended.
        TrainingError: The loss is no longer finite.
    """
    record_data(out, data, checkpoint is not None, trainer.is_global_zero)
    if trainer.is_global_zero:
        write_text(out / CONFIG, recipe.to_yaml())
    if checkpoint is not None:
        logger.info("going on from %s", checkpoint)
    try:
        with Peers() as peers, explain_killed_workers(READERS):
            trainer.callbacks.insert(0, Ending(peers))  # type: ignore[attr-defined]
            _fit(trainer, learner, data, checkpoint)
    except OSError as error:
        raise OutputError(f"cannot write into {out}: {error.strerror or error}; the models written before are whole") from error
    for reason in list(learner.unreadable.values())[:10]:
        logger.warning("skipped: %s", reason)
    if learner.unreadable:
        logger.warning("%d unreadable images were skipped in training", len(learner.unreadable))


def _fit(trainer: lightning.Trainer, learner: Learner, data: TrainingData, checkpoint: Path | None) -> None:
    try:
        trainer.fit(learner, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stopped:
        # So Lightning answers Ctrl-C, without a word.
        if isinstance(stopped.__context__, KeyboardInterrupt):
            raise stopped.__context__ from None
        raise
    except RuntimeError as error:
        if REFUSED in str(error):
            raise InvalidInputError(
                f"engine.deterministic: {str(error).splitlines()[0]}; leave engine.deterministic out, or change the network"
            ) from error
        if "Error(s) in loading state_dict" in str(error):
            raise CheckpointError(
                f"{checkpoint} does not fit the network that the recipe and the images make: were classes added or removed? Put them "
                "back as they were, or start a new run with another --out"
            ) from error
        raise


class Ending(Callback):
    """Ends a run with the other processes, and by signals as any other program.

    Lightning would answer SIGTERM by leaving the loop, as if the run had come to its end, and one process of several by a broadcast
    that the others know nothing of.

    Args:
        peers: Who watches the other processes.
    """

    def __init__(self, peers: Peers) -> None:
        self.peers = peers

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)
        self.peers.start(trainer.global_rank, trainer.world_size)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self.handler is None else self.handler)
