"""Checkpoints of a run: written in one piece, the newest sound one found again."""

import logging
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from vitrail.core.errors import CheckpointError
from vitrail.core.files import atomic_write, regular_file

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
KEPT = 2
"""How many stay: should the newest be broken, the one before it takes its place."""


class WholeCheckpointIO(TorchCheckpointIO):
    """Checkpoints that a kill or a full disk leaves whole or absent, and that hold plain types only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        # What a checkpoint of ours never needs, and what would not load without trusting the file.
        checkpoint.pop("hyper_parameters", None)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            torch.save(checkpoint, partial)


class Checkpoints(Checkpoint):
    """A checkpoint after every epoch, every so many optimizer steps, and where a run stops early.

    Args:
        folder: Where the run writes; checkpoints go to its `checkpoints`.
        every: Optimizer steps between two; None for none within an epoch.
        within_epochs: Whether a run can be resumed within an epoch at all: not where images are streamed.
    """

    def __init__(self, folder: Path, every: int | None = None, within_epochs: bool = True) -> None:
        self.folder, self.every, self.within_epochs = folder / FOLDER, every, within_epochs
        self.saved_step = -1

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.is_last_batch or not self.within_epochs:
            return  # The epoch's own checkpoint follows after its validation.
        due = self.every is not None and trainer.global_step % self.every == 0
        # Not between two steps of which the first one's gradients are still to be added to.
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and (due or trainer.should_stop):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # A run that stops within an epoch has its checkpoint already.
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        if trainer.global_step == self.saved_step:
            return
        self.saved_step = trainer.global_step
        trainer.save_checkpoint(self.folder / f"step-{trainer.global_step:09d}.ckpt", weights_only=False)
        if trainer.is_global_zero:
            for old in _newest_first(self.folder)[KEPT:]:
                old.unlink(missing_ok=True)


def newest_checkpoint(run: Path) -> Path | None:
    """Return the newest checkpoint of a run that can be read, or None where there is none yet.

    A broken one is passed over with a warning.

    Raises:
        CheckpointError: There are checkpoints, but every one of them is broken.
    """
    found = _newest_first(run / FOLDER)
    for path in found:
        try:
            _check(path)
        except CheckpointError as error:
            logger.warning("%s; going on from the one before", error)
        else:
            return path
    if found:
        raise CheckpointError(
            f"not one of the {len(found)} checkpoints in {run / FOLDER} can be read; start anew with another --out"
        )
    return None


def _check(path: Path) -> None:
    try:
        content = torch.load(regular_file(path), map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged zip or pickle fails in many ways.
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise CheckpointError(f"the checkpoint {path} is broken: {reason}") from error
    if not isinstance(content, dict) or not {"state_dict", "loops", "optimizer_states"} <= set(content):
        raise CheckpointError(f"the checkpoint {path} is broken: it lacks a part")


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"), reverse=True)
