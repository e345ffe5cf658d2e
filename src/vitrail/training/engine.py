"""Lightning trainer of a run, and its errors as vitrail's own."""

import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from vitrail.core.errors import CheckpointError, InvalidInputError, OutputError, VitrailError, failures_as
from vitrail.core.files import write_text
from vitrail.core.peers import Peers
from vitrail.datasets.workers import explain_killed_workers
from vitrail.training.callbacks import StepTimer, TimeLimit
from vitrail.training.checkpoints import AtomicCheckpointIO, Checkpoints
from vitrail.training.cluster import detect_placement
from vitrail.training.data import TrainingData
from vitrail.training.learner import Learner
from vitrail.training.loggers import RunLog, create_loggers, create_progress_callbacks
from vitrail.training.reproducibility import NOT_DETERMINISTIC
from vitrail.training.run_dir import CONFIG, record_data
from vitrail.training.sections import Recipe

logger = logging.getLogger(__name__)

KILLED_READER_REMEDY = "continue with --resume and fewer data.num_workers, or start a new run with a smaller data.batch_size"


def create_trainer(
    recipe: Recipe,
    out: Path,
    epochs: int,
    callbacks: Sequence[Callback],
    data: TrainingData,
    unused_parameters: bool = False,
    **options: Any,
) -> lightning.Trainer:
    """Create the trainer of a run with its logs, checkpoints and time limit.

    Args:
        recipe: Recipe, of which `engine` configures the trainer.
        out: Run folder.
        callbacks: Further callbacks, called before logs and checkpoints.
        unused_parameters: Whether some parameters may get no gradient in a step.
        options: Further options of `lightning.Trainer`.

    Raises:
        InvalidInputError: Settings contradict each other, or the device does not exist on this machine.
    """
    engine = recipe.engine
    if data.streamed and engine.checkpoint_every is not None:
        raise InvalidInputError(
            f"expected engine.checkpoint_every: null, since a run on {recipe.data.name} cannot be resumed within an epoch"
        )
    limit = [] if engine.max_minutes is None else [TimeLimit(engine.max_minutes)]
    # RunLog comes before the checkpoints, which hold its rows.
    checkpoints = Checkpoints(out, engine.checkpoint_every, within_epochs=not data.streamed)
    all_callbacks = [*callbacks, *limit, StepTimer(), RunLog(out), *create_progress_callbacks(), checkpoints]
    placement = detect_placement(engine)
    strategy: dict[str, Any] = {}
    if placement.distributed or placement.devices not in (1, "1"):
        strategy = {"strategy": "ddp_find_unused_parameters_true" if unused_parameters else "ddp"}
        if engine.accelerator != "cpu" and placement.devices == "auto" and not unused_parameters:
            strategy = {"strategy": "auto"}
    try:
        return lightning.Trainer(
            accelerator=engine.accelerator,
            devices=placement.devices,
            num_nodes=placement.num_nodes,
            plugins=[AtomicCheckpointIO(), *placement.plugins],
            precision=engine.precision,
            max_epochs=epochs,
            check_val_every_n_epoch=engine.validate_every,
            callbacks=all_callbacks,
            logger=create_loggers(recipe, out),
            default_root_dir=out,
            # EpochBatches distributes the images over processes.
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_checkpointing=True,
            enable_progress_bar=sys.stdout.isatty(),
            num_sanity_val_steps=0,
            log_every_n_steps=1_000_000,
            **strategy,
            **options,
        )
    except VitrailError:
        raise
    # Every accelerator reports missing libraries by another error.
    except (ImportError, RuntimeError, ValueError, TypeError, MisconfigurationException) as error:
        raise InvalidInputError(f"engine: {error}") from error


def fit(
    trainer: lightning.Trainer, learner: Learner, data: TrainingData, recipe: Recipe, out: Path, checkpoint: Path | None
) -> None:
    """Write the recipe to the run folder and train, resuming from a checkpoint if there is one.

    Raises:
        InvalidInputError: The images differ from those the run started with, or an operation of the network has no deterministic
            algorithm although `engine.deterministic` requires one.
        CheckpointError: The checkpoint does not fit the network.
        OutputError: The folder cannot be written.
        ProcessError: A data loading process was killed, or another training process ended.
        TrainingError: The loss is not finite.
    """
    record_data(out, data, checkpoint is not None, trainer.is_global_zero)
    if trainer.is_global_zero:
        write_text(out / CONFIG, recipe.to_yaml())
    if checkpoint is not None:
        logger.info("resuming from %s", checkpoint)
    with (
        failures_as(OutputError, f"cannot write to {out}", "; models and checkpoints written before are complete"),
        Peers() as peers,
        explain_killed_workers(KILLED_READER_REMEDY),
    ):
        trainer.callbacks.insert(0, ProcessWatch(peers))  # type: ignore[attr-defined]
        _fit(trainer, learner, data, checkpoint)
    for reason in list(learner.unreadable.values())[:10]:
        logger.warning("skipped: %s", reason)
    if learner.unreadable:
        logger.warning("%d unreadable images were skipped in training", len(learner.unreadable))


def _fit(trainer: lightning.Trainer, learner: Learner, data: TrainingData, checkpoint: Path | None) -> None:
    try:
        trainer.fit(learner, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stopped:
        # Lightning turns Ctrl+C into SystemExit.
        if isinstance(stopped.__context__, KeyboardInterrupt):
            raise stopped.__context__ from None
        raise
    except RuntimeError as error:
        if NOT_DETERMINISTIC in str(error):
            raise InvalidInputError(
                f"engine.deterministic: {str(error).splitlines()[0]}; remove engine.deterministic, or change the network"
            ) from error
        if "Error(s) in loading state_dict" in str(error):
            raise CheckpointError(
                f"{checkpoint} does not fit the network of this recipe and these images: were classes added or removed? Restore them, "
                "or start a new run with another --out"
            ) from error
        raise


@final
class ProcessWatch(Callback):
    """End the run when another training process ends, and restore the default handling of SIGTERM.

    On SIGTERM Lightning would leave the training loop as if the run were complete, and in one of several processes wait for a
    broadcast that the others do not take part in.

    Args:
        peers: Watches the other processes.
    """

    def __init__(self, peers: Peers) -> None:
        self.peers = peers

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)
        self.peers.start(trainer.global_rank, trainer.world_size)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self.handler is None else self.handler)
