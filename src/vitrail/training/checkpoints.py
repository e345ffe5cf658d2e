"""Checkpoints of a run: written atomically, and the newest readable one found for a resume."""

import logging
from pathlib import Path
from typing import Any, final

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from vitrail.core.errors import CheckpointError, first_line
from vitrail.core.files import atomic_write, regular_file

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
NUM_KEPT = 2
"""Number of checkpoints to keep: the second newest is the fallback for a damaged one."""


@final
class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that hold plain types only and that a kill or a full disk leaves complete or absent."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        # Not needed, and not loadable without executing pickled code.
        checkpoint.pop("hyper_parameters", None)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            torch.save(checkpoint, partial)


@final
class Checkpoints(Checkpoint):
    """Save a checkpoint after every epoch, every `every` optimizer steps, and when a run stops early.

    Args:
        folder: Run folder; checkpoints go to its subfolder `checkpoints`.
        every: Optimizer steps between two checkpoints; None for none within an epoch.
        within_epochs: Whether a run can resume within an epoch at all; streamed images cannot.
    """

    def __init__(self, folder: Path, every: int | None = None, within_epochs: bool = True) -> None:
        self.folder, self.every, self.within_epochs = folder / FOLDER, every, within_epochs
        self.saved_step = -1

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.is_last_batch or not self.within_epochs:
            return  # The checkpoint of the epoch follows its validation.
        due = self.every is not None and trainer.global_step % self.every == 0
        # Gradients that are still accumulating are not part of a checkpoint.
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and (due or trainer.should_stop):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # A run that stops within an epoch has saved its checkpoint already.
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        if trainer.global_step == self.saved_step:
            return
        self.saved_step = trainer.global_step
        trainer.save_checkpoint(self.folder / f"step-{trainer.global_step:09d}.ckpt", weights_only=False)
        if trainer.is_global_zero:
            for old in _list_newest_first(self.folder)[NUM_KEPT:]:
                old.unlink(missing_ok=True)


def find_newest_checkpoint(run: Path) -> Path | None:
    """Return the newest readable checkpoint of a run, or None if it has none yet; skip damaged ones with a warning.

    Raises:
        CheckpointError: All checkpoints are damaged.
    """
    paths = _list_newest_first(run / FOLDER)
    for path in paths:
        try:
            _check_readable(path)
        except CheckpointError as error:
            logger.warning("%s; trying the one before", error)
        else:
            return path
    if paths:
        raise CheckpointError(
            f"cannot read any of the {len(paths)} checkpoints in {run / FOLDER}; start a new run with another --out"
        )
    return None


def _check_readable(path: Path) -> None:
    try:
        content = torch.load(regular_file(path), map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged zip or pickle fails in many ways.
        raise CheckpointError(f"the checkpoint {path} is damaged: {first_line(error)}") from error
    if not isinstance(content, dict) or not {"state_dict", "loops", "optimizer_states"} <= set(content):
        raise CheckpointError(f"the checkpoint {path} is damaged: parts are missing")


def _list_newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"), reverse=True)
