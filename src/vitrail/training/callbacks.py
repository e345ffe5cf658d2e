"""Callbacks that time steps and enforce a time limit."""

import logging
import time
from typing import Any, final

import lightning
from lightning.pytorch.callbacks import Callback

logger = logging.getLogger(__name__)


@final
class StepTimer(Callback):
    """Measure per batch how long the network waits for data and how long it computes; log both per epoch."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._reset()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._reset()  # Lightning does not start the epoch within which a run is resumed.

    def _reset(self) -> None:
        self.waited = self.computed = 0.0
        self.num_batches = 0
        self.last = time.perf_counter()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.waited, self.last = self.waited + now - self.last, now

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.computed, self.last, self.num_batches = self.computed + now - self.last, now, self.num_batches + 1

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        num_batches = max(self.num_batches, 1)
        pl_module.log("data_seconds", self.waited / num_batches)
        pl_module.log("step_seconds", self.computed / num_batches)


@final
class TimeLimit(Callback):
    """Stop the run after some minutes; time spent before a resume does not count.

    Attributes:
        stopped: Whether the limit stopped the run.
    """

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self.start_time = time.monotonic()
        self.stopped = False

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Gradients that are still accumulating are not part of a checkpoint.
        stepping = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not stepping and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        # Decide before the batch, since checkpoints read the decision after it. All processes stop at the same batch.
        over = trainer.strategy.broadcast(time.monotonic() - self.start_time > self.seconds)
        if over and not trainer.should_stop:
            trainer.should_stop = self.stopped = True
            if trainer.is_global_zero:
                logger.warning(
                    "stopping after %.1f minutes (engine.max_minutes); continue the run with --resume", self.seconds / 60
                )
