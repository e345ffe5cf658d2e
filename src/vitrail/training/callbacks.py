"""What a person sees of a training run: a bar or plain lines, a table, a learning curve; and when it has to stop."""

import csv
import logging
import sys
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, Checkpoint, RichProgressBar

from vitrail.core.files import atomic_write
from vitrail.viz.curves import plot_learning_curve

logger = logging.getLogger(__name__)

Row = dict[str, int | float]

METRICS = "metrics.csv"
LEARNING_CURVE = "learning_curve.png"


def progress() -> list[Callback]:
    """A progress bar on a terminal, plain lines in a log."""
    return [RichProgressBar()] if sys.stdout.isatty() else [EpochLines()]


def epoch_row(trainer: lightning.Trainer) -> Row:
    """The figures of the epoch that ends; epochs count from 1."""
    # Lightning keeps the figures of the last validation until there is another one.
    validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
    found = sorted(trainer.callback_metrics.items())
    figures = {name: float(value) for name, value in found if validated or not name.startswith("val_")}
    return {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **figures}


class Timing(Callback):
    """Measures, per batch, how long the loader keeps the network waiting, and how long the network takes."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._begin()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._begin()  # A run that is resumed within an epoch does not start that epoch.

    def _begin(self) -> None:
        self.waited = self.computed = 0.0
        self.batches = 0
        self.mark = time.perf_counter()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.waited, self.mark = self.waited + now - self.mark, now

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.computed, self.mark, self.batches = self.computed + now - self.mark, now, self.batches + 1

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        count = max(self.batches, 1)
        pl_module.log("data_seconds", self.waited / count)
        pl_module.log("step_seconds", self.computed / count)


# The two below are Checkpoints in Lightning's sense, since it calls those last, when an epoch's figures are complete.


class EpochLines(Checkpoint):
    """One line of figures an epoch."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        seconds, self.started = time.monotonic() - self.started, time.monotonic()
        if not trainer.is_global_zero:
            return
        row = epoch_row(trainer)
        shown = [(name, value) for name, value in row.items() if name.startswith(("train_", "val_"))]
        figures = "  ".join(f"{name} {value:.4f}" for name, value in sorted(shown, key=lambda item: _place(item[0])))
        waiting = row["data_seconds"] / max(row["data_seconds"] + row["step_seconds"], 1e-9)
        logger.info(
            "epoch %d/%s  %s  learning_rate %.1e  %.0f s, %.0f %% of a step waiting for data",
            row["epoch"],
            trainer.max_epochs,
            figures,
            row["learning_rate"],
            seconds,
            100 * waiting,
        )


def _place(figure: str) -> tuple[bool, bool, str]:
    """Training before validation, losses first."""
    return figure.startswith("val_"), not figure.endswith("_loss"), figure


class RunLog(Checkpoint):
    """`metrics.csv` and `learning_curve.png`, renewed after every epoch.

    The rows travel with the checkpoints, so that a resumed run goes on with the table of what it resumes; Lightning's own
    CSV file starts anew.

    Args:
        folder: Where to write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Row] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.rows.append(epoch_row(trainer))
        if trainer.is_global_zero:
            write_rows(self.rows, self.folder / METRICS)
            plot_learning_curve(self.rows, self.folder / LEARNING_CURVE)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state_dict["rows"]]


def write_rows(rows: list[Row], path: Path) -> None:
    """Write a table in one piece; a figure that an epoch lacks is left empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)


class TimeLimit(Callback):
    """Ends a run after some minutes of this call; what went before it was resumed does not count.

    Args:
        minutes: The limit.

    Attributes:
        stopped: Whether it has ended the run.
    """

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self.started = time.monotonic()
        self.stopped = False

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Between two steps there is no checkpoint to go on from.
        stepping = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not stepping and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        # Asked before a batch and answered after it, when checkpoints look for it. All processes stop at the same batch.
        over = trainer.strategy.broadcast(time.monotonic() - self.started > self.seconds)
        if over and not trainer.should_stop:
            trainer.should_stop = self.stopped = True
            if trainer.is_global_zero:
                logger.warning("stopping after %.1f minutes, as asked; go on with --resume", self.seconds / 60)
